"""The product's own search, with the classes that `search run` uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from benchmarks.search.knowledge import fit_without
from benchmarks.search.methods.base import Run
from benchmarks.search.tasks import make_task
from benchmarks.search.tasks.base import Task
from search.sampling.freeze_thaw.curves import Floats, TrialCurve
from search.sampling.freeze_thaw.encoding import EncodedSpace
from search.sampling.freeze_thaw.engine import FreezeThaw
from search.sampling.freeze_thaw.prior import Prior, StudyPrior, applies_to
from search.sampling.freeze_thaw.steps import FreezeThawConfig, make_rungs
from spaces.parameters import Scalar

START_TRIALS = 10


class FreezeThawMethod:
    """One worker of the product: it trains to a rung, and continues, pauses or changes the trial.

    Args:
        task: to search.
        seed: of the study.
        pauses: whether trials pause.
        prior: what earlier studies teach.
    """

    def __init__(
        self, task: Task, seed: int, *, pauses: bool = True, prior: Prior | None = None
    ) -> None:
        rungs = make_rungs(task.epochs) if pauses else (task.epochs,)
        config = FreezeThawConfig(task.direction, rungs, START_TRIALS, seed)
        self.engine = FreezeThaw(EncodedSpace(task.space), config, prior)
        self._presets = list(task.presets)
        self._epochs = task.epochs
        self._sign = 1.0 if task.direction == "maximize" else -1.0
        self._curves: dict[int, TrialCurve] = {}
        self._running: int | None = None

    def next_run(self) -> Run:
        """Continue the trial that has reached its rung, or choose another one."""
        number = self._running
        if number is not None and self._curves[number].state == "running":
            chosen = self.engine.continue_trial(self._list(), number)
            if chosen.until_epoch is not None:
                return Run(number, dict(self._curves[number].params), chosen.until_epoch)
            self._curves[number] = replace(self._curves[number], state="paused")
        step = self.engine.choose_step(self._list())
        assert step is not None
        number = step.number
        if number is None:
            number = len(self._curves)
            params = self._presets[number] if number < len(self._presets) else None
            params = params or self.engine.propose(self._list(), number)
            self._curves[number] = TrialCurve(number, params, {}, "running", step.until_epoch)
        self._running = number
        return Run(number, dict(self._curves[number].params), step.until_epoch)

    def report_epoch(self, trial: int, epoch: int, metric: float) -> bool:
        """Keep the running best; nothing is stopped between two rungs."""
        curve = self._curves[trial]
        best = self._sign * max(
            [self._sign * metric, *(self._sign * score for score in curve.scores.values())]
        )
        state = "complete" if epoch == self._epochs else "running"
        self._curves[trial] = replace(curve, scores={**curve.scores, epoch: best}, state=state)
        return True

    def pick(self) -> int | None:
        """The trial that the product would export."""
        picked = self.engine.pick(self._list())
        if picked is not None:
            return picked
        seen = [curve for curve in self._curves.values() if curve.scores]
        if not seen:
            return None
        return max(seen, key=lambda curve: self._sign * curve.scores[curve.epoch]).number

    def _list(self) -> list[TrialCurve]:
        return [self._curves[number] for number in sorted(self._curves)]


def make_informed(task: Task, seed: int) -> FreezeThawMethod:
    """With what all campaigns but the task's own teach."""
    space = EncodedSpace(task.space, task.fixed)
    if not applies_to(space, task.fixed):
        return FreezeThawMethod(task, seed)
    return FreezeThawMethod(task, seed, prior=_make_prior(task.name))


@cache
def _make_prior(name: str) -> StudyPrior:
    task = make_task(name)
    space = EncodedSpace(task.space, task.fixed)
    return StudyPrior(fit_without(task.name), space, task.fixed, task.epochs)


class InvertedPrior:
    """A prior that expects the opposite of what it was taught.

    Args:
        right: what was taught.
    """

    def __init__(self, right: Prior) -> None:
        self._right = right
        self.lengths_D = right.lengths_D

    def __call__(self, configurations: Sequence[Mapping[str, Scalar]]) -> Floats:
        """The expected scores with the opposite sign."""
        return -self._right(configurations)


def make_misinformed(task: Task, seed: int) -> FreezeThawMethod:
    """With a prior that expects the best of the worst configurations."""
    space = EncodedSpace(task.space, task.fixed)
    if not applies_to(space, task.fixed):
        return FreezeThawMethod(task, seed)
    return FreezeThawMethod(task, seed, prior=InvertedPrior(_make_prior(task.name)))


def make_full_gp(task: Task, seed: int) -> FreezeThawMethod:
    """The same, with trials that never pause."""
    space = EncodedSpace(task.space, task.fixed)
    prior = _make_prior(task.name) if applies_to(space, task.fixed) else None
    return FreezeThawMethod(task, seed, pauses=False, prior=prior)
