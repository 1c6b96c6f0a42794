"""The states that a live trial can go on from: the last two, each with a note that tells whose it is and what it must hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.files.study_files import CheckpointFiles, link_or_copy

KEPT = 2
"""Of a live trial: the newest state, and the one before it for the case that the newest is broken."""


@dataclass(frozen=True, slots=True)
class TrialState:
    """A state that lies there, and what its note says of it.

    Attributes:
        order: attempt and count, by which a newer state comes after an older one.
    """

    order: tuple[int, int]
    path: Path
    note: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """What the checksum has to be, in hexadecimal digits."""
        return str(self.note.get("sha256"))

    def whole(self) -> bool:
        """Whether the file holds what was written."""
        try:
            return checksum(self.path) == self.sha256
        except OSError:
            return False


class TrialStates:
    """The states of one trial, fenced by attempt: an attempt writes and removes files of its own number and of earlier ones only.

    So an attempt that was frozen, lost the trial, and thaws in the middle of a write changes nothing that a later
    attempt reads: that one resumes from a copy under its own number (`adopt`). A state is put in place before its
    note: what has a note is complete. A broken disk, or a truncated file, shows in the checksum.

    Args:
        files: where files are written.
        stem: of the trial's files, as `CheckpointFiles.path` tells it.
    """

    def __init__(self, files: CheckpointFiles, stem: Path) -> None:
        self.files, self.stem = files, stem
        self._named = re.compile(re.escape(stem.name) + r"\.(\d+)\.(\d+)\.(json|ckpt)")
        self._any_file = re.compile(r"\.?" + re.escape(stem.name) + r"\.(\d+)\.\d+\.(json|ckpt)")

    def newest_first(self) -> list[TrialState]:
        """What has a note that can be read; none when there is nothing."""
        found = []
        for order, kind, path in self._all():
            note = _read(path) if kind == "json" else None
            if note is not None:
                found.append(TrialState(order, self._path(order), note))
        return sorted(found, key=lambda state: state.order, reverse=True)

    def write(
        self, attempt: int, save: Callable[[Path], None], note: Mapping[str, Any]
    ) -> TrialState:
        """Puts what `save` writes in place, with its note, and removes all but the last two states.

        Raises:
            OSError: when the disk is full or cannot be written; the former states stay, and nothing else.
        """
        order = (
            attempt,
            1 + max((count for (of, count), _, _ in self._all() if of == attempt), default=0),
        )
        path = self._path(order)
        try:
            self.files.write(path, save)
            told = {**note, "sha256": checksum(path)}
            self.files.write_json(path.with_suffix(".json"), told)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._remove_older(order)
        return TrialState(order, path, told)

    def adopt(self, state: TrialState, attempt: int) -> TrialState | None:
        """The same state under this attempt's number, which no other attempt removes; None when it is broken or gone.

        The file is linked, not copied, where the file system has links. On a disk that cannot be written the state is
        used where it is.
        """
        own = state
        if state.order[0] != attempt:
            path = self._path((attempt, 0))
            try:
                self.files.write(path, lambda draft: link_or_copy(state.path, draft))
                self.files.write_json(path.with_suffix(".json"), state.note)
                own = TrialState((attempt, 0), path, state.note)
            except FileNotFoundError:  # the attempt that wrote it removed it just now
                return None
            except OSError:
                path.unlink(missing_ok=True)
        return own if own.whole() else None

    def remove(self, attempt: int) -> None:
        """Removes the states of this attempt and of earlier ones, and drafts that a killed process left; there may be none.

        Raises:
            OSError: when the folder cannot be written.
        """
        for path in sorted(
            [
                *self.stem.parent.glob(f".{self.stem.name}.*"),
                *self.stem.parent.glob(f"{self.stem.name}.*"),
            ]
        ):
            named = self._any_file.match(path.name)
            if named and int(named[1]) <= attempt:
                path.unlink(missing_ok=True)

    def _remove_older(self, newest: tuple[int, int]) -> None:
        """Removes all but the last states of this attempt and of earlier ones; a later attempt's are not touched."""
        noted = sorted(
            (order for order, kind, _ in self._all() if kind == "json" and order <= newest),
            reverse=True,
        )
        kept = set(noted[:KEPT])
        for order, _, path in sorted(
            self._all(), key=lambda found: found[1], reverse=True
        ):  # notes first
            if order < newest and order not in kept:
                path.unlink(missing_ok=True)

    def _all(self) -> list[tuple[tuple[int, int], str, Path]]:
        found = []
        for path in self.stem.parent.glob(f"{self.stem.name}.*"):
            match = self._named.fullmatch(path.name)
            if match:
                found.append(((int(match[1]), int(match[2])), match[3], path))
        return found

    def _path(self, order: tuple[int, int]) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{order[0]}.{order[1]}.ckpt")


def checksum(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: when it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> Mapping[str, Any] | None:
    """A note, None for one that is broken or gone."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None
