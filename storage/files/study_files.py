"""The files of studies and trials, which are whole or not there."""

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


class CheckpointFiles:
    """One folder for each study, in it the files of its trials. They are written with the user's umask."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, study: str, number: int) -> Path:
        """What the names of all files of that trial begin with.

        Raises:
            StoreError: when the name, the number or a link could lead out of the folder.
        """
        if not _STUDY_NAME.fullmatch(study) or number < 0:
            allowed = "letters, digits, '_', '.' and '-', the first a letter or a digit; a trial from 0 on"
            raise StoreError(
                "a study's name must do as a folder",
                where=str(self.root),
                found=f"{study!r}, trial {number}",
                allowed=allowed,
            )
        folder = self.root / study
        if folder.is_symlink():
            step = (
                "put a folder in its place, or have SEARCH_FILES name another place for all files"
            )
            raise StoreError(
                "a study's folder is a link, which leads out of the folder for files",
                where=str(folder),
                found=f"→ {folder.readlink()}",
                next_step=step,
            )
        return folder / f"trial-{number:05d}"

    def write(self, path: Path, save: Callable[[Path], None]) -> None:
        """Puts what `save` writes in the place of `path` at once, so that a reader, or a crash, finds the old file or the new one.

        Raises:
            OSError: when the disk is full or cannot be written; the former file stays, and nothing else.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            save(draft)
            _sync(draft)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync(path.parent)

    def write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        """A note, in the same way.

        Raises:
            OSError: when the disk is full or cannot be written; the former file stays, and nothing else.
        """
        text = json.dumps(value)

        def save(draft: Path) -> None:
            draft.write_text(text, encoding="utf-8")

        self.write(path, save)


def link_or_copy(source: Path, draft: Path) -> None:
    """Puts the content of `source` under another name; a copy where the file system has no links.

    Raises:
        OSError: when there is no such file, or it cannot be copied.
    """
    try:
        os.link(source, draft)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, draft)


def _sync(path: Path) -> None:
    """Waits until the disk has it: a rename that overtakes the data would leave an empty file after a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
