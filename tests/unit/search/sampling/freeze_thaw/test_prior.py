"""What earlier studies teach: the file that ships with the package, and the user's own studies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from search.planning.plan import Plan, complete_config, make_plan
from search.sampling.freeze_thaw.config_features import FEATURE_NAMES, NO_CLIP, describe_configs
from search.sampling.freeze_thaw.encoding import EncodedSpace
from search.sampling.freeze_thaw.prior import (
    EarlierStudy,
    JoinedPrior,
    StudyPrior,
    applies_to,
    load_knowledge,
    load_shipped,
    make_earlier_prior,
    save_knowledge,
)
from search.sampling.study_curves import make_engine
from spaces.errors import RecordsError
from spaces.loader import load_study
from spaces.parameters import Choice, FloatRange


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The shipped study over weights, losses and the optimizer."""
    return make_plan(load_study("combined"))


def space_of(plan: Plan) -> tuple[EncodedSpace, dict[str, object]]:
    """Its space and the values that it does not search."""
    fixed = dict(complete_config(plan.objective, plan.starting_tree(None)))
    return EncodedSpace({path: plan.spec.space[path] for path in plan.order}, fixed), fixed


class TestFeatures:
    def test_meaning(self, plan: Plan) -> None:
        """Values that have no effect have the same features, and no clipping is beyond any bound."""
        _, fixed = space_of(plan)
        plain = {**fixed, "loss.kind": "ce", "loss.dice_weight": 0.0, "weights.method": "uniform"}
        changed = {**plain, "loss.gamma": 4.0, "loss.smooth": 0.2, "weights.clip_ratio": 10.0}
        features = describe_configs([plain, changed], 30)
        assert (features[0] == features[1]).all()
        assert features[0][FEATURE_NAMES.index("clip_ratio")] == NO_CLIP


class TestShipped:
    def test_knows_a_sensible_rate(self, plan: Plan) -> None:
        """A rate near the base rate is expected to do better than a hundredth and ten times it."""
        space, fixed = space_of(plan)
        prior = StudyPrior(load_shipped(), space, fixed, plan.spec.epochs)
        points = space.sample(np.random.default_rng(0), 100)
        expected = []
        for rate in (0.03, 0.5, 10.0):
            changed = [
                space.decode(points, row) | {"optimizer.lr_multiple": rate} for row in range(100)
            ]
            expected.append(prior(changed).mean())
        assert expected[1] > expected[0] + 0.5
        assert expected[1] > expected[2] + 0.5

    def test_standardized(self, plan: Plan) -> None:
        """Over random configurations the expectation has mean 0 and standard deviation 1."""
        space, fixed = space_of(plan)
        prior = StudyPrior(load_shipped(), space, fixed, plan.spec.epochs)
        points = space.sample(np.random.default_rng(9), 500)
        expected = prior([space.decode(points, row) for row in range(500)])
        assert abs(expected.mean()) < 0.2
        assert 0.8 < expected.std() < 1.2

    def test_the_rate_matters_most(self, plan: Plan) -> None:
        """Its length scale is the shortest: campaigns taught that little else matters as much."""
        space, fixed = space_of(plan)
        prior = StudyPrior(load_shipped(), space, fixed, plan.spec.epochs)
        assert prior.lengths_D is not None
        shortest = space.paths[int(np.argmin(prior.lengths_D))]
        assert shortest == "optimizer.lr_multiple"

    @pytest.mark.parametrize(
        ("changes", "has_prior"),
        [
            ({}, True),
            ({"sampler.knowledge": False}, False),
            ({"metric": {"name": "val_ce", "direction": "minimize"}}, False),
        ],
    )
    def test_where_it_applies(self, changes: dict[str, object], has_prior: bool) -> None:
        """It is used for the metrics that it is about, unless the study says otherwise."""
        plan = make_plan(load_study("combined", changes))
        assert (make_engine(plan).prior is not None) is has_prior

    def test_other_spaces(self) -> None:
        """A study without learning rate, Dice and weights learns nothing from it."""
        space = EncodedSpace({"depth": FloatRange(kind="float", low=0, high=1)})
        assert not applies_to(space, {"depth": 0.5})


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        """What is written is read again, and some lessons can be left out."""
        path = tmp_path / "knowledge.json"
        save_knowledge(load_shipped(), path)
        again = load_knowledge(path)
        names = [lesson.name for lesson in again.lessons]
        assert names == [lesson.name for lesson in load_shipped().lessons]
        assert [lesson.name for lesson in again.without(names[:1]).lessons] == names[1:]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no file of knowledge"),
            ("[1, 2]", "no file of knowledge"),
            (json.dumps({"version": 99, "features": []}), "another version of the program"),
        ],
    )
    def test_unusable(self, tmp_path: Path, text: str, message: str) -> None:
        """A file of another version, or another kind, is refused with its name."""
        path = tmp_path / "knowledge.json"
        path.write_text(text)
        with pytest.raises(RecordsError, match=message) as refused:
            load_knowledge(path)
        assert refused.value.where == str(path)


class TestEarlierStudies:
    SPACE = EncodedSpace(
        {
            "rate": FloatRange(kind="float", low=0.001, high=1, log=True),
            "kind": Choice(kind="choice", choices=("a", "b")),
        }
    )

    def earlier(self, sign: float) -> EarlierStudy:
        """A study that also searched something else, and of which one trial diverged."""
        rates = np.geomspace(0.001, 1, 12)
        params = [{"rate": float(rate), "kind": "a", "width": 3} for rate in rates]
        scores = [sign * -((math.log10(rate) + 2) ** 2) for rate in rates]
        return EarlierStudy("old", params, [*scores[:-1], math.nan], sign)

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_shared_dimensions(self, sign: float) -> None:
        """The best rate of an earlier study is expected to be good, in both directions."""
        prior = make_earlier_prior(self.earlier(sign), self.SPACE)
        low, good, high = prior([{"rate": rate, "kind": "b"} for rate in (0.001, 0.01, 1.0)])
        assert good > low
        assert good > high

    def test_joined(self) -> None:
        """Several sources count equally."""
        first = make_earlier_prior(self.earlier(1.0), self.SPACE)
        joined = JoinedPrior([first, first])
        at = [{"rate": 0.1, "kind": "a"}]
        assert joined(at) == pytest.approx(first(at))
