"""What is kept of a study for good: the trained state of its best complete trial, under the name of its content's hash."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from spaces.config import Direction
from spaces.records import better
from storage.files.checkpoints import TrialState
from storage.files.study_files import CheckpointFiles, link_or_copy

FOLDER, NOTE, LOCK = "artifacts", "best.json", ".lock"
_HASH = re.compile(r"[0-9a-f]{64}")


def is_kept(path: Path) -> bool:
    """Whether a file in such a folder is one of ours."""
    return (
        not path.is_symlink()
        and path.is_file()
        and (path.name in (NOTE, LOCK) or _HASH.fullmatch(path.name) is not None)
    )


@dataclass(frozen=True, slots=True)
class Best:
    """The best complete trial that was seen in this folder.

    Attributes:
        since: when its study was registered: files outlive a store that was deleted, and then are of another study.
        trial: its number.
        score: what it was judged by.
        sha256: of the file.
    """

    since: float
    trial: int
    score: float
    sha256: str


class Artifacts:
    """The artifacts of one study, in its folder. Hosts that do not share files keep the best trial of their own each.

    Raises:
        StoreError: when the study's name could lead out of the folder.
    """

    def __init__(self, files: CheckpointFiles, study: str, since: float) -> None:
        self.files, self.since = files, since
        self.folder = files.path(study, 0).parent / FOLDER

    def best(self) -> Best | None:
        """The best trial of this study so far, if its file is there."""
        note = self._noted()
        return note if note is not None and note.since == self.since else None

    def _noted(self) -> Best | None:
        """What the note says, of whichever study of this name; None when it is broken or its file is gone."""
        try:
            note = Best(**json.loads((self.folder / NOTE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        numbers = isinstance(note.trial, int) and all(
            isinstance(number, (int, float)) for number in (note.score, note.since)
        )
        complete = (
            numbers and isinstance(note.sha256, str) and _HASH.fullmatch(note.sha256)
        )  # or it could lead out of the folder
        return note if complete and self.path(note).exists() else None

    def path(self, best: Best) -> Path:
        """Where its file is."""
        return self.folder / best.sha256

    def beats(self, trial: int, score: float, direction: Direction) -> bool:
        """Whether a trial is better than the best so far; of equals the earlier one counts."""
        held = self.best()
        if held is None:
            return score == score
        return better(score, held.score, direction) or (score == held.score and trial < held.trial)

    def keep(self, trial: int, score: float, direction: Direction, state: TrialState) -> bool:
        """Keeps the state of a complete trial in place of the former best's, if it is better. Whether it was.

        A worker that was frozen while its study was deleted and registered again keeps nothing: the files are the
        later study's.

        Raises:
            OSError: when the disk is full or cannot be written; the former best stays.
        """
        with self._locked():
            noted = self._noted()
            if (noted is not None and noted.since > self.since) or not self.beats(
                trial, score, direction
            ):
                return False
            best = Best(self.since, trial, score, state.sha256)
            self.files.write(self.path(best), lambda draft: link_or_copy(state.path, draft))
            self.files.write_json(self.folder / NOTE, asdict(best))
            for path in self.folder.iterdir():
                if _HASH.fullmatch(path.name) and path.name != best.sha256:
                    path.unlink(missing_ok=True)
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One worker at a time looks for the best and replaces it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
