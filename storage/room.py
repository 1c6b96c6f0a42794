"""What the rooms of the store share: the database."""

from __future__ import annotations

from storage.engine import Database


class Room:
    """One subject of the store. Its methods are transactions of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database
