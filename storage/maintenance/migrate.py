"""Brings a store of an older program to the version of this one."""

from __future__ import annotations

from storage.location import StoreLocation
from storage.maintenance.vacuum import lock_against_claims, refuse_held
from storage.tables.schema import check_upgradable, upgrade


def upgrade_store(location: StoreLocation) -> None:
    """Brings a store of an older program to the version of this one; a store of this version stays as it is.

    Raises:
        StoreError: when there is no store, or a newer one, or workers hold trials, or the database cannot be reached or written.
    """
    database = location.open_database()
    try:
        with database.writing() as connection:
            lock_against_claims(database, connection)
            check_upgradable(connection, database.where)
            refuse_held(connection, database.where, "migrated")
            upgrade(connection)
    finally:
        database.close()
