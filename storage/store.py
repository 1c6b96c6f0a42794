"""The store: the durable memory of studies, and the only door to it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from storage.address import check_file, database_file, safe_url
from storage.attempts import Attempts
from storage.checkpoints import CheckpointFiles, files_root
from storage.counts import Counts
from storage.device_time import DeviceTimes
from storage.engine import Database
from storage.epochs import Epochs
from storage.findings import Findings
from storage.models import Study
from storage.reaping import Reaping
from storage.schema import ensure, upgrade
from storage.studies import Studies
from storage.trials import Trials


class Store(Studies, Attempts, Reaping, DeviceTimes, Epochs, Trials, Findings, Counts):
    """One database. Threads may share a store; processes open their own.

    Any method raises StoreError when the database fails. The transaction is undone then, so it can be tried again.
    """

    @property
    def where(self) -> str:
        """The address, without a password."""
        return self._database.where

    def unmake(self) -> bool:
        """Removes a store that this very opening made, if it holds no study and nobody else has it open. False when it stays."""
        return self._database.made and self._database.remove(unless=f"SELECT 1 FROM {Study.__tablename__} LIMIT 1")

    def close(self) -> None:
        """Closes the connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_store(url: str, create: bool = True) -> Store:
    """The store at `url`, created when there is none, unless `create` is false; then nothing is left behind.

    Raises:
        StoreError: when the address is malformed, the database cannot be reached or written, or is of another version.
    """
    database = _reach(url, create=create)
    try:
        ensure(database, create=create)
    except BaseException:
        database.close()
        raise
    return Store(database)


def upgrade_store(url: str) -> None:
    """Brings a store of an older program to the version of this one; a store of this version stays as it is.

    Raises:
        StoreError: when there is no store, or a newer one, or the database cannot be reached or written.
    """
    database = _reach(url, create=False)
    try:
        upgrade(database)
    finally:
        database.close()


def open_files(url: str) -> CheckpointFiles:
    """Where the files of the trials in the store at `url` live.

    Raises:
        StoreError: when the address is malformed.
    """
    return CheckpointFiles(files_root(database_file(url)))


def _reach(url: str, *, create: bool) -> Database:
    file = database_file(url)
    if file is not None:
        check_file(file, safe_url(url), create=create)
    return Database(url)
