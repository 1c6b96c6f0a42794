"""The version of our tables: created when there are none, refused when they are not the ones that this program knows."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from spaces.errors import StoreError
from storage.database.engine import Database
from storage.database.sqlite_file import no_store

HEAD = "0003"
"""The newest migration. It is written down here, for Alembic takes longer to import than the check takes to run."""
VERSION_TABLE = "search_alembic_version"
MIGRATIONS = Path(__file__).parents[1] / "migrations"


def ensure(database: Database, *, create: bool = True) -> None:
    """Makes sure that our tables are there, in the version of this program; any number of processes may do so at once.

    Raises:
        StoreError: when the tables are newer or older, or when there are none and `create` is false.
    """
    with database.reading() as connection:
        found = version(connection)
    if found is None and not create:
        raise nothing_there(database.where)
    if found is None:
        _create(database)
    elif found != HEAD and _settled(database) != HEAD:
        raise _mismatch(found, database.where)
    database.share()


def _settled(database: Database) -> str | None:
    """The version once nobody is making the tables: on MySQL every step of that can be seen, and is of a version of its own."""
    with database.writing() as connection:
        database.lock_schema(connection)
        return version(connection)


def nothing_there(where: str) -> StoreError:
    """The error for a database that is no store."""
    return no_store(where, "a database without our tables")


def check_upgradable(connection: Connection, where: str) -> str:
    """The version of the tables, which is this program's or an older one.

    Raises:
        StoreError: when there are no tables of ours, or newer ones.
    """
    found = version(connection)
    if found is None:
        raise nothing_there(where)
    if found > HEAD:
        raise _mismatch(found, where)
    return found


def upgrade(connection: Connection) -> None:
    """Brings the tables of an older program to the version of this one, within the caller's transaction."""
    _migrate(connection)


def version(connection: Connection) -> str | None:
    """The version of our tables in the database, None when there are none. Versions are four digits, so they sort as text."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(
        text(f"SELECT version_num FROM {VERSION_TABLE}")
    ).scalar()
    return found


def _create(database: Database) -> None:
    with database.writing() as connection:
        database.lock_schema(connection)
        if version(connection) is None:  # nobody was faster
            _migrate(connection)


def _migrate(connection: Connection, to: str = "head") -> None:
    from alembic import command  # slow to import, and needed once in the life of a store
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, to)


def _mismatch(found: str, where: str) -> StoreError:
    program = f"version {HEAD}, which this program reads and writes"
    if found > HEAD:
        return StoreError(
            "the store was made by a newer program",
            where=where,
            found=f"version {found}",
            allowed=program,
            next_step="install that newer program, or choose another store",
        )
    return StoreError(
        "the store was made by an older program",
        where=where,
        found=f"version {found}",
        allowed=program,
        next_step="search store migrate --store URL, which makes a copy first",
    )
