"""The trained weights of a study's best complete trial, in a file named by its SHA-256."""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from spaces.config import Direction
from spaces.records import better
from storage.files.checkpoints import StoredCheckpoint
from storage.files.study_files import StudyFiles, link_or_copy

FOLDER = "artifacts"
NOTE = "best.json"
LOCK = ".lock"
LOCK_WAIT_S = 10.0
"""How long a worker waits for another one that replaces the weights; it may be suspended."""

LOCK_POLL_S = 0.05
_HASH = re.compile(r"[0-9a-f]{64}")


def is_weights_file(path: Path) -> bool:
    """Whether a file in the folder of best weights is one of ours."""
    if path.is_symlink() or not path.is_file():
        return False
    return path.name in (NOTE, LOCK) or _HASH.fullmatch(path.name) is not None


@dataclass(frozen=True, slots=True)
class BestTrial:
    """The best complete trial of a study so far.

    Attributes:
        since: when its study was registered. Files outlive a store that was deleted, and belong to
            another study then.
        trial: its number.
        score: by which trials are compared.
        sha256: of the file with its weights.
    """

    since: float
    trial: int
    score: float
    sha256: str


class BestWeights:
    """The best weights of one study, in its folder.

    Hosts that do not share files keep the best of their own trials each.

    Args:
        files: the files of the store.
        study: its name.
        since: when it was registered, in seconds since 1970.

    Raises:
        StoreError: when the study's name could lead out of the folder.
    """

    def __init__(self, files: StudyFiles, study: str, since: float) -> None:
        self.files = files
        self.since = since
        self.folder = files.trial_stem(study, 0).parent / FOLDER

    def find_best(self) -> BestTrial | None:
        """Return the best trial of this study so far, if the file with its weights exists."""
        best = self._read_note()
        return best if best is not None and best.since == self.since else None

    def weights_path(self, best: BestTrial) -> Path:
        """Return the path of a trial's weights."""
        return self.folder / best.sha256

    def is_better(self, trial: int, score: float, direction: Direction) -> bool:
        """Whether a trial is better than the best one so far; of two equal ones the earlier is."""
        best = self.find_best()
        if best is None:
            return score == score
        if score == best.score:
            return trial < best.trial
        return better(score, best.score, direction)

    def save_if_better(
        self, trial: int, score: float, direction: Direction, checkpoint: StoredCheckpoint
    ) -> bool:
        """Replace the best weights by those of a complete trial, if it is better.

        A worker that was suspended while its study was deleted and registered again saves nothing,
        because the files belong to the later study.

        Returns:
            Whether the weights were replaced.

        Raises:
            OSError: when the disk is full or cannot be written, or another worker keeps the lock;
                the earlier weights stay.
        """
        with self._locked():
            noted = self._read_note()
            if noted is not None and noted.since > self.since:
                return False
            if not self.is_better(trial, score, direction):
                return False
            best = BestTrial(self.since, trial, score, checkpoint.sha256)
            self.files.write_file(
                self.weights_path(best), lambda draft: link_or_copy(checkpoint.path, draft)
            )
            self.files.write_json(self.folder / NOTE, asdict(best))
            for path in self.folder.iterdir():
                if _HASH.fullmatch(path.name) and path.name != best.sha256:
                    path.unlink(missing_ok=True)
        return True

    def _read_note(self) -> BestTrial | None:
        """Read the note, which may be of an earlier study of this name.

        None when it is broken, or the file with the weights is missing.
        """
        try:
            note = BestTrial(**json.loads((self.folder / NOTE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        is_valid = (
            isinstance(note.trial, int)
            and all(isinstance(number, (int, float)) for number in (note.score, note.since))
            and isinstance(note.sha256, str)
            and _HASH.fullmatch(note.sha256) is not None  # or it could lead out of the folder
        )
        return note if is_valid and self.weights_path(note).exists() else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one worker at a time compare and replace the best weights.

        Raises:
            TimeoutError: when another worker keeps the lock, because it is suspended. Without the
                limit it would stop all workers of the study.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("a") as file:
            deadline = time.monotonic() + LOCK_WAIT_S
            while not _try_lock(file):
                if time.monotonic() >= deadline:
                    raise TimeoutError(
                        f"another worker has kept {self.folder / LOCK} for {LOCK_WAIT_S:g} s"
                    )
                time.sleep(LOCK_POLL_S)
            yield


def _try_lock(file: TextIO) -> bool:
    """Lock a file for this process until it is closed; False while another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
