"""What the reports on a study and on a trial consist of: nothing but data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.pruners.robust_stats import NOISE_EPOCHS, noise
from spaces.config import Direction, ScoreRule
from spaces.records import Diagnosis, EpochRecord
from storage.rows import Finding, TrialState


class Told:
    """A report that can be written as JSON."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """A mapping of JSON values. NaN and infinity, which JSON has no word for, are null."""
        told: dict[str, Any] = _jsonable(asdict(self))  # type: ignore[call-overload]
        return told


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """A complete trial in its place.

    Attributes:
        noise: how much the metric moves from epoch to epoch for no reason (see `metric_noise`); None for a short trial.
        best_epoch: the epoch with the best metric; the score is of that one by default.
        params: what was sampled for it, dimensions that do not exist under its choices left out.
        lr: the learning rate that a sampled multiple amounts to.
        test: the metric on the test split, which decided nothing.
        tied: whether noise alone could have put it behind the first row. The first row itself is not tied.
    """

    rank: int
    number: int
    score: float
    noise: float | None
    best_epoch: int
    epochs: int
    preset: str
    params: Mapping[str, Any]
    lr: float | None
    test: float | None
    tied: bool


@dataclass(frozen=True, slots=True)
class Kill:
    """A trial that did not complete, and why. `signal` is a divergence signal, a pruner, or `error`."""

    number: int | None
    state: TrialState
    signal: str
    epoch: int | None
    step: int | None
    reason: str
    cause: str
    remedy: str
    severity: float | None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who works on a trial.

    Attributes:
        trial: its number; None before it has one.
        epochs: that are done.
        silent_s: seconds since the worker's last sign of life.
        overdue: whether its lease is over, so that anybody may give the trial back.
        attempts: how many workers had it.
        lost: how many of them vanished.
    """

    worker: str
    host: str
    device: str
    trial: int | None
    epochs: int
    silent_s: float | None
    overdue: bool
    attempts: int
    lost: int


@dataclass(frozen=True, slots=True)
class StudyReport(Told):
    """How a study stands. `states` counts trials; `left` in it are those of the budget that have not begun.

    `lessons` are the regions of the space in which trials diverged, `workers` who works on what, `device_s` the device time
    of all trials, as charged, and `device_budget_s` what it may be in all, None for no limit. `weights` is the file of the
    trained state of the leaderboard's first trial, where it lies on this machine.
    """

    name: str
    about: str
    objective: str
    metric: str
    direction: Direction
    score_rule: ScoreRule
    epochs: int
    budget: int
    states: Mapping[str, int]
    leaderboard: tuple[LeaderboardRow, ...]
    kills: tuple[Kill, ...]
    causes: Mapping[str, int]
    lessons: tuple[str, ...]
    health: tuple[str, ...]
    workers: tuple[Holder, ...]
    device_s: float
    device_budget_s: float | None
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class TrialReport(Told):
    """Everything that is known of one trial. `attempts` counts the workers that had it.

    `trouble` is the likely cause of what is amiss with a complete trial that lacks a sign of health.
    """

    study: str
    number: int
    state: TrialState
    preset: str
    metric: str
    direction: Direction
    score_rule: ScoreRule
    epochs: int
    score: float | None
    config: Mapping[str, Any]
    params: Mapping[str, Any]
    lr: float | None
    used: Mapping[str, Any]
    reason: str
    error: str
    records: tuple[EpochRecord, ...]
    findings: tuple[Finding, ...]
    health: tuple[str, ...]
    class_names: tuple[str, ...]
    trouble: Diagnosis | None
    attempts: int
    worker: str
    host: str

    def as_dict(self) -> dict[str, Any]:
        """The same, with a name for either half of a finding."""
        told = Told.as_dict(self)
        return told | {
            "findings": [
                {"evidence": evidence, "diagnosis": diagnosis}
                for evidence, diagnosis in told["findings"]
            ]
        }


def metric_noise(records: Sequence[EpochRecord]) -> float | None:
    """How far one epoch's metric is from where it would be without noise; None for fewer than four epochs with a metric.

    The noise that the signals and the pruner judge by. It is a lower bound: another seed adds more.
    """
    values = [record.metric for record in records if math.isfinite(record.metric)]
    return noise(values[-NOISE_EPOCHS:]) if len(values) > 3 else None


def _jsonable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, (list, tuple)) else value
