"""Rows that the store returns. Times are seconds since 1970 (UTC) on the database's clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spaces.rate_probe import RateProbe
from spaces.records import Diagnosis, Evidence

OpenState = Literal["reserved", "running", "paused"]
FinalState = Literal["complete", "pruned", "diverged", "failed"]
TrialState = OpenState | FinalState

ACTIVE_STATES: tuple[TrialState, ...] = ("reserved", "running")
"""States in which a worker owns the trial, until its lease expires."""

OPEN_STATES: tuple[TrialState, ...] = (*ACTIVE_STATES, "paused")
FINAL_STATES: tuple[TrialState, ...] = ("complete", "pruned", "diverged", "failed")

Finding = tuple[Evidence, Diagnosis | None]
"""A signal that fired, or the pruner that ended the trial, and the diagnosis.

A warning has none.
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one attempt to write to one trial, until another attempt claims it.

    Attributes:
        resume: whether an earlier attempt bound the trial, so that this one continues from its
            epochs and its checkpoint.
        number: None until the trial is bound, if the store does not write Optuna's tables.
        optuna_trial_id: likewise.
        config: None until the trial is bound.
        device_left_s: seconds that the trial may still run; finite only when the study's device
            time ends with them.
        halvings: how often its batch was halved after it ran out of memory.
        until_epoch: the epoch after which the trial pauses for a promotion; None: never.
    """

    trial_id: int
    study_id: int
    attempt: int
    resume: bool = False
    number: int | None = None
    optuna_trial_id: int | None = None
    config: Mapping[str, Any] | None = None
    preset: str | None = None
    device_left_s: float = field(default=math.inf, compare=False)
    halvings: int = 0
    until_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class EpochBudget:
    """How many epochs the trials of a study may be trained for in all.

    Attributes:
        epochs: number of epochs.
        epochs_per_trial: epochs of a complete trial.
    """

    epochs: int
    epochs_per_trial: int


@dataclass(frozen=True, slots=True)
class NextStep:
    """What a search trains next.

    Attributes:
        number: of the paused trial that is promoted; None: a new trial.
        until_epoch: the epoch after which it pauses again; None: it is trained to its end.
    """

    number: int | None = None
    until_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that died.

    Attributes:
        how: how it died, such as `was ended by SIGKILL`.
        last_words: the end of its log.
    """

    worker: str
    how: str = ""
    last_words: str = ""


@dataclass(frozen=True, slots=True)
class Reaped:
    """A trial that was released or failed because its worker died or stopped responding.

    Attributes:
        lost: how many of its workers that happened to.
        ended: whether the trial was failed for that.
    """

    number: int | None
    worker: str
    lost: int
    ended: bool


@dataclass(frozen=True, slots=True)
class DeviceTime:
    """Seconds of device time charged for the trials of a study, and their limit, if any."""

    charged_s: float
    budget_s: float | None

    @property
    def spent(self) -> bool:
        """Whether the budget is exhausted."""
        return self.budget_s is not None and self.charged_s > self.budget_s - 0.001


@dataclass(frozen=True, slots=True)
class SampledParam:
    """One hyperparameter of a trial as Optuna stores it: a number, and its distribution as JSON."""

    name: str
    value: float
    distribution_json: str


@dataclass(frozen=True, slots=True)
class SampledTrial:
    """What Optuna's tables store of a trial that was sampled; attributes are JSON."""

    params: Sequence[SampledParam] = ()
    system_attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended, and why.

    Attributes:
        score: None where the trial has none.
        reason: why it did not complete, for people.
        signal: what ended it: a divergence signal, the kind of a pruner, or the type of an error;
            empty for a complete trial.
        evidence: of the signal or the peer pruner that ended the trial.
        diagnosis: made from the evidence and the trial's records.
        error: text of an error in full.
    """

    state: FinalState
    score: float | None = None
    reason: str = ""
    signal: str = ""
    evidence: Evidence | None = None
    diagnosis: Diagnosis | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class OptunaEnd:
    """What Optuna's tables store of the end of a trial.

    Attributes:
        value: of a complete trial; a pruned one has its last report, and a failed one has none.
        constraints: by name; a trial with one above 0 is infeasible.
    """

    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    value: float | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    user_attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EnqueuedTrial:
    """A configuration that is tried before any is sampled."""

    params: Mapping[str, Any]
    user_attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TriedRemedy:
    """A trial that tries another trial's remedy.

    Attributes:
        number: of the trial.
        of: number of the other trial.
        choice: which of its remedies, counted from 1; None where version 0.1.0 enqueued it.
        title: of the remedy; empty likewise.
        cause: of the diagnosis that gave the remedy; empty likewise.
        by_sampler: whether the sampler chose it.
    """

    number: int
    of: int
    choice: int | None = None
    title: str = ""
    cause: str = ""
    by_sampler: bool = False

    def is_same_remedy(self, other: TriedRemedy) -> bool:
        """Whether both try the same remedy; one that version 0.1.0 enqueued may be any."""
        is_unknown = self.choice is None or other.choice is None
        return self.of == other.of and (is_unknown or self.choice == other.choice)


@dataclass(frozen=True, slots=True)
class ConfirmingTrial:
    """A trial that trains a configuration of another study again.

    Attributes:
        number: of the trial.
        of: number of the trial of the other study.
        seed_number: which of the seeds, counted from 1; it is the same seed for all configurations.
        is_failed: whether it ended with an error.
    """

    number: int
    of: int
    seed_number: int
    is_failed: bool = False


@dataclass(frozen=True, slots=True)
class SuggestedRemedies:
    """Remedies that a sampler suggests in place of a sampled configuration.

    Attributes:
        trials: that try them, the first choice first; each has the user attribute `remedy`.
        most: how many trials of a study may come from its sampler in this way.
    """

    trials: Sequence[EnqueuedTrial]
    most: int


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """A study as it was registered.

    Attributes:
        rate_probe: what the probe of its learning rate found; None before, and without a probe.
    """

    id: int
    optuna_study_id: int
    name: str
    definition: Mapping[str, Any]
    created_at: float
    rate_probe: RateProbe | None = None


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A trial as it is in the store.

    Attributes:
        config: as sampled.
        used: values as the objective read them back.
        error: the complete text of an error.
        signal: what ended it, see `Outcome`.
        device: where it ran last.
        device_s: seconds of device time charged for all its attempts.
        halvings: how often its batch was halved after it ran out of memory.
        until_epoch: the epoch after which it pauses; None: it does not.
        awaits_promotion: 1 while it is paused there, so that only the search resumes it.
    """

    id: int
    study_id: int
    number: int | None
    optuna_trial_id: int | None
    state: TrialState
    attempt: int
    worker: str
    host: str
    pid: int
    lease_until: float | None
    config: Mapping[str, Any] | None
    used: Mapping[str, Any] | None
    preset: str | None
    score: float | None
    reason: str
    error: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    device: str | None
    device_s: float
    halvings: int
    signal: str | None
    until_epoch: int | None = None
    awaits_promotion: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of a live display.

    Attributes:
        epochs: completed so far.
        lease_left_s: negative once the worker has stopped responding.
        lost: how many of its workers died or stopped responding.
        silent_s: seconds since its worker last renewed the lease; None if no worker owns it.
        awaits_promotion: 1 while it is paused until the search promotes it.
    """

    trial_id: int
    number: int | None
    state: TrialState
    attempt: int
    epochs: int
    metric: float | None
    score: float | None
    worker: str
    preset: str | None
    lease_left_s: float | None
    lost: int = 0
    host: str = ""
    device: str | None = None
    silent_s: float | None = None
    awaits_promotion: int = 0
