"""The version of our tables: create them, check it, upgrade it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from spaces.errors import StoreError
from storage.database.database import Database
from storage.database.sqlite_file import no_store

HEAD = "0005"
"""The newest migration, as a constant because importing Alembic takes longer than the check."""

VERSION_TABLE = "search_alembic_version"
MIGRATIONS = Path(__file__).parents[1] / "migrations"


def ensure_tables(database: Database, *, create: bool = True) -> None:
    """Make sure that our tables exist in this program's version; safe for simultaneous processes.

    Raises:
        StoreError: when the tables are newer or older, or when there are none and `create` is
            false.
    """
    with database.reading() as connection:
        found = read_version(connection)
    if found is None and not create:
        raise make_no_tables_error(database.where)
    if found is None:
        _create_tables(database)
    elif found != HEAD and _read_version_locked(database) != HEAD:
        raise _make_version_error(found, database.where)
    database.enable_wal()


def _read_version_locked(database: Database) -> str | None:
    """Read the version while no process creates the tables.

    On MySQL the tables can be seen after every migration, with the version of that migration.
    """
    with database.writing() as connection:
        database.lock_schema(connection)
        return read_version(connection)


def make_no_tables_error(where: str) -> StoreError:
    """Make the error for a database that is not a store."""
    return no_store(where, "a database without our tables")


def check_upgradable(connection: Connection, where: str) -> str:
    """Check that the tables are of this program's version or an older one, and return it.

    Raises:
        StoreError: when the database has none of our tables, or newer ones.
    """
    found = read_version(connection)
    if found is None:
        raise make_no_tables_error(where)
    if found > HEAD:
        raise _make_version_error(found, where)
    return found


def upgrade_tables(connection: Connection) -> None:
    """Upgrade the tables to this program's version, within the caller's transaction."""
    _migrate(connection)


def read_version(connection: Connection) -> str | None:
    """Read the version of our tables: four digits, so that versions sort as text; None if none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(
        text(f"SELECT version_num FROM {VERSION_TABLE}")
    ).scalar()
    return found


def _create_tables(database: Database) -> None:
    with database.writing() as connection:
        database.lock_schema(connection)
        if read_version(connection) is None:  # no other process was faster
            _migrate(connection)


def _migrate(connection: Connection, to: str = "head") -> None:
    from alembic import command  # slow to import, and needed once per store
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, to)


def _make_version_error(found: str, where: str) -> StoreError:
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
