"""What the rooms of the store share: the database, and what is known of Optuna's tables in it."""

from __future__ import annotations

from storage.database.engine import Database
from storage.tables.optuna import OptunaTables


class Room:
    """One subject of the store. Its methods are transactions of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._optuna = OptunaTables()
