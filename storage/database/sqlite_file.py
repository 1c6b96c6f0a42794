"""Check an SQLite file before it is opened: does it exist, is it a database, can it be written?"""

from __future__ import annotations

import os
from pathlib import Path

from spaces.errors import StoreError

HEADER = b"SQLite format 3\0"
_NO_STORE = "there is no store there"
_NO_STORE_STEP = "check the URL, or start a study, which creates the store"


def check_file(path: Path, where: str, *, create: bool) -> None:
    """Find what would keep SQLite from using `path`, without changing anything.

    Args:
        path: absolute path of the file.
        where: URL of the store, for the error.
        create: whether the file may be missing.

    Raises:
        StoreError: when the folder is missing, the file is not a database, the file or the folder
            cannot be written, or, without `create`, the file is missing.
    """
    try:
        problem = _find_problem(path, create)
    except OSError as error:  # such as a name that is too long
        problem = ("the store's file cannot be read", str(error), "choose another path")
    if problem is not None:
        what, found, next_step = problem
        raise StoreError(what, where=where, found=found, next_step=next_step)


def no_store(where: str, found: str) -> StoreError:
    """Make the error for a place where a store was expected."""
    return StoreError(_NO_STORE, where=where, found=found, next_step=_NO_STORE_STEP)


def _find_problem(path: Path, create: bool) -> tuple[str, str, str] | None:
    """Return what is wrong, what was found, and the next step."""
    exists = path.exists()
    if not path.parent.is_dir():
        return (
            "the store's folder does not exist",
            f"no folder {path.parent}",
            f"mkdir -p {path.parent}",
        )
    if path.is_dir():
        return (
            "the store's URL names a folder, not a file",
            f"folder {path}",
            f"use {path / 'search.db'}",
        )
    if not exists and not create:
        return _NO_STORE, f"no file {path}", _NO_STORE_STEP
    read_only = _find_read_only(path, exists)
    if read_only is None and exists and not _is_database(path):
        return (
            "the file is not a database",
            f"{path} is not an SQLite 3 file",
            "choose another file, or one that does not exist yet",
        )
    return read_only


def _find_read_only(path: Path, exists: bool) -> tuple[str, str, str] | None:
    next_step = "change its permissions, or choose another path"
    if not _is_writable(path.parent):  # SQLite writes its log next to the file
        found = f"{path.parent} is read-only"
        return "the store's folder cannot be written", found, next_step
    if exists and not _is_writable(path):
        return "the store's file cannot be written", f"{path} is read-only", next_step
    return None


def _is_writable(path: Path) -> bool:
    effective = os.access in os.supports_effective_ids  # not on every system
    return os.access(path, os.W_OK, effective_ids=effective)


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(len(HEADER))
    except OSError:
        return False
    return head in (b"", HEADER)  # an empty file is an empty database
