"""Files in the folder of a store that belong to no trial and no study of it any more."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage.files import best_weights
from storage.rows import FINAL_STATES, StoredTrial
from storage.store import Store

_TRIAL_FILE = re.compile(r"\.?trial-(\d+)(?!\d).*")
TIDYING_S = 600.0
"""A worker that has ended a trial keeps the best weights and removes the states within so long, whatever the clocks of both say."""

_WORKER_LOG = re.compile(r"worker-.*\.log")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file without an owner: the study it was of, and the trial, unless it is a log or an artifact."""

    path: Path
    study: str
    trial: int | None
    size_bytes: int


def leftovers(store: Store, root: Path) -> list[Leftover]:
    """The states of trials that are over or not in the store, and the logs and artifacts of studies that are not in it. Nothing else is looked at, no link is followed."""
    found = list(
        _ours(root)
    )  # before the store is read: a trial comes into the store before its first file
    numbers = {
        study.name: {
            trial.number for trial in store.trials.list_trials(study.id) if not _over(trial)
        }
        for study in store.studies.list_studies()
    }
    return [file for file in found if _lonely(file, numbers)]


def remove_leftovers(files: list[Leftover], root: Path) -> int:
    """Removes them, and the folders that are empty then; how many could be removed."""
    removed = 0
    for file in files:
        with suppress(OSError):
            file.path.unlink()
            removed += 1
    for folder in (
        place
        for study in {file.study for file in files}
        for place in (root / study / best_weights.FOLDER, root / study)
    ):
        with suppress(OSError):  # something else is in it
            folder.rmdir()
    return removed


def _over(trial: StoredTrial) -> bool:
    """Whether it ended long enough ago that the worker which ended it is done with its states: it died before it could remove them."""
    return (
        trial.state in FINAL_STATES
        and trial.finished_at is not None
        and time.time() - trial.finished_at > TIDYING_S
    )


def _lonely(file: Leftover, numbers: Mapping[str, set[int | None]]) -> bool:
    return file.study not in numbers or (
        file.trial is not None and file.trial not in numbers[file.study]
    )


def _ours(root: Path) -> Iterator[Leftover]:
    """Every file that bears the name of a state, of a log, or of an artifact."""
    folders = sorted(root.iterdir()) if root.is_dir() else []
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            trial = _TRIAL_FILE.fullmatch(path.name)
            if path.name == best_weights.FOLDER and path.is_dir() and not path.is_symlink():
                yield from (
                    _file(each, folder.name, None)
                    for each in sorted(path.iterdir())
                    if best_weights.is_kept(each)
                )
            elif (
                (trial or _WORKER_LOG.fullmatch(path.name))
                and path.is_file()
                and not path.is_symlink()
            ):
                yield _file(path, folder.name, int(trial[1]) if trial else None)


def _file(path: Path, study: str, trial: int | None) -> Leftover:
    return Leftover(path, study, trial, path.lstat().st_size)
