"""What a search method is, and what most of them have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from benchmarks.search.configurations import draw_params
from benchmarks.search.tasks.base import Params, Task
from spaces.config import Direction


class Run(NamedTuple):
    """Train a trial, new or paused, up to and including the epoch `until`."""

    trial: int
    params: Params
    until: int


class Method(Protocol):
    """Decides what runs next; between two calls of `next_run` exactly one run takes place."""

    def next_run(self) -> Run:
        """The next run; a new trial has a number that was not used before."""
        ...

    def report_epoch(self, trial: int, epoch: int, metric: float) -> bool:
        """Record a metric of the run; False: stop the trial now."""
        ...

    def pick(self) -> int | None:
        """The trial whose configuration would be exported now; None before the first epoch."""
        ...


@dataclass
class Observed:
    """What a method has seen: configurations and running best metrics.

    Attributes:
        epochs: of a complete trial.
        direction: of the metric.
        params: trial → its configuration.
        metrics: trial → its metric after each epoch.
    """

    epochs: int
    direction: Direction
    params: dict[int, Params] = field(default_factory=dict)
    metrics: dict[int, list[float]] = field(default_factory=dict)

    def add_trial(self, params: Params) -> int:
        """Number a new trial."""
        trial = len(self.params)
        self.params[trial], self.metrics[trial] = params, []
        return trial

    def record(self, trial: int, metric: float) -> None:
        """Append the metric of the trial's next epoch."""
        self.metrics[trial].append(metric)

    def score(self, trial: int, until: int | None = None) -> float:
        """The best metric so far or up to an epoch, larger is better; −∞ without a number."""
        sign = 1 if self.direction == "maximize" else -1
        seen = [sign * value for value in self.metrics[trial][:until] if math.isfinite(value)]
        return max(seen, default=-math.inf)

    def is_complete(self, trial: int) -> bool:
        """Whether the trial reached its last epoch."""
        return len(self.metrics[trial]) >= self.epochs

    def best_trial(self) -> int | None:
        """The complete trial with the best score; without a complete one, the best of all."""
        seen = [trial for trial, metrics in self.metrics.items() if metrics]
        complete = [trial for trial in seen if self.is_complete(trial)]
        return max(complete or seen, key=self.score, default=None)


class ObservingMethod:
    """Records what it is given, and picks by the best observed score.

    Args:
        task: gives space, epochs, direction and presets; its scores are not looked at.
        seed: of everything that is drawn.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.space, self.epochs = task.space, task.epochs
        self.observed = Observed(task.epochs, task.direction)
        self.generator = np.random.default_rng(seed)
        self._presets: list[Params] = [dict(params) for params in task.presets]

    def draw_trial(self) -> int:
        """Number a new trial: the next preset, and a random configuration after the last one."""
        params = self._presets.pop(0) if self._presets else draw_params(self.space, self.generator)
        return self.observed.add_trial(params)

    def make_run(self, trial: int, until: int) -> Run:
        """A run of a numbered trial."""
        return Run(trial, self.observed.params[trial], until)

    def report_epoch(self, trial: int, epoch: int, metric: float) -> bool:
        """Record the metric; never stops a trial."""
        self.observed.record(trial, metric)
        return True

    def pick(self) -> int | None:
        """The best observed score among complete trials, else the best seen."""
        return self.observed.best_trial()
