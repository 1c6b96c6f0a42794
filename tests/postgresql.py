"""Schemas on a PostgreSQL server: each is a store of its own, and faster made than a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg


@contextmanager
def schema(server: str, admin: psycopg.Connection, name: str) -> Iterator[str]:
    """The address of a fresh, empty schema, which is dropped at the end.

    Args:
        server: the address of a database on the server.
        admin: connected to the same database, as its owner.
        name: of the schema.
    """
    separator = "&" if "?" in server else "?"
    admin.execute(f"CREATE SCHEMA {name}")
    yield f"{server}{separator}options=-csearch_path%3D{name}"
    admin.execute(f"DROP SCHEMA {name} CASCADE")
