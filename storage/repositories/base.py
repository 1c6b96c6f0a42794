"""`Repository`: base class of the store's repositories."""

from __future__ import annotations

from storage.database.engine import Database
from storage.tables.optuna import OptunaTables


class Repository:
    """One subject of the store. Its methods are transactions of their own.

    Args:
        database: where they are run.
        optuna: what is known of Optuna's tables in it; all repositories of a store share it.
    """

    def __init__(self, database: Database, optuna: OptunaTables) -> None:
        self._database = database
        self._optuna = optuna
