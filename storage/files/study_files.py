"""Files of studies and trials, which are written completely or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spaces.errors import StoreError

ROOT_VARIABLE = "SEARCH_FILES"
DEFAULT_ROOT = "search.files"
_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def choose_root(sqlite_file: Path | None) -> Path:
    """Choose the folder of a store's files.

    It is `$SEARCH_FILES`, else `search.files` next to an SQLite file `search.db`, else
    `search.files` in the working directory.
    """
    given = os.environ.get(ROOT_VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    if sqlite_file is None:
        return Path(DEFAULT_ROOT).absolute()
    root = sqlite_file.with_suffix(".files")
    return root if root != sqlite_file else sqlite_file.with_name(f"{sqlite_file.name}.files")


class StudyFiles:
    """The files of a store's studies: one folder per study, with the files of its trials in it.

    They are written with the user's umask.

    Args:
        root: folder of the studies' folders.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def trial_stem(self, study: str, number: int) -> Path:
        """Return the path with which the paths of all files of a trial begin.

        Raises:
            StoreError: when the name, the number or a link could lead out of the folder.
        """
        if not _STUDY_NAME.fullmatch(study) or number < 0:
            raise StoreError(
                "a study's name must be usable as a folder's name",
                where=str(self.root),
                found=f"{study!r}, trial {number}",
                allowed=(
                    "letters, digits, '_', '.' and '-', the first a letter or a digit; "
                    "a trial from 0 on"
                ),
            )
        folder = self.root / study
        if folder.is_symlink():
            raise StoreError(
                "a study's folder is a link, which leads out of the folder for files",
                where=str(folder),
                found=f"→ {folder.readlink()}",
                next_step="replace it by a folder, or name a folder for all files in SEARCH_FILES",
            )
        return folder / f"trial-{number:05d}"

    def write_file(self, path: Path, save: Callable[[Path], None]) -> None:
        """Write a file atomically: a reader, or a crash, finds either the old file or the new one.

        Args:
            save: writes the content to the path that it is given.

        Raises:
            OSError: when the disk is full or cannot be written; only the old file stays.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            save(draft)
            _sync_to_disk(draft)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync_to_disk(path.parent)

    def write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        """Write a JSON file in the same way.

        Raises:
            OSError: when the disk is full or cannot be written; only the old file stays.
        """
        text = json.dumps(value)

        def save(draft: Path) -> None:
            draft.write_text(text, encoding="utf-8")

        self.write_file(path, save)


def link_or_copy(source: Path, draft: Path) -> None:
    """Link a file under another name, or copy it where the file system has no links.

    Raises:
        OSError: when there is no such file, or it cannot be copied.
    """
    try:
        os.link(source, draft)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, draft)


def _sync_to_disk(path: Path) -> None:
    """Wait until a file is on the disk.

    After a power cut, a rename that reached the disk before the data would leave an empty file.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
