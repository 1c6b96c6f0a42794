"""Runs a method on a task until its budget of epochs is spent, and records what it would pick."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.search.methods import Method, Run, make_method
from benchmarks.search.tasks.base import Params, Task
from search.planning.random_seeds import derive_seed

CLOSE = 5.0
"""Regret within which a pick counts as close to the best: percent, or its share of the median's."""


@dataclass(frozen=True)
class Trace:
    """One run of a method.

    Attributes:
        picked: regret of the pick after each full training, in the task's unit.
        tried: likewise of the best configuration that was tried.
        settled: epochs after which the pick stays within `CLOSE` of the best; None: never.
        suggestion_ms: CPU time per decision, milliseconds.
        trials: that were begun.
        complete: that reached their last epoch.
        resumed: runs that continued a paused trial.
    """

    task: str
    method: str
    seed: int
    picked: list[float]
    tried: list[float]
    settled: int | None
    suggestion_ms: float
    trials: int
    complete: int
    resumed: int

    def as_row(self) -> dict[str, Any]:
        """The trace as JSON, with rounded numbers."""
        row = asdict(self)
        for name in ("picked", "tried"):
            row[name] = [round(value, 3) for value in row[name]]
        row["suggestion_ms"] = round(self.suggestion_ms, 2)
        return row


@dataclass
class Session:
    """A method at work on a task.

    Args:
        task: answers with curves.
        method: decides.
        seed: of the run; the curve of a trial has the noise of (seed, trial), for every method.
        budget: epochs.
    """

    task: Task
    method: Method
    seed: int
    budget: int
    params: dict[int, Params] = field(default_factory=dict)
    curves: dict[int, list[float]] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    regrets: dict[int, float] = field(default_factory=dict)
    spent: int = 0
    resumed: int = 0
    decisions: int = 0
    cpu_s: float = 0.0
    picked: list[float] = field(default_factory=list)
    tried: list[float] = field(default_factory=list)
    picks: list[tuple[int, float]] = field(default_factory=list)

    def run(self) -> None:
        """Spend the whole budget, and not an epoch more."""
        while self.spent < self.budget:
            self._train(self._decide())

    def _decide(self) -> Run:
        started = time.process_time()
        run = self.method.next_run()
        self.cpu_s += time.process_time() - started
        self.decisions += 1
        self._check(run)
        return run

    def _check(self, run: Run) -> None:
        done = self.done.get(run.trial, 0)
        if not done < run.until <= self.task.epochs:
            raise ValueError(f"trial {run.trial} cannot run from {done} to {run.until} epochs")
        if done:
            self.resumed += 1
            if self.params[run.trial] != run.params:
                raise ValueError(f"trial {run.trial} resumes with other params")
            return
        self.params[run.trial] = dict(run.params)
        curve_seed = derive_seed(self.seed, run.trial, "curve")
        self.curves[run.trial] = self.task.curve(run.params, curve_seed)
        self.regrets[run.trial] = self.task.regret(run.params)

    def _train(self, run: Run) -> None:
        for epoch in range(self.done.get(run.trial, 0) + 1, run.until + 1):
            keep = self.method.report_epoch(run.trial, epoch, self.curves[run.trial][epoch - 1])
            self.done[run.trial] = epoch
            self.spent += 1
            if self.spent % self.task.epochs == 0:
                self._measure()
            if self.spent == self.budget or not keep:
                break
        self._record_pick()

    def _record_pick(self) -> float:
        pick = self.method.pick()
        if pick is None:
            raise ValueError("the method picks no trial, although it has seen an epoch")
        regret = self.regrets[pick]
        self.picks.append((self.spent, regret))
        return regret

    def _measure(self) -> None:
        self.picked.append(self._record_pick())
        self.tried.append(min(self.regrets[trial] for trial in self.done))

    def settled(self) -> int | None:
        """Epochs after which every pick is within `CLOSE` of the best; None when the last is not."""
        since: int | None = None
        for spent, regret in self.picks:
            if regret > CLOSE:
                since = None
            elif since is None:
                since = spent
        return since

    def trace(self, method_name: str) -> Trace:
        """What is stored of the run."""
        return Trace(
            task=self.task.name,
            method=method_name,
            seed=self.seed,
            picked=self.picked,
            tried=self.tried,
            settled=self.settled(),
            suggestion_ms=1000 * self.cpu_s / self.decisions,
            trials=len(self.done),
            complete=sum(done >= self.task.epochs for done in self.done.values()),
            resumed=self.resumed,
        )


def run_method(task: Task, method_name: str, seed: int, trainings: int) -> Trace:
    """Run a method for a budget of full trainings.

    Args:
        task: to search.
        method_name: of `methods.METHODS`.
        seed: of the method and of the noise; methods with the same seed are paired.
        trainings: budget, in full trainings.

    Raises:
        ValueError: when the method asks for an impossible run.
    """
    session = Session(task, make_method(method_name, task, seed), seed, trainings * task.epochs)
    session.run()
    return session.trace(method_name)
