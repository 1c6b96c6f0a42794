"""Three epochs for all, and the best three to the end."""

from __future__ import annotations

from itertools import pairwise

from benchmarks.search.methods.base import ObservingMethod, Run
from benchmarks.search.tasks.base import Task

FIRST_EPOCHS, FINISHED = 3, 3

ROUND_ENDS = (10, 20, 50)
"""Full trainings at which a round ends, so that the method has a result wherever it is compared."""


class ThreeEpochs(ObservingMethod):
    """Rounds of new trials for 3 epochs, after which the best three not yet complete are finished.

    A round's budget is the difference of two `ROUND_ENDS`; after the last one, rounds of 30 follow.
    """

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__(task, seed)
        ends = (0, *ROUND_ENDS)
        self._budgets = [(late - early) * task.epochs for early, late in pairwise(ends)]
        self._new, self._to_finish = 0, 0

    def next_run(self) -> Run:
        """A new trial for three epochs while the round has any, else the best one to its end."""
        if not self._new and not self._to_finish:
            self._begin_round()
        if self._new:
            self._new -= 1
            return self.make_run(self.draw_trial(), min(FIRST_EPOCHS, self.epochs))
        self._to_finish -= 1
        paused = [trial for trial in self.observed.params if not self.observed.is_complete(trial)]
        return self.make_run(max(paused, key=self.observed.score), self.epochs)

    def _begin_round(self) -> None:
        budget = self._budgets.pop(0) if len(self._budgets) > 1 else self._budgets[0]
        finishing = FINISHED * (self.epochs - FIRST_EPOCHS)
        self._new = max(FINISHED, (budget - finishing) // FIRST_EPOCHS)
        self._to_finish = FINISHED
