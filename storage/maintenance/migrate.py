"""Upgrade the tables of an older program."""

from __future__ import annotations

from contextlib import closing

from storage.location import StoreLocation
from storage.maintenance.database_upkeep import lock_against_claims, refuse_active
from storage.tables.schema_version import check_upgradable, upgrade_tables


def upgrade_store(location: StoreLocation) -> None:
    """Upgrade our tables to this program's version; a store of this version is not changed.

    Raises:
        StoreError: when there is no store, or a newer one, workers own trials, or the database
            cannot be reached or written.
    """
    with closing(location.open_database()) as database, database.writing() as connection:
        lock_against_claims(database, connection)
        check_upgradable(connection, database.where)
        refuse_active(connection, database.where, "migrated")
        upgrade_tables(connection)
