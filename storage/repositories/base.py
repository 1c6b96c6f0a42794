"""`Repository`: base class of the store's repositories."""

from __future__ import annotations

from storage.database.database import Database
from storage.tables.optuna_tables import OptunaTables


class Repository:
    """One subject of the store. Each of its methods is a transaction.

    Args:
        database: the store's.
        optuna: Optuna's tables in it; all repositories of a store share the object.
    """

    def __init__(self, database: Database, optuna: OptunaTables) -> None:
        self._database = database
        self._optuna = optuna
