"""Maintenance of each kind of database: size, damage, backup, and freeing unused space."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, inspect, select

from spaces.errors import StoreDamagedError, StoreError
from storage.database.database import Database, now
from storage.database.errors import translate_errors
from storage.rows import ACTIVE_STATES
from storage.tables import schema_version
from storage.tables.models import PREFIX, Study, Trial
from storage.tables.optuna_names import TABLES

MAX_SHOWN = 5
"""Trials that are listed when they prevent an operation; the others are counted."""

_SIZES = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": (
        "SELECT COALESCE(SUM(pg_total_relation_size(to_regclass(name))), 0) "
        "FROM unnest(CAST(:names AS text[])) AS name"
    ),
    "mysql": (
        "SELECT COALESCE(SUM(data_length + index_length), 0) "
        "FROM information_schema.tables WHERE table_schema = DATABASE()"
    ),
}


def database_kind(database: Database) -> str:
    """Return `sqlite`, `postgresql` or `mysql`, which includes MariaDB."""
    name = database.engine.dialect.name
    return "mysql" if name == "mariadb" else name


def size_bytes(connection: Connection) -> int:
    """Return the size of Optuna's tables and ours, on SQLite the size of the file."""
    name = connection.dialect.name
    query = sa.text(_SIZES["mysql" if name == "mariadb" else name])
    parameters = {"names": list_tables(connection)} if name == "postgresql" else {}
    return int(connection.execute(query, parameters).scalar_one())


def list_tables(connection: Connection) -> list[str]:
    """Return the names of those of Optuna's tables and ours that exist."""
    return sorted(
        name
        for name in inspect(connection).get_table_names()
        if name.startswith(PREFIX) or name in TABLES
    )


def find_damage(database: Database) -> list[str]:
    """Return what SQLite finds damaged in its file. Servers check their own files."""
    if database_kind(database) != "sqlite":
        return []
    try:
        with database.reading() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars().all()
    except StoreDamagedError as problem:
        found = [problem.found]
    if found == ["ok"]:
        return []
    return [f"the file is damaged: {' '.join(line.split())}" for line in found]


def list_active(connection: Connection, study_ids: Sequence[int] | None = None) -> list[str]:
    """Describe the trials that workers own, in some studies or in all.

    It reads only columns that every version of our tables has.
    """
    query = select(Study.name, Trial.number, Trial.worker).join(Study, Study.id == Trial.study_id)
    if study_ids is not None:
        query = query.where(Study.id.in_(study_ids))
    is_owned = (Trial.state.in_(ACTIVE_STATES), Trial.lease_until >= now())
    rows = connection.execute(query.where(*is_owned).order_by(Trial.id)).all()
    return [
        f"study {row.name}, trial {'?' if row.number is None else row.number}: worker {row.worker}"
        for row in rows
    ]


def refuse_active(
    connection: Connection, where: str, operation: str, study_ids: Sequence[int] | None = None
) -> None:
    """Refuse an operation while workers own trials, in some studies or in all.

    Args:
        where: URL of the store, without the password.
        operation: such as `copied`, for the message.

    Raises:
        StoreError: with these trials and their workers.
    """
    active = list_active(connection, study_ids)
    if not active:
        return
    shown = "; ".join(active[:MAX_SHOWN])
    if len(active) > MAX_SHOWN:
        shown += f"; and {len(active) - MAX_SHOWN} more"
    raise StoreError(
        f"the store cannot be {operation} while workers own trials",
        where=where,
        found=shown,
        next_step=(
            "stop the workers with Ctrl-C, which releases their trials; "
            "the lease of a dead worker expires within ten seconds"
        ),
    )


def back_up(database: Database, file: Path) -> None:
    """Copy an SQLite database to a new file, consistently even while it is written.

    Raises:
        StoreError: when the file exists already, or cannot be written.
    """
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as problem:
        what = "the backup cannot be written"
        next_step = "free some space, or use --no-backup"
        if isinstance(problem, FileExistsError):
            what = "the backup file already exists"
            next_step = f"move {file} away, or use --no-backup"
        found = f"{file}: {problem.strerror}"
        raise StoreError(what, where=database.where, found=found, next_step=next_step) from None
    try:
        with (
            closing(sqlite3.connect(str(database.engine.url.database))) as source,
            closing(sqlite3.connect(file)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as problem:
        file.unlink(missing_ok=True)
        raise StoreError(
            "the backup cannot be written",
            where=database.where,
            found=str(problem),
            next_step="free some space, and try again",
        ) from problem


def free_space(database: Database) -> None:
    """Return the space of deleted rows to the disk, and update the statistics of the tables.

    Raises:
        StoreError: when the database fails, such as an SQLite file that is in use.
    """
    # These statements cannot run in a transaction, which SQLAlchemy would begin.
    with database.reading() as connection:
        names = list_tables(connection)
    with translate_errors(database.where, None), closing(database.engine.raw_connection()) as raw:
        driver = raw.driver_connection
        assert driver is not None
        if database_kind(database) == "postgresql":
            driver.autocommit = True
        cursor = raw.cursor()
        for statement in _make_statements(database_kind(database), names):
            cursor.execute(statement)
            if cursor.description:
                cursor.fetchall()
        cursor.close()
        raw.invalidate()  # its settings are no longer those of the engine


def lock_against_claims(database: Database, connection: Connection) -> None:
    """Keep workers from claiming trials until the transaction ends.

    On SQLite writers run one at a time anyway.
    """
    database.lock_schema(connection)
    if schema_version.read_version(connection) is not None:
        connection.execute(select(Study.id).with_for_update()).all()


def _make_statements(kind: str, tables: Sequence[str]) -> list[str]:
    if kind == "sqlite":
        return ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"]
    if kind == "postgresql":
        return [f'VACUUM (ANALYZE) "{table}"' for table in tables]
    if not tables:
        return []
    names = ", ".join(f"`{table}`" for table in tables)
    return [f"OPTIMIZE TABLE {names}", f"ANALYZE TABLE {names}"]
