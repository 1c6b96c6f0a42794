"""Orphaned files: files in a store's folder that belong to none of its trials and studies."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage.files import best_weights
from storage.rows import FINAL_STATES, StoredTrial
from storage.store import Store

CLEANUP_S = 600.0
"""Within this time after the end of a trial its worker saves the best weights and removes the
checkpoints, even if the clocks of both machines differ."""

_TRIAL_FILE = re.compile(r"\.?trial-(\d+)(?!\d).*")
_WORKER_LOG = re.compile(r"worker-.*\.(log|events\.jsonl)")


@dataclass(frozen=True, slots=True)
class OrphanFile:
    """A file without an owner.

    Attributes:
        study: to which it belonged.
        trial: to which it belonged; None for a log or the best weights.
    """

    path: Path
    study: str
    trial: int | None
    size_bytes: int


def find_orphans(store: Store, root: Path) -> list[OrphanFile]:
    """Find checkpoints of ended or missing trials, and logs and weights of missing studies.

    No other files are looked at, and no link is followed.

    Args:
        root: folder of the store's files.
    """
    # Before the store is read, because a trial is in the store before its first file is written.
    found = list(_find_files(root))
    numbers = {study.name: _open_numbers(store, study.id) for study in store.studies.list_studies()}
    return [file for file in found if _is_orphan(file, numbers)]


def remove_orphans(files: Sequence[OrphanFile], root: Path) -> int:
    """Remove files, and the folders that are empty then.

    Returns:
        How many files could be removed.
    """
    removed = 0
    for file in files:
        with suppress(OSError):
            file.path.unlink()
            removed += 1
    for study in {file.study for file in files}:
        for folder in (root / study / best_weights.FOLDER, root / study):
            with suppress(OSError):  # it is not empty
                folder.rmdir()
    return removed


def _open_numbers(store: Store, study_id: int) -> set[int | None]:
    """The numbers of the trials whose checkpoints may still be needed."""
    return {
        trial.number for trial in store.trials.list_trials(study_id) if not _has_ended_long(trial)
    }


def _has_ended_long(trial: StoredTrial) -> bool:
    """Whether the worker that ended a trial would have removed its checkpoints by now."""
    return (
        trial.state in FINAL_STATES
        and trial.finished_at is not None
        and time.time() - trial.finished_at > CLEANUP_S
    )


def _is_orphan(file: OrphanFile, numbers: Mapping[str, set[int | None]]) -> bool:
    if file.study not in numbers:
        return True
    return file.trial is not None and file.trial not in numbers[file.study]


def _find_files(root: Path) -> Iterator[OrphanFile]:
    """Find every file with the name of a checkpoint, a log, or best weights."""
    folders = sorted(root.iterdir()) if root.is_dir() else []
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if path.is_symlink():
                continue
            if path.name == best_weights.FOLDER and path.is_dir():
                yield from _find_weights(path, folder.name)
            trial = _TRIAL_FILE.fullmatch(path.name)
            if (trial or _WORKER_LOG.fullmatch(path.name)) and path.is_file():
                yield _make_file(path, folder.name, int(trial[1]) if trial else None)


def _find_weights(folder: Path, study: str) -> Iterator[OrphanFile]:
    for path in sorted(folder.iterdir()):
        if best_weights.is_weights_file(path):
            yield _make_file(path, study, None)


def _make_file(path: Path, study: str, trial: int | None) -> OrphanFile:
    return OrphanFile(path, study, trial, path.lstat().st_size)
