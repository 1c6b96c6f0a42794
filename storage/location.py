"""Where a store is: its database and the folder of its files, parsed once from a URL."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sqlalchemy import URL

from storage.database.database import Database
from storage.database.sqlite_file import check_file
from storage.database.url import (
    explain_local_only,
    find_password,
    find_sqlite_file,
    hide_password,
    make_dump_command,
    parse_url,
)
from storage.files.study_files import ROOT_VARIABLE, StudyFiles, choose_root
from storage.store import Store
from storage.tables.schema_version import ensure_tables


@dataclass(frozen=True)
class StoreLocation:
    """Where a store is: its database and the folder of its files.

    Two locations are equal when they name the same database and the same folder, however their URLs
    were written. The representation of a location never shows the password.

    Attributes:
        url: as the user wrote it, with the password; what a child process is given.
        safe_url: the same without the password, for messages.
        sqlite_file: absolute path of an SQLite database, None for a server.
        files_root: folder of the checkpoints, logs and best weights.
        files_shared: whether other stores may keep files in that folder: it was set for all of
            them by `$SEARCH_FILES`, or is that of the working directory.
    """

    url: str = field(repr=False, compare=False)
    safe_url: str = field(compare=False)
    sqlite_file: Path | None
    files_root: Path
    files_shared: bool
    _database_url: URL = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a store's URL, such as `sqlite:///search.db`.

        Raises:
            StoreError: when the URL is malformed, or names an unsupported kind of database, a
                database in memory, or one whose driver is not installed.
        """
        database_url = parse_url(text)
        sqlite_file = find_sqlite_file(database_url)
        return cls(
            url=text,
            safe_url=hide_password(text),
            sqlite_file=sqlite_file,
            files_root=choose_root(sqlite_file),
            files_shared=sqlite_file is None or bool(os.environ.get(ROOT_VARIABLE)),
            _database_url=database_url,
        )

    def open(self, create: bool = True) -> Store:
        """Open the store; the caller closes it.

        Args:
            create: create the store when there is none. Otherwise a missing store is an error,
                and nothing is created.

        Raises:
            StoreError: when the database cannot be reached or written, or is of another version.
        """
        database = self.open_database(create=create)
        try:
            ensure_tables(database, create=create)
        except BaseException:
            database.close()
            raise
        return Store(database)

    def open_database(self, create: bool = False) -> Database:
        """Open the database of a store of any version; the caller closes it.

        Raises:
            StoreError: when an SQLite file cannot be used or, without `create`, is missing.
        """
        if self.sqlite_file is not None:
            check_file(self.sqlite_file, self.safe_url, create=create)
        return Database(self._database_url, self.safe_url)

    def files(self) -> StudyFiles:
        """Return the files of the studies in the store."""
        return StudyFiles(self.files_root)

    @property
    def optuna_url(self) -> str:
        """URL of the same database for Optuna's `RDBStorage`. It contains the password."""
        return self._database_url.render_as_string(hide_password=False)

    @property
    def password(self) -> str:
        """The password in the URL, empty when it has none."""
        return find_password(self._database_url)

    def dump_command(self) -> str:
        """Return the command that dumps a server's database to a file."""
        return make_dump_command(self._database_url)

    def explain_local_only(self) -> str:
        """Explain why other machines cannot use the store; empty when they can."""
        return explain_local_only(self._database_url)
