"""SQLite, PostgreSQL and MySQL: every difference of transactions is in this file, that of types in `columns`, of upkeep in `upkeep`.

MariaDB counts as MySQL here and everywhere: it is reached by the same driver, and what only one of them can is not used.
"""

from __future__ import annotations

import math
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, CursorResult, Double, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from spaces.errors import StoreBusyError, StoreError, StoreUnreachableError
from storage.database.errors import spoken
from storage.database.url import MYSQL_DRIVER, find_password

CONNECT_TIMEOUT_S = 4
PATIENCE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Options of libpq: a server that fell silent without closing its connections is given up after so long, and not after hours."""

BUSY_TIMEOUT_S = 30
BLIP_S = 5.0
"""An outage no longer than this costs nobody a lease, which is extended often enough to outlast it."""
_SCHEMA_LOCK = 0x5EA2C4  # any number will do, if only all of us take the same
_MYSQL_LOCK = "CONCAT('search ', DATABASE())"
_LOCKED = "search schema lock"
_WRITES = "search_writes"


class now(FunctionElement[float]):  # a function of SQL, so written as one
    """The time on the database's clock as seconds since 1970: the only clock that leases are judged by.

    It is the time at which the statement runs: PostgreSQL's `now()` is the start of the transaction, and stale after a wait for a lock.
    """

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(_element: now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


@compiles(now, "mysql")
def _now_mysql(_element: now, _compiler: SQLCompiler, **_options: Any) -> str:
    # NOW() is the start of the statement, and stale after a wait for a lock. The sum makes a double of a decimal.
    return "(UNIX_TIMESTAMP(SYSDATE(6)) + 0e0)"


def build_engine(url: URL) -> Engine:
    """Make an engine for a URL that `parse_url` returned. It does not connect yet."""
    if url.drivername == "sqlite":
        engine = create_engine(url)
        event.listen(engine, "connect", _take_over_transactions)
        event.listen(engine, "begin", _begin)
        tune(engine)
        return engine
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S} | (
        {} if url.drivername == MYSQL_DRIVER else PATIENCE
    )
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    options: dict[str, Any] = {}
    if url.drivername == MYSQL_DRIVER:
        # Its own default, a snapshot for each transaction, would count trials as they were before the wait for a lock.
        options["isolation_level"] = "READ COMMITTED"
        # UTC, for the local time of an hour in autumn is that of two.
        arguments["init_command"] = (
            f"SET time_zone = '+00:00', innodb_lock_wait_timeout = {BUSY_TIMEOUT_S}"
        )
    # One connection a worker, so that hundreds fit on one server: its lease's thread uses the same one between two epochs,
    # and when both write at once a second one is made and closed again. It is held while the training goes on, however long
    # an epoch takes, for the lease is extended every few seconds: a new connection for each, which on PostgreSQL is a
    # process, would cost the server more than an idle one does. One that a firewall or a restart cut in the meantime is
    # noticed before use.
    engine = create_engine(
        url, connect_args=arguments, pool_size=1, max_overflow=5, pool_pre_ping=True, **options
    )
    if url.drivername == MYSQL_DRIVER:
        event.listen(engine, "connect", _give_up_in_time)
    return engine


def _give_up_in_time(connection: Any, _record: object) -> None:
    """What `PATIENCE` asks of libpq, for a driver that has no options for it. A time limit for answers would end a long migration, too."""
    held = getattr(connection, "_sock", None)
    if isinstance(held, socket.socket) and held.family in (socket.AF_INET, socket.AF_INET6):
        for option, seconds in (
            ("TCP_KEEPIDLE", "keepalives_idle"),
            ("TCP_KEEPINTVL", "keepalives_interval"),
            ("TCP_KEEPCNT", "keepalives_count"),
            ("TCP_USER_TIMEOUT", "tcp_user_timeout"),
        ):
            if hasattr(socket, option):  # not every system has all of them
                held.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), PATIENCE[seconds])


def tune(engine: Engine) -> None:
    """Makes an engine for SQLite, also one that another library built, wait instead of fail, and commit without waiting for the disk.

    Connections that the engine holds idle are closed, so that every one it uses from now on is tuned. How the engine
    begins its transactions stays as it is. Write-ahead logging is a property of the SQLite file: `Database.share` sets it.
    Nothing is set for a session on a server: behind a pooler of transactions the next client would inherit it.
    """
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
    engine.dispose()


def _set_pragmas(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _take_over_transactions(connection: Any, _record: object) -> None:
    connection.isolation_level = (
        None  # the driver's own BEGIN comes too late: a SELECT before it would not be covered
    )


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once when another wrote in between; taking the write
    # lock at the start makes it wait its turn.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _switch_to_wal(connection: DBAPIConnection, where: str) -> None:
    """Asks again and again, because SQLite does not wait here: the switch fails at once while another connection is busy.

    It goes past SQLAlchemy, which would begin a transaction first, and within one the mode cannot be changed.
    """
    cursor, deadline = connection.cursor(), time.monotonic() + BUSY_TIMEOUT_S
    try:
        while True:
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise StoreError(
                        "the store cannot be shared",
                        where=where,
                        found=str(error),
                        next_step="close what holds it open",
                    ) from error
                time.sleep(0.02)
    finally:
        cursor.close()


@contextmanager
def _schema_unlocked(connection: Connection) -> Iterator[None]:
    """MySQL commits before every change of a table, so its lock is one of the connection, and does not end with the transaction."""
    try:
        yield
    finally:
        if connection.info.pop(_LOCKED, False):
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK({_MYSQL_LOCK})")


def _check_character_set(connection: Connection, where: str) -> None:
    """Tables take over what the database is set to, Optuna's as well: it must know all letters, and tell names that differ in case apart."""
    name, letters, order = connection.exec_driver_sql(
        "SELECT DATABASE(), @@character_set_database, @@collation_database"
    ).one()
    if letters != "utf8mb4" or not order.endswith(("_bin", "_cs")):
        raise StoreError(
            "the database cannot hold every text",
            where=where,
            found=f"character set {letters}, collation {order}",
            allowed="character set utf8mb4, with a collation that ends in _bin or _cs",
            next_step=f"ALTER DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, before a store is made in it",
        )


def _clock() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps, where there is one."""
    return (
        time.clock_gettime(time.CLOCK_BOOTTIME)
        if hasattr(time, "CLOCK_BOOTTIME")
        else time.monotonic()
    )


def inserted_id(result: CursorResult[Any]) -> int:
    """The id that the database gave to the one row that was inserted."""
    key: Any = result.inserted_primary_key
    return int(key[0])


class Database:
    """A database and its transactions. Whatever it says when it fails becomes a `StoreError`.

    `made` tells that it is a file which was not there before.
    """

    def __init__(self, url: URL, where: str) -> None:
        self.engine = build_engine(url)
        self.made = self.engine.dialect.name == "sqlite" and not self._file.exists()
        self.where = where
        self._password = find_password(url)
        self._answered_at, self._failing, self._back_at = _clock(), False, -math.inf
        # Whatever a server or a role is set to: a count after a wait for a lock has to see what the wait was for.
        committed = (
            {"isolation_level": "READ COMMITTED"}
            if self.engine.dialect.name == "postgresql"
            else {}
        )
        self._writer = self.engine.execution_options(**{_WRITES: True}, **committed)
        whole = (
            {} if self.engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        )  # SQLite has no other
        # One query needs no transaction around it, which would cost two round trips more; several see different states anyway.
        single = (
            {"isolation_level": "AUTOCOMMIT"} if self.engine.dialect.name == "postgresql" else {}
        )
        self._reader = self.engine.execution_options(**single)
        self._snapshots = self.engine.execution_options(**whole)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Queries, each of which may see the database in a later state than the one before.

        Raises:
            StoreError: when the database fails.
        """
        with (
            self._noticing(),
            spoken(self.where, self._password),
            self._reader.connect() as connection,
        ):
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A transaction in which every query sees the database as it was at the first one.

        Raises:
            StoreError: when the database fails.
        """
        with (
            self._noticing(),
            spoken(self.where, self._password),
            self._snapshots.connect() as connection,
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or undone by an exception.

        Raises:
            StoreError: when the database fails.
        """
        with (
            self._noticing(),
            spoken(self.where, self._password),
            self._writer.connect() as connection,
            _schema_unlocked(connection),
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Keeps in mind when the database was away. One connection that was cut, and made anew at once, is no such time.

        Nor need anything fail: a database that stood still, or a machine that slept, shows in the time between two answers,
        for who holds leases or looks after them asks every few seconds.
        """
        try:
            yield
        except StoreBusyError:
            raise
        except StoreUnreachableError:
            self._failing = True
            raise
        now_s = _clock()
        if now_s - self._answered_at > BLIP_S:
            self._back_at = now_s
        self._answered_at, self._failing = now_s, False

    def answered_for(self, seconds: float) -> bool:
        """Whether the database was there for the last so many seconds, as far as this process asked it."""
        return not self._failing and _clock() - self._back_at > seconds

    def lock_schema(self, connection: Connection) -> None:
        """Makes other processes that create the schema wait for this transaction; on SQLite every writer does so anyway."""
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
        elif connection.dialect.name == "mysql":
            _check_character_set(connection, self.where)
            if (
                connection.exec_driver_sql(
                    f"SELECT GET_LOCK({_MYSQL_LOCK}, {BUSY_TIMEOUT_S})"
                ).scalar()
                != 1
            ):
                raise StoreError(
                    "the store is being made or changed by another process",
                    where=self.where,
                    next_step="try again",
                )
            connection.info[_LOCKED] = True

    def share(self) -> None:
        """Lets many processes use an SQLite file at once, by write-ahead logging, which the file remembers.

        Raises:
            StoreError: when the file stays busy for longer than 30 s.
        """
        if self.engine.dialect.name == "sqlite":
            with spoken(self.where, self._password), self.engine.connect() as connection:
                _switch_to_wal(connection.connection, self.where)

    def remove(self, unless: str) -> bool:
        """Removes the SQLite file, unless the query finds a row, or anybody else has the file open. False when it stays."""
        if self.engine.dialect.name != "sqlite":
            return False
        self.close()
        connection = sqlite3.connect(self._file, timeout=0, isolation_level=None)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute(
                "PRAGMA journal_mode = DELETE"
            )  # fails at once while another connection is open
            if connection.execute(unless).fetchone() is None:
                self._file.unlink()
                return True
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            pass
        finally:
            connection.close()
        return False

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()

    @property
    def _file(self) -> Path:
        return Path(str(self.engine.url.database))
