"""A pruner that takes a trial's noise into account: it is held for as good as its noise allows, and pruned only if that is not enough."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search.pruners.robust_stats import NOISE_EPOCHS, noise


class LenientPruner(BasePruner):
    """Asks another pruner about the trial with all of its values better by a margin, in units of the trial's own noise.

    A trial with a high learning rate jumps up and down by as much as its peers lie apart, and blooms late; one with a low
    rate creeps along without noise, and where it stands is where it will stay. A pruner that compares bare values kills the
    first for an unlucky epoch. This one prunes the quiet early and gives the noisy time.

    Args:
        wrapped: any pruner; it is shown the trial's values better than they are, and those of all others as they are.
        margin: in standard deviations of one value around the trial's own course, see `search.pruners.robust_stats.noise`; 0: as wrapped.
    """

    def __init__(self, wrapped: BasePruner, margin: float) -> None:
        self.wrapped, self.margin = wrapped, margin

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end even at its best."""
        gain = self.margin * noise_of(trial.intermediate_values)
        sign = -1 if study.direction == StudyDirection.MINIMIZE else 1
        hopeful = copy.copy(trial)
        hopeful.intermediate_values = {
            step: value + sign * gain for step, value in trial.intermediate_values.items()
        }
        return self.wrapped.prune(study, hopeful)


def noise_of(reported: Mapping[int, float]) -> float:
    """The noise of a trial's last reports that are numbers; a NaN among them would make all of it NaN."""
    values = [value for _, value in sorted(reported.items()) if math.isfinite(value)]
    return noise(values[-NOISE_EPOCHS:])
