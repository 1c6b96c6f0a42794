"""What the store hands out: frozen rows. Times are seconds since 1970 (UTC) on the database's clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spaces.records import Diagnosis, Evidence

OpenState = Literal["reserved", "running", "paused"]
FinalState = Literal["complete", "pruned", "diverged", "failed"]
TrialState = OpenState | FinalState

HELD_STATES: tuple[TrialState, ...] = ("reserved", "running")
OPEN_STATES: tuple[TrialState, ...] = (*HELD_STATES, "paused")
FINAL_STATES: tuple[TrialState, ...] = ("complete", "pruned", "diverged", "failed")

Finding = tuple[Evidence, Diagnosis | None]
"""A signal that fired, and the diagnosis made of it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one attempt to write to one trial, until another attempt takes it over.

    `config` is None until the trial is bound; `number` and `optuna_trial_id` are until then only where the store does not
    know Optuna's tables. `resume` says that an earlier attempt bound it, so that its epochs and its checkpoint, if any,
    are to be carried on. `device_left_s` is how many seconds of device time it may take when there will be no more, `halvings`
    how often its batch was halved for lack of memory.
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


@dataclass(frozen=True, slots=True)
class Death:
    """What is known of a worker that died: how, such as `was ended by SIGKILL`, and the end of its log."""

    worker: str
    how: str = ""
    last_words: str = ""


@dataclass(frozen=True, slots=True)
class Reaped:
    """A trial whose worker vanished, as it did with `lost` workers in all; `ended` when it was failed for that."""

    number: int | None
    worker: str
    lost: int
    ended: bool


@dataclass(frozen=True, slots=True)
class DeviceTime:
    """Seconds of device time that the trials of a study are charged with, and what they may take in all, if that is bounded."""

    charged_s: float
    budget_s: float | None

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.budget_s is not None and self.charged_s > self.budget_s - 0.001


@dataclass(frozen=True, slots=True)
class SampledParam:
    """One hyperparameter of a trial as Optuna keeps it: its value as a number, and where that came from as JSON."""

    name: str
    value: float
    distribution_json: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """What Optuna is to be told of a trial that was sampled; attributes are JSON."""

    params: Sequence[SampledParam] = ()
    system_attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended, and why.

    Attributes:
        score: None where the trial has none.
        reason: why it did not complete, for people.
        signal: what ended it: a divergence signal, the kind of a pruner, or the type of an error; empty for
            a complete trial.
        evidence: of a divergence.
        diagnosis: made from the evidence.
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
    """What Optuna is to be told of the end of a trial.

    Attributes:
        value: of a complete trial; a pruned one ends with its last report, and a failed one with none.
        constraints: by name; a trial with one above 0 is infeasible.
    """

    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    value: float | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    user_attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A configuration that is to be tried before anything is sampled."""

    params: Mapping[str, Any]
    user_attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """A study as it was registered."""

    id: int
    optuna_study_id: int
    name: str
    definition: Mapping[str, Any]
    created_at: float


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A trial as it stands.

    `config` is as sampled, `used` as read back by the objective, the text of an error in full, `device` where it ran last,
    `signal` what ended it (see `Outcome`), `device_s` the device time of all its attempts, as charged, and `halvings` how often its batch was halved.
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


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of a live display.

    Attributes:
        epochs: that are done.
        lease_left_s: negative once the worker has gone silent.
        lost: how many workers vanished while they worked on it.
        silent_s: seconds since the worker's last sign of life; None for a trial that nobody works on.
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
