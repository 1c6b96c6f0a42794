"""The checkpoints of one trial: when one is written, which one it goes on from, and what is kept of it in the end."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.worker.stop import StopRequest, StopTraining
from search.worker.watchdog import Progress
from spaces.config import Direction
from spaces.errors import InputError
from spaces.records import EpochRecord
from storage.files.best_weights import BestWeights
from storage.files.checkpoints import StoredCheckpoint, StoredCheckpoints

CHECKPOINT_EVERY_S = 10.0
"""At most so much work is lost with a worker, unless a state takes long to write."""

EVERY_VARIABLE = "SEARCH_CHECKPOINT_S"
"""Names another number of seconds."""

WRITING_SHARE = 0.05
"""At most so much of the time goes into writing states."""


def checkpoint_every_s() -> float:
    """Seconds between two states: ten, or what the environment says.

    Raises:
        InputError: when that is no number of seconds.
    """
    given = os.environ.get(EVERY_VARIABLE)
    try:
        wanted_s = CHECKPOINT_EVERY_S if given is None else float(given)
    except ValueError:
        wanted_s = math.nan
    if not 0 < wanted_s < math.inf:
        raise InputError(
            f"{EVERY_VARIABLE} is no time between two checkpoints",
            where=f"the variable {EVERY_VARIABLE}",
            found=given or "",
            allowed="more than 0 seconds",
            next_step=f"write a number such as 60, or take it out for {CHECKPOINT_EVERY_S:g}",
        )
    return wanted_s


@dataclass
class TrialCheckpoints:
    """What a trainer is handed to keep its state in.

    Each state has a note that says which trial it belongs to. Files outlive a store that was deleted, and hosts that share
    a store may not share their files: a state of another study's trial, or one that is newer than the epochs in the store
    and in its note, is not resumed from. Nor is one that is broken: then the one before it counts.

    Which state the attempt resumes from is decided once, when this object is made: what another attempt writes later
    changes nothing, and neither does what it removes, for the state is adopted under this attempt's number.

    Args:
        states: the files.
        attempt: whose states these are, of those of one trial.
        owner: what tells this trial from every other one.
        stored_epochs: how many of its epochs the store has.
        resume: whether to look for a state at all.
        confirm: called before a state is put in place; raises LeaseLostError when the attempt has lost the trial.
        stop: on a request to stop the next state is written, however young the last one is; one that cannot wait for the
            end of the epoch also ends the training there.
        progress: told of every step.
        promising: whether the record of a last epoch may make the trial the study's best; then its state is worth keeping.
        unheard: the epochs that wait for the store to answer. They go into the note, so that a worker that dies before it does
            takes none of them with it.
        epoch: the last whole one of the state.
        declined: the epoch whose state was not asked for, being the newest; a trial that stops there would lose it.
        at_least_s: seconds between two states, as asked for.
        every_s: the same, more where a state takes long to write.
        newest: the last state that was written or resumed from.
        resumed_from: the state that the attempt began with; None when it began with none.
        carried: epochs before the state's own that only its note has; the attempt that resumes from it writes them.
    """

    states: StoredCheckpoints
    attempt: int
    owner: Mapping[str, Any]
    stored_epochs: int
    stop: StopRequest
    progress: Progress = field(default_factory=Progress)
    promising: Callable[[EpochRecord], bool] = lambda record: False
    unheard: Callable[[], Sequence[EpochRecord]] = lambda: ()
    confirm: Callable[[], None] = lambda: None
    resume: bool = True
    epoch: int = 0
    declined: int | None = None
    last_written: float = field(default_factory=time.monotonic)
    at_least_s: float = CHECKPOINT_EVERY_S
    every_s: float = field(init=False)
    newest: StoredCheckpoint | None = field(init=False, default=None)
    resumed_from: StoredCheckpoint | None = field(init=False, default=None)
    carried: list[EpochRecord] = field(init=False, default_factory=list)
    _fastest_s: float = math.inf
    _within: bool = False
    _leaving: bool = False

    def __post_init__(self) -> None:
        self.every_s = self.at_least_s
        if self.resume:
            self._choose_state()

    @property
    def resumed_epoch(self) -> int:
        """The last complete epoch of the state that the attempt began with; 0 when it began with none."""
        return 0 if self.resumed_from is None else int(self.resumed_from.note.get("epoch", 0))

    def latest(self) -> Path | None:
        """The state to resume from, if there is one: the same at every call."""
        return None if self.resumed_from is None else self.resumed_from.path

    def _choose_state(self) -> None:
        """Adopt the newest state of this trial that fits the epochs in the store."""
        for state in self.states.list_newest_first():
            carried = self._carried(state.note)
            if state.note.get("owner") != dict(self.owner) or carried is None:
                continue
            own = self.states.adopt_checkpoint(state, self.attempt)
            if own is not None:
                self.newest = self.resumed_from = own
                self.epoch, self.carried = state.note.get("epoch", 0), carried
                return
            print(
                f"warning: the checkpoint {state.path} is broken: its checksum is not the one noted; the one before it counts",
                flush=True,
            )

    def _carried(self, note: Mapping[str, Any]) -> list[EpochRecord] | None:
        """The epochs between those in the store and the state's own, which the training tells once more; None where one is missing."""
        missing = range(self.stored_epochs + 1, note.get("epoch", 0))
        told = {record["epoch"]: record for record in note.get("unheard", ())}
        return (
            [EpochRecord.from_dict(told[epoch]) for epoch in missing]
            if told.keys() >= set(missing)
            else None
        )

    def step(self) -> bool:
        """Whether enough time has passed, or a stop was asked for that cannot wait for the end of the epoch.

        Raises:
            StopTraining: when the training was told so before, and had nothing to write.
        """
        self.progress.sign()
        self._within = True
        if self.stop.hurried:
            if self._leaving:
                raise StopTraining
            self._leaving = True
            return True
        return self._time()

    def due(self, record: EpochRecord, *, last: bool) -> bool:
        """Whether enough time has passed, a stop was asked for, or this is the end of what may be the best trial."""
        self.progress.sign()
        self.epoch, self._within, self._leaving = record.epoch, False, False
        wanted = self.stop.requested or self._time() or (last and self.promising(record))
        self.declined = None if wanted else record.epoch
        return wanted

    def _time(self) -> bool:
        return time.monotonic() - self.last_written >= self.every_s

    def write(self, save: Callable[[Path], None]) -> None:
        """Put a state in place. A disk that is full costs the checkpoint, not the trial.

        Raises:
            LeaseLostError: when another attempt owns the trial now: nothing was written.
            StopTraining: in the midst of an epoch, when a stop was asked for that cannot wait for its end.
        """
        began = time.monotonic()
        self.confirm()
        try:
            note = {
                "owner": dict(self.owner),
                "epoch": self.epoch,
                "within": self._within,
                "unheard": [record.as_dict() for record in self.unheard()],
            }
            self.newest = self.states.save_checkpoint(self.attempt, save, note)
        except OSError as problem:
            print(f"warning: no checkpoint written to {self.states.stem}: {problem}", flush=True)
        self.progress.sign()
        self.last_written = began  # what is worked while a state is written is not in it
        self._fastest_s = min(
            self._fastest_s, time.monotonic() - began
        )  # one that a busy machine held up is no measure of the disk
        self.every_s = max(self.at_least_s, self._fastest_s / WRITING_SHARE)
        if self._leaving:
            raise StopTraining

    def keep(self, artifacts: BestWeights, trial: int, score: float, direction: Direction) -> None:
        """The trial is complete: keep the state of its last epoch, if it is the best of the study."""
        state = self.newest
        if state is None or state.note.get("within") or state.note.get("epoch") != self.epoch:
            return
        try:
            artifacts.save_if_better(trial, score, direction, state)
        except OSError as problem:
            print(
                f"warning: the best weights were not kept in {artifacts.folder}: {problem}",
                flush=True,
            )

    def remove(self) -> None:
        """The trial is over."""
        try:
            self.states.remove_up_to(self.attempt)
        except OSError as problem:
            print(f"warning: a checkpoint could not be removed: {problem}", flush=True)
