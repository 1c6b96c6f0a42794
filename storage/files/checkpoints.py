"""Checkpoints of an open trial: the last two, each with a note that has its owner and checksum."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from storage.files.study_files import StudyFiles, link_or_copy

KEPT = 2
"""Checkpoints kept of an open trial: the newest one, and the one before in case it is broken."""

Order = tuple[int, int]
"""Attempt and count: a newer checkpoint has the larger order."""


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint file, and its note.

    Attributes:
        order: attempt and count, by which a newer checkpoint comes after an older one.
    """

    order: Order
    path: Path
    note: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """The checksum according to the note, in hexadecimal digits."""
        return str(self.note.get("sha256"))

    def is_intact(self) -> bool:
        """Whether the file has the content that was written."""
        try:
            return hash_file(self.path) == self.sha256
        except OSError:
            return False


class StoredCheckpoints:
    """The checkpoints of one trial.

    An attempt writes and removes only files of its own number and of earlier ones. So an attempt
    that was suspended, lost the trial, and resumes in the middle of a write changes nothing that a
    later attempt reads: that one continues from a copy under its own number (`adopt_checkpoint`). A
    checkpoint is put in place before its note, so a checkpoint with a note is complete. A broken
    disk or a truncated file shows in the checksum.

    Args:
        files: writes the files.
        stem: of the trial's files, as `StudyFiles.trial_stem` returns it.
    """

    def __init__(self, files: StudyFiles, stem: Path) -> None:
        self.files = files
        self.stem = stem
        name = re.escape(stem.name)
        self._complete_name = re.compile(name + r"\.(\d+)\.(\d+)\.(json|ckpt)")
        self._any_name = re.compile(r"\.?" + name + r"\.(\d+)\.\d+\.(json|ckpt)")

    def list_newest_first(self) -> list[StoredCheckpoint]:
        """Return the checkpoints whose note can be read."""
        found = []
        for file in self._find_files():
            note = _read_note(file.path) if file.kind == "json" else None
            if note is not None:
                found.append(StoredCheckpoint(file.order, self._make_path(file.order), note))
        return sorted(found, key=lambda checkpoint: checkpoint.order, reverse=True)

    def save_checkpoint(
        self, attempt: int, save: Callable[[Path], None], note: Mapping[str, Any]
    ) -> StoredCheckpoint:
        """Write a checkpoint with its note, and remove all but the last two.

        Args:
            save: writes the file.

        Raises:
            OSError: when the disk is full or cannot be written; only the earlier checkpoints stay.
        """
        counts = [file.order[1] for file in self._find_files() if file.order[0] == attempt]
        order = (attempt, 1 + max(counts, default=0))
        path = self._make_path(order)
        try:
            self.files.write_file(path, save)
            complete_note = {**note, "sha256": hash_file(path)}
            self.files.write_json(path.with_suffix(".json"), complete_note)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._remove_older(order)
        return StoredCheckpoint(order, path, complete_note)

    def adopt_checkpoint(
        self, checkpoint: StoredCheckpoint, attempt: int
    ) -> StoredCheckpoint | None:
        """Return a checkpoint under this attempt's number, which no other attempt removes.

        The file is linked, not copied, if the file system has links. On a disk that cannot be
        written the checkpoint is used where it is.

        Returns:
            None when it is broken or was removed.
        """
        own = checkpoint
        if checkpoint.order[0] != attempt:
            path = self._make_path((attempt, 0))
            try:
                self.files.write_file(path, lambda draft: link_or_copy(checkpoint.path, draft))
                own = StoredCheckpoint((attempt, 0), path, checkpoint.note)
                # Only later attempts need the note.
                self.files.write_json(path.with_suffix(".json"), checkpoint.note)
            except FileNotFoundError:  # the attempt that wrote it has just removed it
                return None
            except OSError:
                pass
        return own if own.is_intact() else None

    def remove_up_to(self, attempt: int) -> None:
        """Remove the checkpoints of this attempt and earlier ones, and drafts of killed processes.

        Raises:
            OSError: when the folder cannot be written.
        """
        drafts = self.stem.parent.glob(f".{self.stem.name}.*")
        complete = self.stem.parent.glob(f"{self.stem.name}.*")
        for path in sorted([*drafts, *complete]):
            match = self._any_name.match(path.name)
            if match and int(match[1]) <= attempt:
                path.unlink(missing_ok=True)

    def _remove_older(self, newest: Order) -> None:
        """Remove all but the last checkpoints of this attempt and of earlier ones."""
        files = list(self._find_files())
        noted = [file.order for file in files if file.kind == "json" and file.order <= newest]
        kept = set(sorted(noted, reverse=True)[:KEPT])
        for file in sorted(files, key=lambda file: file.kind, reverse=True):  # notes first
            if file.order < newest and file.order not in kept:
                file.path.unlink(missing_ok=True)

    def _find_files(self) -> Iterator[_File]:
        for path in self.stem.parent.glob(f"{self.stem.name}.*"):
            match = self._complete_name.fullmatch(path.name)
            if match:
                yield _File((int(match[1]), int(match[2])), match[3], path)

    def _make_path(self, order: Order) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{order[0]}.{order[1]}.ckpt")


class _File(NamedTuple):
    """A file of a checkpoint.

    Attributes:
        kind: `ckpt`, or `json` for the note.
    """

    order: Order
    kind: str
    path: Path


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: when it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_note(path: Path) -> Mapping[str, Any] | None:
    """Read a note, None when it is broken or missing."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None
