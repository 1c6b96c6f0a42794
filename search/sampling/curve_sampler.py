"""The freeze-thaw search as a sampler of Optuna's: it proposes all values of a trial at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from search.sampling.freeze_thaw.curve_model import NUMERIC_ERRORS
from search.sampling.freeze_thaw.curves import TrialCurve
from search.sampling.freeze_thaw.engine import FreezeThaw
from spaces.parameters import Scalar

logger = logging.getLogger(__name__)


class CurveSampler(BaseSampler):
    """Proposes the configuration of one trial from the curves of all others.

    Args:
        engine: proposes.
        read_curves: reads the trials of the study.
        seed: of values for which the engine has no proposal.
    """

    def __init__(
        self, engine: FreezeThaw, read_curves: Callable[[], Sequence[TrialCurve]], seed: int
    ) -> None:
        self._engine = engine
        self._read_curves = read_curves
        self._random = RandomSampler(seed=seed)
        self._proposed: tuple[int, Mapping[str, Scalar]] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing is sampled through Optuna's joint space, which knows no conditions."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `infer_relative_search_space`."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the proposed value of a dimension.

        A preset can activate a dimension for which there is no proposal; it is sampled at random,
        and so is everything where the model fails.
        """
        if self._proposed is None or self._proposed[0] != trial.number:
            self._proposed = (trial.number, self._propose(trial.number))
        proposed = self._proposed[1]
        if param_name in proposed:
            value = proposed[param_name]
            return value.item() if isinstance(value, np.generic) else value
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _propose(self, number: int) -> Mapping[str, Scalar]:
        curves = self._read_curves()
        try:
            return self._engine.propose(curves, number)
        except NUMERIC_ERRORS:
            logger.exception(
                "the model of the curves failed; trial %d is sampled at random", number
            )
            return {}
