"""Successive halving with promotion: paused trials resume, so that no epoch is trained twice."""

from __future__ import annotations

from benchmarks.search.methods.base import ObservingMethod, Run
from benchmarks.search.tasks.base import Task

REDUCTION = 3
"""One in this many trials reaches the next rung (Li et al. 2018, Hyperband)."""

LEVELS = 3
"""Rungs below the last one; fewer where they would fall on the same epoch."""

WIDTH = REDUCTION**LEVELS
"""New trials of a bracket: 27, of which one reaches the last of four rungs."""


class SuccessiveHalving(ObservingMethod):
    """Brackets of 27 new trials, of which 9, 3 and 1 reach the next rungs.

    The rungs are a third apart: epochs 1, 3, 10 and 30 of 30.
    """

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__(task, seed)
        rungs = {max(1, round(task.epochs / REDUCTION**left)) for left in range(LEVELS + 1)}
        self.rungs = sorted(rungs)
        self._queue: list[int] = []
        self._ran: list[int] = []
        self._rung = 0

    def next_run(self) -> Run:
        """The next trial of the rung; after the last one the best third is promoted."""
        if not self._queue:
            self._queue = self._promote()
        trial = self._queue.pop(0)
        self._ran.append(trial)
        return self.make_run(trial, self.rungs[self._rung])

    def _promote(self) -> list[int]:
        last = self._rung == len(self.rungs) - 1
        if not self._ran or last:
            self._rung, self._ran = 0, []
            return [self.draw_trial() for _ in range(WIDTH)]
        ranked = sorted(self._ran, key=self.observed.score, reverse=True)
        self._rung, self._ran = self._rung + 1, []
        return ranked[: max(1, len(ranked) // REDUCTION)]
