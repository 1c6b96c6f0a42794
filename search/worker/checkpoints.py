"""Checkpoints of one trial: when they are written, which one is resumed, and which is kept."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.worker.stop import StopRequest, StopTraining
from search.worker.watchdog import Watchdog
from spaces.config import Direction
from spaces.errors import InputError
from spaces.records import EpochRecord
from storage.files.best_weights import BestWeights
from storage.files.checkpoints import StoredCheckpoint, StoredCheckpoints

logger = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 10.0
"""Seconds between two checkpoints, unless a state takes long to write: at most this much work is
lost with a worker."""

EVERY_VARIABLE = "SEARCH_CHECKPOINT_S"
"""Environment variable for another number of seconds."""

WRITING_SHARE = 0.05
"""At most this share of the time is spent on writing states."""


def checkpoint_every_s() -> float:
    """Seconds between two checkpoints: ten, or what the environment says.

    Raises:
        InputError: when the variable is not a positive number of seconds.
    """
    given = os.environ.get(EVERY_VARIABLE)
    try:
        wanted_s = CHECKPOINT_EVERY_S if given is None else float(given)
    except ValueError:
        wanted_s = math.nan
    if not 0 < wanted_s < math.inf:
        raise InputError(
            f"{EVERY_VARIABLE} is not a time between two checkpoints",
            where=f"the variable {EVERY_VARIABLE}",
            found=given or "",
            allowed="more than 0 seconds",
            next_step=f"write a number such as 60, or unset it for {CHECKPOINT_EVERY_S:g}",
        )
    return wanted_s


@dataclass(frozen=True)
class ResumePoint:
    """The state that an attempt resumes from.

    Attributes:
        state: the state, under this attempt's number; None when the attempt starts from the first
            epoch.
        missing: epochs before the state's own that only its note has; the attempt writes them.
    """

    state: StoredCheckpoint | None = None
    missing: tuple[EpochRecord, ...] = ()

    @property
    def epoch(self) -> int:
        """The last complete epoch of the state; 0 without one."""
        return 0 if self.state is None else int(self.state.note.get("epoch", 0))


def find_resume_point(
    states: StoredCheckpoints, attempt: int, owner: Mapping[str, Any], stored_epochs: int
) -> ResumePoint:
    """Adopt the newest state of this trial that fits the epochs in the store.

    Each state has a note that says which trial it belongs to. Files outlive a store that was
    deleted, and hosts that share a store may not share their files. So a state of another study's
    trial is not used, nor one that is newer than the epochs in the store and in its note. If a
    state is broken, the one before it is used.

    This is decided once per attempt. The state is adopted under this attempt's number, so that
    nothing that another attempt writes or removes later changes it.

    Args:
        states: the files.
        attempt: number of the attempt.
        owner: identifies the trial among all others.
        stored_epochs: how many of its epochs the store has.
    """
    for state in states.list_newest_first():
        missing = _missing_epochs(state.note, stored_epochs)
        if state.note.get("owner") != dict(owner) or missing is None:
            continue
        adopted = states.adopt_checkpoint(state, attempt)
        if adopted is not None:
            return ResumePoint(adopted, missing)
        logger.warning(
            "the checkpoint %s cannot be used, because it is damaged or was removed; "
            "continuing with the one before it",
            state.path,
        )
    return ResumePoint()


def _missing_epochs(note: Mapping[str, Any], stored_epochs: int) -> tuple[EpochRecord, ...] | None:
    """The epochs between the last stored one and the state's; None if the note lacks one."""
    records = {record["epoch"]: record for record in note.get("unheard", ())}
    missing = range(stored_epochs + 1, note.get("epoch", 0))
    if not records.keys() >= set(missing):
        return None
    return tuple(EpochRecord.from_dict(records[epoch]) for epoch in missing)


@dataclass
class TrialCheckpoints:
    """What an objective writes its training state to, and resumes it from.

    Args:
        states: the files.
        attempt: number of the attempt that writes them.
        owner: identifies the trial among all others.
        resume_point: what the attempt resumes from.
        stop: after a request to stop, the next state is written, however recent the last one is. An
            urgent request also ends the training there.
        watchdog: is notified of every step.
        is_promising: whether a trial that ends with this record may become the study's best, so
            that its last state is worth keeping.
        unconfirmed_records: the epochs that the store may not have. They go into the note, so that
            they are not lost with the worker.
        confirm_lease: called before a state is written; raises LeaseLostError when the attempt no
            longer owns the trial.
        at_least_s: seconds between two states, as configured.

    Attributes:
        epoch: the last complete epoch of the training.
        declined_epoch: the newest epoch, if no state was wanted for it; a trial that stopped there
            would lose it.
        every_s: seconds between two states; more than `at_least_s` where a state takes long to
            write.
        newest: the state that was last written or resumed.
    """

    states: StoredCheckpoints
    attempt: int
    owner: Mapping[str, Any]
    resume_point: ResumePoint
    stop: StopRequest
    watchdog: Watchdog
    is_promising: Callable[[EpochRecord], bool]
    unconfirmed_records: Callable[[], Sequence[EpochRecord]]
    confirm_lease: Callable[[], None]
    at_least_s: float = CHECKPOINT_EVERY_S
    pause_epoch: int | None = None
    declined_epoch: int | None = None
    last_written: float = field(default_factory=time.monotonic)
    epoch: int = field(init=False)
    every_s: float = field(init=False)
    newest: StoredCheckpoint | None = field(init=False)
    _fastest_s: float = math.inf
    _is_within_epoch: bool = False
    _is_leaving: bool = False

    def __post_init__(self) -> None:
        self.epoch = self.resume_point.epoch
        self.every_s = self.at_least_s
        self.newest = self.resume_point.state

    def latest(self) -> Path | None:
        """The state to resume from, if there is one: the same at every call."""
        state = self.resume_point.state
        return None if state is None else state.path

    def step(self) -> bool:
        """Whether a state is due within the epoch, because of its age or an urgent request to stop.

        Raises:
            StopTraining: when it was due for an urgent request before, and none was written.
        """
        self.watchdog.record_step()
        self._is_within_epoch = True
        if self.stop.is_urgent:
            if self._is_leaving:
                raise StopTraining
            self._is_leaving = True
            return True
        return self._is_old()

    def due(self, record: EpochRecord, *, last: bool) -> bool:
        """Whether a state is due after an epoch.

        It is when the last one is old enough, a stop was requested, the trial may pause here, or
        this is the end of a trial that may be the best.
        """
        self.watchdog.record_step()
        self.epoch = record.epoch
        self._is_within_epoch = False
        self._is_leaving = False
        is_due = self.stop.is_requested or self._is_old() or record.epoch == self.pause_epoch
        is_due = is_due or (last and self.is_promising(record))
        self.declined_epoch = None if is_due else record.epoch
        return is_due

    def _is_old(self) -> bool:
        return time.monotonic() - self.last_written >= self.every_s

    def write(self, save: Callable[[Path], None]) -> None:
        """Write a state. On a full disk the trial continues without it.

        Raises:
            LeaseLostError: when another attempt owns the trial; nothing was written.
            StopTraining: within an epoch, after an urgent request to stop.
        """
        began = time.monotonic()
        self.confirm_lease()
        try:
            self.newest = self.states.save_checkpoint(self.attempt, save, self._make_note())
        except OSError as problem:
            logger.warning("no checkpoint written to %s: %s", self.states.stem, problem)
        self.watchdog.record_step()
        self.last_written = began  # the state lacks what is trained while it is written
        # A write that a busy machine slowed down does not measure the disk.
        self._fastest_s = min(self._fastest_s, time.monotonic() - began)
        self.every_s = max(self.at_least_s, self._fastest_s / WRITING_SHARE)
        if self._is_leaving:
            raise StopTraining

    def _make_note(self) -> dict[str, Any]:
        return {
            "owner": dict(self.owner),
            "epoch": self.epoch,
            "within": self._is_within_epoch,
            "unheard": [record.as_dict() for record in self.unconfirmed_records()],
        }

    def has_state_of(self, epoch: int) -> bool:
        """Whether the newest state is the one at the end of an epoch."""
        state = self.newest
        return state is not None and not state.note.get("within") and state.note["epoch"] == epoch

    def keep_best(
        self, artifacts: BestWeights, trial: int, score: float, direction: Direction
    ) -> None:
        """Keep the state of the last epoch of a complete trial, if it is the best of the study."""
        state = self.newest
        if state is None or not self.has_state_of(self.epoch):
            return
        try:
            artifacts.save_if_better(trial, score, direction, state)
        except OSError as problem:
            logger.warning("the best weights were not kept in %s: %s", artifacts.folder, problem)

    def remove_states(self) -> None:
        """Remove the states of a trial that has ended."""
        try:
            self.states.remove_up_to(self.attempt)
        except OSError as problem:
            logger.warning("a checkpoint could not be removed: %s", problem)
