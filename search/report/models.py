"""Data classes of the reports on a study and on a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from search.pruners.robust_stats import NOISE_EPOCHS, estimate_noise
from search.report.json_report import JsonReport
from search.report.search_models import Confirmation, PausedTrial, SearchOutlook
from spaces.config import Direction, ScoreRule
from spaces.rate_probe import RateProbe
from spaces.records import CLEAR_CONFIDENCE, Diagnosis, EpochRecord
from storage.rows import Finding, TrialState


class ClassScore(NamedTuple):
    """The metric of one class."""

    name: str
    metric: float


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """A complete trial on the leaderboard.

    Attributes:
        rank: counted from 1.
        noise: noise of the metric from epoch to epoch (see `metric_noise`); None for a short trial.
        best_epoch: the epoch with the best metric, whose metric is the score by default.
        params: the sampled values, without dimensions that its choices exclude.
        lr: the learning rate that a sampled multiple amounts to.
        test: the metric on the test split, which nothing was chosen by.
        tied: whether noise alone may explain the distance to the first row; never of the first row.
        worst_class: of the best epoch; None where there is one class at most.
        never_found: the classes of which no epoch found anything.
        lost: the classes that were learned, and of which the last epoch finds nothing.
        remedied: the values that a remedy gave it and that the study does not search, by path.
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
    worst_class: ClassScore | None = None
    never_found: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    remedied: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kill:
    """A trial that ended without being complete, and why.

    Attributes:
        signal: a divergence signal, a pruner, or `error`.
        reason: the name of what ended the trial, and what it found.
        statement: what the signal or the pruner found; empty where the store has no evidence.
        cause: of the diagnosis if it is clear.
        remedy: the first remedy of a clear diagnosis, as text; empty where there is none.
        confidence: of the diagnosis; None where there is no diagnosis.
    """

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
    statement: str = ""

    @property
    def is_diagnosed(self) -> bool:
        """Whether `cause` is that of a clear diagnosis."""
        return self.confidence is not None and self.confidence >= CLEAR_CONFIDENCE


@dataclass(frozen=True, slots=True)
class TrialWarning:
    """What was found in a trial that nevertheless became complete.

    Attributes:
        spared: why the signal did not end the trial; empty where that is not stored.
        cause: of the diagnosis if it is clear, else empty.
    """

    number: int | None
    signal: str
    epoch: int
    statement: str
    spared: str
    cause: str


@dataclass(frozen=True, slots=True)
class LimitedTrial:
    """A complete trial whose score is clearly worse than those of its peers, and what limited it.

    Attributes:
        usual: median score of the complete trials.
        cause: of the diagnosis if it is clear, else that there is none.
        confidence: of the diagnosis.
        remedy: the first remedy of a clear diagnosis, as text; empty where there is none.
    """

    number: int | None
    score: float
    usual: float
    cause: str
    confidence: float
    remedy: str


@dataclass(frozen=True, slots=True)
class RemedyTrial:
    """A trial that tries another trial's remedy, and what the remedy did.

    Attributes:
        of: number of the trial whose remedy it is.
        title: of the remedy; empty where the store does not have it.
        cause: of the diagnosis that gave the remedy; empty likewise.
        before: score of the other trial.
        after: score of this trial.
        epochs: over how many epochs the two are compared; None for each trial's own epochs.
        verdict: whether the score changed beyond noise; None while it is unknown, and where both
            trials are too short to show their noise.
        by_sampler: whether the sampler chose it.
    """

    number: int
    of: int
    title: str
    cause: str
    before: float | None
    after: float | None
    epochs: int | None
    verdict: Literal["helped", "worse", "same"] | None
    by_sampler: bool = False

    @property
    def change(self) -> float | None:
        """How much higher the score is than that of the other trial."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class RemedyRecord:
    """What a remedy did wherever it was tried.

    Attributes:
        tried: number of trials whose outcome is known.
        median_change: of the score; None where no trial has two scores to compare.
    """

    title: str
    tried: int
    helped: int
    worse: int
    median_change: float | None


@dataclass(frozen=True, slots=True)
class RemedyOffer:
    """A remedy of a trial, and how the study can try it.

    Attributes:
        choice: which of the trial's remedies, counted from 1.
        description: title and changes as text.
        in_space: whether the study can try it.
        command: that tries it; empty where the study cannot.
        widenings: changes of the space after which it would contain the remedy.
        options: the same as options of `search run`, for a new study.
        new_study: command that starts a study which contains the remedy; empty where this study
            can try it, and where no change of the space makes it possible.
        tried: the trials that tried it.
    """

    choice: int
    title: str
    description: str
    patch: Mapping[str, Any]
    in_space: bool
    command: str
    widenings: tuple[str, ...]
    options: tuple[str, ...]
    tried: tuple[int, ...]
    new_study: str = ""


@dataclass(frozen=True, slots=True)
class ActiveWorker:
    """A worker and the trial that it is working on.

    Attributes:
        trial: number of the trial; None before it has one.
        epochs: number of epochs that are done.
        silent_s: seconds since the worker last renewed its lease.
        overdue: whether the lease has expired, so that any worker may release the trial.
        attempts: number of workers that have claimed the trial.
        lost: number of those that stopped responding.
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
class StudyReport(JsonReport):
    """The state of a study.

    Attributes:
        states: number of trials in each state; `left` are those of the budget that have not begun.
        lessons: the regions of the search space in which trials diverged or ended early, as text.
        health: the signs of health by which complete trials differ, and classes never found.
        warnings: what was found in complete trials without ending them.
        limited: the complete trials that are clearly worse than their peers, at most 20, the worst
            first.
        remedies: what each remedy did wherever it was tried, the most often tried first.
        remedy_trials: the trials that tried one.
        workers: the workers that are working on a trial.
        device_s: device time of all trials, as charged, in seconds.
        device_budget_s: limit of the device time, in seconds; None for no limit.
        weights: file with the weights of the leaderboard's first trial, where this machine has it.
        trained_epochs: epochs of all trials together.
        epochs_budget: limit on them; None for no limit.
        paused: trials that await a promotion, the most promising first.
        search: what the search expects; None where the sampler has no model of the curves.
        rate_probe: what the probe of the learning rate found; None without one.
        confirmed: what `search confirm` found; None where it was not run.
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
    workers: tuple[ActiveWorker, ...]
    device_s: float
    device_budget_s: float | None
    weights: str | None = None
    warnings: tuple[TrialWarning, ...] = ()
    limited: tuple[LimitedTrial, ...] = ()
    remedies: tuple[RemedyRecord, ...] = ()
    remedy_trials: tuple[RemedyTrial, ...] = ()
    trained_epochs: int = 0
    epochs_budget: int | None = None
    paused: tuple[PausedTrial, ...] = ()
    search: SearchOutlook | None = None
    rate_probe: RateProbe | None = None
    confirmed: Confirmation | None = None


@dataclass(frozen=True, slots=True)
class TrialReport(JsonReport):
    """Everything that the store has of one trial.

    Attributes:
        findings: evidence and diagnosis of every signal that fired.
        trouble: diagnosis of what limited a complete trial that lacks a sign of health, or that is
            clearly worse than its peers.
        diagnosis: the one of these that the remedies are from.
        remedies: what to try, in order.
        remedy_of: what this trial's remedy did, if it tries one of another trial.
        attempts: number of workers that have claimed the trial.
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
    diagnosis: Diagnosis | None = None
    remedies: tuple[RemedyOffer, ...] = ()
    remedy_of: RemedyTrial | None = None

    def as_dict(self) -> dict[str, Any]:
        """A mapping of JSON values, in which a finding has the keys `evidence` and `diagnosis`."""
        payload = JsonReport.as_dict(self)
        payload["findings"] = [
            {"evidence": evidence, "diagnosis": diagnosis}
            for evidence, diagnosis in payload["findings"]
        ]
        return payload


def metric_noise(records: Sequence[EpochRecord]) -> float | None:
    """Estimate the noise of the metric from epoch to epoch; None for fewer than four metrics.

    It is the noise that the signals and the pruner use, and a lower bound: other seeds add more.
    """
    values = [record.metric for record in records if math.isfinite(record.metric)]
    return estimate_noise(values[-NOISE_EPOCHS:]) if len(values) > 3 else None
