"""What keeps a database in order, in the words of each kind: its size, whether it is whole, a copy of its file, and tidying up."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, inspect, select

from spaces.errors import StoreError
from storage.database.engine import Database, now
from storage.database.errors import spoken
from storage.rows import HELD_STATES
from storage.tables import schema
from storage.tables.models import PREFIX, Study, Trial
from storage.tables.optuna_version import TABLES

_SIZES = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": "SELECT COALESCE(SUM(pg_total_relation_size(to_regclass(name))), 0) FROM unnest(CAST(:names AS text[])) AS name",
    "mysql": "SELECT COALESCE(SUM(data_length + index_length), 0) FROM information_schema.tables WHERE table_schema = DATABASE()",
}


def kind(database: Database) -> str:
    """`sqlite`, `postgresql` or `mysql`, which stands for MariaDB, too."""
    name = database.engine.dialect.name
    return "mysql" if name == "mariadb" else name


def size_bytes(connection: Connection) -> int:
    """How large our tables and Optuna's are, on SQLite the file."""
    name = connection.dialect.name
    asked = sa.text(_SIZES["mysql" if name == "mariadb" else name])
    given = {"names": tables(connection)} if name == "postgresql" else {}
    return int(connection.execute(asked, given).scalar_one())


def tables(connection: Connection) -> list[str]:
    """The names of our tables and of Optuna's that are there."""
    return sorted(
        name
        for name in inspect(connection).get_table_names()
        if name.startswith(PREFIX) or name in TABLES
    )


def damage(database: Database) -> list[str]:
    """What SQLite finds broken in its file; a server looks after its own."""
    if kind(database) != "sqlite":
        return []
    try:
        with database.reading() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars().all()
    except StoreError as problem:
        if "damaged" not in problem.what:
            raise
        found = [problem.found]
    return (
        []
        if found == ["ok"]
        else [f"the file is damaged: {' '.join(line.split())}" for line in found]
    )


def held_trials(connection: Connection, study_ids: Sequence[int] | None = None) -> list[str]:
    """Who works on what at this moment, in all studies or in some. It asks for columns that every version of our tables has."""
    holds = select(Study.name, Trial.number, Trial.worker).join(Study, Study.id == Trial.study_id)
    if study_ids is not None:
        holds = holds.where(Study.id.in_(study_ids))
    rows = connection.execute(
        holds.where(Trial.state.in_(HELD_STATES), Trial.lease_until >= now()).order_by(Trial.id)
    ).all()
    return [
        f"study {row.name}, trial {'?' if row.number is None else row.number}: worker {row.worker}"
        for row in rows
    ]


def refuse_held(
    connection: Connection, where: str, done: str, study_ids: Sequence[int] | None = None
) -> None:
    """Makes sure that nobody works on the store.

    Raises:
        StoreError: with those who do.
    """
    held = held_trials(connection, study_ids)
    if held:
        shown = "; ".join(held[:5]) + (f"; and {len(held) - 5} more" if len(held) > 5 else "")
        step = "stop the workers with Ctrl-C, which gives their trials back; a dead worker's lease ends by itself within ten seconds"
        raise StoreError(
            f"the store cannot be {done} while workers hold trials",
            where=where,
            found=shown,
            next_step=step,
        )


def back_up(database: Database, file: Path) -> None:
    """Copies an SQLite database into a new file, whole, whatever others write meanwhile.

    Raises:
        StoreError: when the file is there already, or cannot be written.
    """
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as problem:
        what = (
            "the copy is there already"
            if isinstance(problem, FileExistsError)
            else "the copy cannot be written"
        )
        step = (
            f"move {file} away, or say --no-backup"
            if isinstance(problem, FileExistsError)
            else "make room, or say --no-backup"
        )
        raise StoreError(
            what, where=database.where, found=f"{file}: {problem.strerror}", next_step=step
        ) from None
    try:
        with (
            closing(sqlite3.connect(str(database.engine.url.database))) as source,
            closing(sqlite3.connect(file)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as problem:
        file.unlink(missing_ok=True)
        raise StoreError(
            "the copy cannot be written",
            where=database.where,
            found=str(problem),
            next_step="make room, and try again",
        ) from problem


def tidy(database: Database) -> None:
    """Gives the room of deleted rows back, and has the database count its tables anew.

    Raises:
        StoreError: when the database fails, such as an SQLite file that others are using.
    """
    # Such statements do not run within a transaction, so they go past the one that SQLAlchemy begins.
    with database.reading() as connection:
        names = tables(connection)
    with spoken(database.where, None), closing(database.engine.raw_connection()) as raw:
        driver = raw.driver_connection
        assert driver is not None
        if kind(database) == "postgresql":
            driver.autocommit = True
        cursor = raw.cursor()
        for statement in _tidying(kind(database), names):
            cursor.execute(statement)
            cursor.fetchall() if cursor.description else None
        cursor.close()
        raw.invalidate()  # it is not as the engine made it


def _tidying(name: str, names: list[str]) -> list[str]:
    if name == "sqlite":
        return ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"]
    if name == "postgresql":
        return [f'VACUUM (ANALYZE) "{table}"' for table in names]
    return [
        f"{word} TABLE {', '.join(f'`{table}`' for table in names)}"
        for word in ("OPTIMIZE", "ANALYZE")
        if names
    ]


def lock_against_claims(database: Database, connection: Connection) -> None:
    """No trial is claimed until the transaction ends. SQLite's writers come one at a time anyway."""
    database.lock_schema(connection)
    if schema.version(connection) is not None:
        connection.execute(select(Study.id).with_for_update()).all()
