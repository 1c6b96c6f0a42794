"""Build SQLAlchemy engines: timeouts, isolation and pragmas of each kind of database."""

from __future__ import annotations

import socket
import sqlite3
import time
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from spaces.errors import StoreError
from storage.database.url import MYSQL_DRIVER

CONNECT_TIMEOUT_S = 4
SERVER_TIMEOUTS = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Options of libpq. Without them it takes hours to notice that a server stopped responding."""

SOCKET_OPTIONS = {
    "TCP_KEEPIDLE": "keepalives_idle",
    "TCP_KEEPINTVL": "keepalives_interval",
    "TCP_KEEPCNT": "keepalives_count",
    "TCP_USER_TIMEOUT": "tcp_user_timeout",
}
"""TCP option → the option of libpq that sets it."""

BUSY_TIMEOUT_S = 30
WAL_RETRY_S = 0.02

WRITES = "search_writes"
"""Execution option of connections that write."""


def build_engine(url: URL) -> Engine:
    """Make an engine for a URL that `parse_url` returned. It does not connect yet."""
    if url.drivername == "sqlite":
        return _build_sqlite_engine(url)
    options: dict[str, Any] = {}
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
    if url.drivername == MYSQL_DRIVER:
        # The default, one snapshot per transaction, would count trials as they were before the
        # transaction waited for a lock.
        options["isolation_level"] = "READ COMMITTED"
        # UTC, because local time repeats an hour in autumn.
        arguments["init_command"] = (
            f"SET time_zone = '+00:00', innodb_lock_wait_timeout = {BUSY_TIMEOUT_S}"
        )
    else:
        arguments |= SERVER_TIMEOUTS
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    # One connection per worker, so that one server serves hundreds of workers. The thread that
    # renews the lease uses the same connection between two epochs; when both write at once, a
    # second one is opened and closed again. The connection stays open during an epoch, however
    # long it takes: the lease is renewed every few seconds, and a new connection for each renewal,
    # which is a process on PostgreSQL, would cost the server more than an idle one. A connection
    # that a firewall or a restart cut meanwhile is noticed before it is used.
    engine = create_engine(
        url, connect_args=arguments, pool_size=1, max_overflow=5, pool_pre_ping=True, **options
    )
    if url.drivername == MYSQL_DRIVER:
        event.listen(engine, "connect", _set_socket_timeouts)
    return engine


def tune_sqlite(engine: Engine) -> None:
    """Make an SQLite engine wait for locks, and commit without waiting for the disk.

    It may be an engine that another library built. Its idle connections are closed, so that every
    connection from now on has these settings. How it begins transactions does not change. The
    write-ahead log is a property of the SQLite file: `Database.enable_wal` sets it. Nothing is set
    on a server's session: behind a transaction pooler the next client would inherit it.
    """
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
    engine.dispose()


def switch_to_wal(connection: DBAPIConnection, where: str) -> None:
    """Switch an SQLite file to write-ahead logging, outside of any transaction.

    SQLite does not always wait here: the switch may fail immediately while another connection is
    busy. So it is retried. It uses the driver's connection, because SQLAlchemy would begin a
    transaction, in which the mode cannot change.

    Raises:
        StoreError: when the file stays busy for longer than 30 s.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    cursor = connection.cursor()
    try:
        while True:
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise StoreError(
                        "the store cannot be shared between processes",
                        where=where,
                        found=str(error),
                        next_step="close the program that keeps it open",
                    ) from error
                time.sleep(WAL_RETRY_S)
    finally:
        cursor.close()


def _build_sqlite_engine(url: URL) -> Engine:
    engine = create_engine(url)
    event.listen(engine, "connect", _disable_driver_transactions)
    event.listen(engine, "begin", _begin_transaction)
    tune_sqlite(engine)
    return engine


def _set_socket_timeouts(connection: Any, _record: object) -> None:
    """Set `SERVER_TIMEOUTS` on the socket, for a driver that has no options for them.

    A limit on the time to answer would also end a long migration.
    """
    raw = getattr(connection, "_sock", None)
    if not isinstance(raw, socket.socket) or raw.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for option, name in SOCKET_OPTIONS.items():
        if hasattr(socket, option):  # not every system has all of them
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), SERVER_TIMEOUTS[name])


def _set_pragmas(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _disable_driver_transactions(connection: Any, _record: object) -> None:
    # The driver's own BEGIN comes too late: a SELECT before it would not be in the transaction.
    connection.isolation_level = None


def _begin_transaction(connection: Connection) -> None:
    # A transaction that reads first and writes later fails when another one wrote in between.
    # Taking the write lock at the start makes it wait instead.
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
