"""A pruner that gives a trial a margin for its own noise."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search.pruners.robust_stats import NOISE_EPOCHS, estimate_noise


class LenientPruner(BasePruner):
    """Wraps a pruner and improves the trial's values by a multiple of the trial's own noise.

    A trial with a high learning rate fluctuates by as much as its peers differ, and improves late;
    one with a low rate changes slowly and without noise, and stays where it is. A pruner that
    compares plain values stops the first for an unlucky epoch. This one stops the quiet trial early
    and gives the noisy one time.

    Args:
        wrapped: any pruner; it gets the improved values of this trial, and those of the others as
            they are.
        margin: in standard deviations of the trial's noise (`robust_stats.estimate_noise`); 0: the
            decision of the wrapped pruner.
    """

    def __init__(self, wrapped: BasePruner, margin: float) -> None:
        self.wrapped = wrapped
        self.margin = margin

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the wrapped pruner would stop the trial even with its values improved."""
        gain = self.margin * noise_of_reports(trial.intermediate_values)
        sign = -1 if study.direction == StudyDirection.MINIMIZE else 1
        improved = copy.copy(trial)
        improved.intermediate_values = {
            step: value + sign * gain for step, value in trial.intermediate_values.items()
        }
        return self.wrapped.prune(study, improved)


def noise_of_reports(reported: Mapping[int, float]) -> float:
    """Estimate the noise of a trial's latest finite reports.

    Args:
        reported: metrics by step.
    """
    values = [value for _, value in sorted(reported.items()) if math.isfinite(value)]
    return estimate_noise(values[-NOISE_EPOCHS:])
