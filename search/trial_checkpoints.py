"""The checkpoint of one trial: when it is written, and whether one that lies there belongs to this trial at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.stop import StopRequest, StopTraining
from storage.checkpoints import CheckpointFiles

CHECKPOINT_EVERY_S = 10.0
"""At most so much work is lost with a worker, unless a state takes long to write."""

WRITING_SHARE = 0.05
"""At most so much of the time goes into writing states."""


@dataclass
class TrialCheckpoints:
    """What a trainer is handed to keep its state in.

    Beside the state lies a note of whose it is. Files outlive a store that was deleted, and hosts that share a store
    may not share their files: a state that another study's trial left, or that is newer than the epochs in the store, is
    not gone on from.

    Args:
        files: where files are written.
        path: of the state.
        owner: what tells this trial from every other one.
        stored_epochs: how many of its epochs the store has.
        stop: on a request to stop the next state is written, however young the last one is; one that cannot wait for the
            end of the epoch also ends the training there.
        epoch: the last whole one of the state.
        declined: the epoch whose state was not asked for, being the newest; a trial that stops there would lose it.
        every_s: seconds between two states.
    """

    files: CheckpointFiles
    path: Path
    owner: Mapping[str, Any]
    stored_epochs: int
    stop: StopRequest
    epoch: int = 0
    declined: int | None = None
    last_written: float = field(default_factory=time.monotonic)
    every_s: float = CHECKPOINT_EVERY_S
    _leaving: bool = False

    @property
    def note(self) -> Path:
        """The file that says whose state it is."""
        return self.path.with_suffix(".json")

    def latest(self) -> Path | None:
        """The state to go on from, if there is one of this trial."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        mine = note.get("owner") == dict(self.owner) and note.get("epoch", 0) <= self.stored_epochs + 1
        if not mine or not self.path.exists():
            return None
        self.epoch = note.get("epoch", 0)
        return self.path

    def step(self) -> bool:
        """Whether enough time has passed, or a stop was asked for that cannot wait for the end of the epoch.

        Raises:
            StopTraining: when the training was told so before, and had nothing to write.
        """
        if self.stop.hurried:
            if self._leaving:
                raise StopTraining
            self._leaving = True
            return True
        return self._time()

    def due(self, epoch: int) -> bool:
        """Whether enough time has passed, or a stop was asked for."""
        self.epoch = epoch
        wanted = self.stop.requested or self._time()
        self.declined, self._leaving = None if wanted else epoch, False
        return wanted

    def _time(self) -> bool:
        return time.monotonic() - self.last_written >= self.every_s

    def write(self, save: Callable[[Path], None]) -> None:
        """Put a state in place. A disk that is full costs the checkpoint, not the trial.

        Raises:
            StopTraining: in the midst of an epoch, when a stop was asked for that cannot wait for its end.
        """
        began = time.monotonic()
        note = json.dumps({"owner": dict(self.owner), "epoch": self.epoch})
        try:
            self.note.unlink(missing_ok=True)  # between the two files there is no checkpoint, rather than a wrong note
            self.files.write(self.path, save)
            self.files.write(self.note, lambda path: _write_text(path, note))
        except OSError as problem:
            print(f"warning: no checkpoint written to {self.path}: {problem}", flush=True)
        self.last_written = time.monotonic()
        self.every_s = max(CHECKPOINT_EVERY_S, (self.last_written - began) / WRITING_SHARE)
        if self._leaving:
            raise StopTraining

    def remove(self) -> None:
        """The trial is over."""
        try:
            self.files.remove(self.note)
            self.files.remove(self.path)
        except OSError as problem:
            print(f"warning: a checkpoint could not be removed: {problem}", flush=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
