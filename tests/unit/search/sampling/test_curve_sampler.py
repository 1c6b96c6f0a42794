"""The freeze-thaw search as a sampler of Optuna's."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler

from search.planning.plan import make_plan
from search.sampling.curve_sampler import CurveSampler
from search.sampling.sampler import suggest_params
from search.sampling.study_curves import make_engine
from spaces.loader import load_study


class TestProposal:
    def test_whole_configuration(self) -> None:
        """Every value that Optuna gets is in its dimension, and the same trial gets it again."""
        plan = make_plan(load_study("combined", {"presets": []}))
        found = []
        for _ in range(2):
            sampler: BaseSampler = CurveSampler(make_engine(plan), list, seed=3)
            study = optuna.create_study(sampler=sampler)
            params = suggest_params(study.ask(), plan)
            assert all(plan.spec.space[path].contains(value) for path, value in params.items())
            found.append(params)
        assert found[0] == found[1]

    def test_failing_model(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A model that cannot be fitted costs no trial: it is sampled at random, and logged."""
        plan = make_plan(load_study("focal_gamma", {"presets": []}))
        engine = make_engine(plan)

        def fail(*_: object) -> None:
            raise np.linalg.LinAlgError("not positive definite")

        monkeypatch.setattr(engine, "propose", fail)
        study = optuna.create_study(sampler=CurveSampler(engine, list, seed=3))
        params = suggest_params(study.ask(), plan)
        assert set(params) == set(plan.spec.space)
        assert "trial 0 is sampled at random" in caplog.text
