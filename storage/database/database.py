"""A database, its transactions and its clock."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, CursorResult, Double, Engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from spaces.errors import StoreBusyError, StoreError, StoreUnreachableError
from storage.database.engines import BUSY_TIMEOUT_S, WRITES, build_engine, switch_to_wal
from storage.database.errors import translate_errors
from storage.database.url import find_password

SHORT_OUTAGE_S = 5.0
"""A shorter outage costs no worker its lease, because leases are renewed often enough."""

_SCHEMA_LOCK = 0x5EA2C4  # any number will do, as long as every process uses the same
_MYSQL_LOCK = "CONCAT('search ', DATABASE())"
_LOCKED = "search schema lock"


class now(FunctionElement[float]):  # a function of SQL, so written as one
    """The time on the database's clock in seconds since 1970; every lease is judged by it.

    It is the time at which the statement runs. PostgreSQL's `now()` is the start of the
    transaction, which is stale after a wait for a lock.
    """

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _compile_sqlite_now(_element: now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _compile_postgresql_now(_element: now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


@compiles(now, "mysql")
def _compile_mysql_now(_element: now, _compiler: SQLCompiler, **_options: Any) -> str:
    # NOW() is the start of the statement, which is stale after a wait for a lock. The sum turns
    # a decimal into a double.
    return "(UNIX_TIMESTAMP(SYSDATE(6)) + 0e0)"


class Database:
    """A database and its transactions. Its errors are raised as `StoreError`.

    Args:
        url: as `parse_url` returned it.
        where: the URL without the password, for errors.

    Attributes:
        created: whether it is a file that did not exist before.
    """

    def __init__(self, url: URL, where: str) -> None:
        self.engine = build_engine(url)
        self.where = where
        self.created = self.engine.dialect.name == "sqlite" and not self._file.exists()
        self._password = find_password(url)
        self._answered_at = _monotonic_s()
        self._is_failing = False
        self._back_at = -math.inf
        self._writer = _make_writer(self.engine)
        self._reader = _make_reader(self.engine)
        self._snapshots = _make_snapshots(self.engine)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run queries, each of which may see a later state of the database than the one before.

        Raises:
            StoreError: when the database fails.
        """
        with self._connecting(self._reader) as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Run queries that all see the database as it was at the first one.

        Raises:
            StoreError: when the database fails.
        """
        with self._connecting(self._snapshots) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Run a transaction that is committed at the end, or rolled back by an exception.

        Raises:
            StoreError: when the database fails.
        """
        with (
            self._connecting(self._writer) as connection,
            _releasing_schema_lock(connection),
            connection.begin(),
        ):
            yield connection

    def was_available(self, seconds: float) -> bool:
        """Whether the database was available for the last so many seconds.

        It is known only as far as this process sent requests.
        """
        return not self._is_failing and _monotonic_s() - self._back_at > seconds

    def lock_schema(self, connection: Connection) -> None:
        """Make other processes that create the tables wait until this transaction ends.

        On SQLite every writer waits anyway.

        Raises:
            StoreError: when another process keeps the lock for longer than 30 s, or a MySQL
                database has a character set that cannot store every text.
        """
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
        elif connection.dialect.name == "mysql":
            _check_character_set(connection, self.where)
            lock = f"SELECT GET_LOCK({_MYSQL_LOCK}, {BUSY_TIMEOUT_S})"
            if connection.exec_driver_sql(lock).scalar() != 1:
                raise StoreError(
                    "another process is creating or changing the store",
                    where=self.where,
                    next_step="try again",
                )
            connection.info[_LOCKED] = True

    def enable_wal(self) -> None:
        """Let many processes use an SQLite file at once, by a write-ahead log.

        Does nothing on a server. The file remembers the mode.

        Raises:
            StoreError: when the file stays busy for longer than 30 s.
        """
        if self.engine.dialect.name == "sqlite":
            with (
                translate_errors(self.where, self._password),
                self.engine.connect() as connection,
            ):
                switch_to_wal(connection.connection, self.where)

    def delete_file(self, unless: str) -> bool:
        """Delete the SQLite file if a query finds no row and no other connection is open.

        Args:
            unless: the query.

        Returns:
            Whether the file was deleted.
        """
        if self.engine.dialect.name != "sqlite":
            return False
        self.close()
        connection = sqlite3.connect(self._file, timeout=0, isolation_level=None)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            # Fails immediately while another connection is open.
            connection.execute("PRAGMA journal_mode = DELETE")
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
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _connecting(self, engine: Engine) -> Iterator[Connection]:
        with (
            self._tracking_outages(),
            translate_errors(self.where, self._password),
            engine.connect() as connection,
        ):
            yield connection

    @contextmanager
    def _tracking_outages(self) -> Iterator[None]:
        """Remember when the database was unavailable.

        One connection that was cut, and immediately made again, is no outage. An outage need not
        raise an error either: a database that was suspended, or a machine that slept, shows in the
        time between two answers, because a process with leases sends requests every few seconds.
        """
        try:
            yield
        except StoreBusyError:
            raise
        except StoreUnreachableError:
            self._is_failing = True
            raise
        answered_at = _monotonic_s()
        if answered_at - self._answered_at > SHORT_OUTAGE_S:
            self._back_at = answered_at
        self._answered_at = answered_at
        self._is_failing = False

    @property
    def _file(self) -> Path:
        return Path(str(self.engine.url.database))


def inserted_id(result: CursorResult[Any]) -> int:
    """Return the id that the database assigned to the one row that was inserted."""
    key: Any = result.inserted_primary_key
    return int(key[0])


def _make_writer(engine: Engine) -> Engine:
    options: dict[str, Any] = {WRITES: True}
    if engine.dialect.name == "postgresql":
        # Whatever the default of the server or the role is: after a wait for a lock, a count has
        # to see what the other transaction wrote.
        options["isolation_level"] = "READ COMMITTED"
    return engine.execution_options(**options)


def _make_reader(engine: Engine) -> Engine:
    if engine.dialect.name != "postgresql":
        return engine.execution_options()
    # A transaction around a single query would cost two more round trips, and several queries see
    # different states anyway.
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _make_snapshots(engine: Engine) -> Engine:
    if engine.dialect.name == "sqlite":  # it has no other level
        return engine.execution_options()
    return engine.execution_options(isolation_level="REPEATABLE READ")


@contextmanager
def _releasing_schema_lock(connection: Connection) -> Iterator[None]:
    """Release MySQL's schema lock at the end.

    MySQL commits before every change of a table, so the lock belongs to the connection and not to
    the transaction.
    """
    try:
        yield
    finally:
        if connection.info.pop(_LOCKED, False):
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK({_MYSQL_LOCK})")


def _check_character_set(connection: Connection, where: str) -> None:
    """Check MySQL's default character set and collation, which Optuna's tables and ours inherit.

    They have to store every letter, and to distinguish names that differ only in case.
    """
    name, letters, order = connection.exec_driver_sql(
        "SELECT DATABASE(), @@character_set_database, @@collation_database"
    ).one()
    if letters != "utf8mb4" or not order.endswith(("_bin", "_cs")):
        raise StoreError(
            "the database cannot store every text",
            where=where,
            found=f"character set {letters}, collation {order}",
            allowed="character set utf8mb4, with a collation that ends in _bin or _cs",
            next_step=(
                f"ALTER DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, "
                "before a store is created in it"
            ),
        )


def _monotonic_s() -> float:
    """Seconds of a clock that is never set and, where the system has one, runs during sleep."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
