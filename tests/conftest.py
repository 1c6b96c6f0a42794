"""Fixtures that any test may use: real databases, a fresh one for each test, and records to fill them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from spaces.records import EpochRecord
from storage.database import database as database_module
from storage.location import StoreLocation
from storage.store import Store
from tests import parallel
from tests.mariadb import MariaDB, OwnMariaDB
from tests.postgresql import PostgresServer, schema, start_server
from tests.waiting import PATIENCE_S

# How long an example takes says nothing about the code on a machine that others use as well.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("search")

# A busy machine may let a test stand still for seconds, which is no outage of its database.
database_module.SHORT_OUTAGE_S = PATIENCE_S

_names = count()

RECORD = EpochRecord(
    epoch=1,
    train_loss=0.8,
    ce_loss=0.7,
    dice_loss=0.9,
    val_loss=0.85,
    val_ce=0.75,
    metric=0.45,
    class_metric=(0.9, None, 0.0),
    metrics={"miou": 0.45, "accuracy": 0.8},
    lr=1e-5,
    ce_weight=0.6,
    dice_weight=0.4,
    smooth=1.0,
    weight_ratio=100.0,
    grad_norm_median=1.5,
    grad_norm_max=9.0,
    clipped_share=0.25,
    steps=100,
    seconds=12.5,
    samples_per_s=64.0,
    peak_mib=2048.0,
)


def pytest_configure(config: pytest.Config) -> None:
    """Before anything counts the cores."""
    parallel.share_cores()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """So that no slow fixture is made twice."""
    parallel.check_files(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> parallel.FileScheduling:
    """Which process runs which test."""
    return parallel.FileScheduling(config, log)


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the tests' own, on a socket; parallel test processes share one."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    server = start_server(f"search-pg-{run[:12]}")
    yield server
    server.cleanup()


@pytest.fixture(scope="session")
def own_postgres_admin(own_postgres: PostgresServer) -> Iterator[psycopg.Connection]:
    """A connection of that server's owner. What the tests write need not survive a power cut."""
    with psycopg.connect(own_postgres.get_uri(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET fsync = off")
        admin.execute("SELECT pg_reload_conf()")
        yield admin


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> str:
    """The address of a real PostgreSQL server: SEARCH_TEST_POSTGRESQL, else the tests' own."""
    given = os.environ.get("SEARCH_TEST_POSTGRESQL")
    return given or request.getfixturevalue("own_postgres").get_uri()


@pytest.fixture(scope="session")
def postgres_admin(request: pytest.FixtureRequest, postgres: str) -> Iterator[psycopg.Connection]:
    """A connection of the owner of that server."""
    if not os.environ.get("SEARCH_TEST_POSTGRESQL"):
        yield request.getfixturevalue("own_postgres_admin")
        return
    with psycopg.connect(postgres, autocommit=True) as admin:
        yield admin


@pytest.fixture
def postgresql_url(postgres: str, postgres_admin: psycopg.Connection) -> Iterator[str]:
    """The address of a fresh, empty schema; a database would take a hundred times as long."""
    name = f"test_{os.getpid()}_{next(_names)}"
    with schema(postgres, postgres_admin, name) as url:
        yield url


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A real MariaDB server: SEARCH_TEST_MARIADB, else one of the tests' own on a socket."""
    if given := os.environ.get("SEARCH_TEST_MARIADB"):
        yield MariaDB(given)
        return
    if OwnMariaDB.missing():
        pytest.skip(OwnMariaDB.missing())
    server = OwnMariaDB()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> Iterator[str]:
    """The address of a fresh, empty database."""
    name = f"test_{os.getpid()}_{next(_names)}"
    mariadb.create(name)
    yield mariadb.url(name)
    mariadb.execute(f"DROP DATABASE {name}")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of an SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'search.db'}"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The address of a fresh database: a test that takes it runs on SQLite, on PostgreSQL, and on MariaDB where that is installed."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A fresh store: a test that takes it runs on every kind of database."""
    with StoreLocation.parse(store_url).open() as opened:
        yield opened


@pytest.fixture
def make_record() -> Callable[..., EpochRecord]:
    """Builds a healthy epoch record, of three classes of which the second is absent, with the changes given."""

    def make(epoch: int = 1, **changes: Any) -> EpochRecord:
        return replace(RECORD, epoch=epoch, **changes)

    return make
