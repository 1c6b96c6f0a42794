"""The fault campaign's proxy on a real PostgreSQL: it passes on, and loses the answer to a commit that took place."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from benchmarks.chaos import proxy as module
from benchmarks.chaos.proxy import Proxy, proxy
from tests.postgresql import PostgresServer
from tests.waiting import PATIENCE_S, until


@pytest.fixture
def between(own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, as patient as a busy machine needs; a socket's path must be short."""
    monkeypatch.setattr(module, "WAIT_S", PATIENCE_S)
    monkeypatch.setattr(module, "ANSWER_S", PATIENCE_S)
    with (
        tempfile.TemporaryDirectory() as folder,
        proxy(own_postgres.get_uri(), Path(folder)) as kept,
    ):
        yield kept


@pytest.fixture
def table(own_postgres_admin: psycopg.Connection) -> Iterator[str]:
    """An empty table."""
    name = f"heard_{os.getpid()}"  # parallel test processes share the server
    own_postgres_admin.execute(f"CREATE TABLE {name} (word text)")
    yield name
    own_postgres_admin.execute(f"DROP TABLE {name}")


def test_passes_on(between: Proxy, table: str, own_postgres_admin: psycopg.Connection) -> None:
    """Without a request a transaction takes place, and says so."""
    with psycopg.connect(between.url) as connection:
        connection.execute(f"INSERT INTO {table} VALUES ('yes')")
    assert own_postgres_admin.execute(f"SELECT word FROM {table}").fetchall() == [("yes",)]


def test_answer_lost(between: Proxy, table: str, own_postgres_admin: psycopg.Connection) -> None:
    """On request a transaction takes place, and the client that sent it sees a cut connection; the next one is left alone."""
    asked: list[bool] = []
    thread = threading.Thread(target=lambda: asked.append(between.lose_an_answer()))
    connection = psycopg.connect(between.url)
    connection.execute(f"INSERT INTO {table} VALUES ('unheard')")
    thread.start()
    until(lambda: between.armed, "the next answer is to be lost")
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    thread.join()
    assert asked == [True]
    assert own_postgres_admin.execute(f"SELECT word FROM {table}").fetchall() == [("unheard",)]
    with psycopg.connect(between.url) as another:
        another.execute(f"INSERT INTO {table} VALUES ('heard')")
    assert len(own_postgres_admin.execute(f"SELECT word FROM {table}").fetchall()) == 2
