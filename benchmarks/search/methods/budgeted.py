"""For libraries that evaluate a configuration at a budget, and again at a larger one."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

from benchmarks.search.methods.base import ObservingMethod, Run
from benchmarks.search.tasks.base import Params, Task

MAX_REPEATS = 1_000
"""Evaluations in a row that need no epoch, after which the library counts as stuck."""


class Evaluation(NamedTuple):
    """What a library asks for: a configuration, trained up to an epoch."""

    params: Params
    until: int
    request: Any


class BudgetedMethod(ObservingMethod):
    """Turns evaluations into runs: a configuration that comes again resumes its trial.

    An evaluation whose epochs are trained already is answered from what was recorded.
    """

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__(task, seed)
        self._numbers: dict[str, int] = {}
        self._open: tuple[int, Evaluation] | None = None

    @abstractmethod
    def ask_library(self) -> Evaluation:
        """The next evaluation."""

    @abstractmethod
    def answer_library(self, evaluation: Evaluation, cost: float) -> None:
        """Report the cost of an evaluation, smaller is better."""

    def next_run(self) -> Run:
        """The next evaluation that needs epochs."""
        self._answer()
        for _ in range(MAX_REPEATS):
            evaluation = self.ask_library()
            key = repr(sorted(evaluation.params.items()))
            if key not in self._numbers:
                self._numbers[key] = self.observed.add_trial(evaluation.params)
            trial = self._numbers[key]
            self._open = (trial, evaluation)
            if len(self.observed.metrics[trial]) < evaluation.until:
                return self.make_run(trial, evaluation.until)
            self._answer()
        raise ValueError("the library asks only for what was evaluated before")

    def _answer(self) -> None:
        if self._open is not None:
            trial, evaluation = self._open
            self.answer_library(evaluation, -self.observed.score(trial, evaluation.until))
            self._open = None
