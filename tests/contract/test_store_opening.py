"""The contract of opening a store: created, found, or refused without leaving anything behind."""

from __future__ import annotations

import os
import socket
import sqlite3
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.schema import SchemaItem

from spaces.errors import StoreBusyError, StoreError, StoreUnreachableError
from storage.database import database as database_module
from storage.database import engines
from storage.database.database import Database
from storage.database.engines import tune_sqlite
from storage.location import StoreLocation
from storage.maintenance.migrate import upgrade_store
from storage.rows import Outcome
from storage.tables import schema_version
from storage.tables.models import PREFIX, Table
from tests.mariadb import MariaDB
from tests.waiting import PATIENCE_S, until

optuna.logging.set_verbosity(optuna.logging.WARNING)

SECRET = "s3cret"


def traceback_of(error: BaseException) -> str:
    """The traceback of an error and its causes."""
    return "".join(traceback.format_exception(error))


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that any user can access, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@contextmanager
def no_rights() -> Iterator[None]:
    """Run without the permissions of root, which may write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def set_version(url: str, version: str) -> None:
    """Give a store the version of another program."""
    with (
        closing(StoreLocation.parse(url).open_database(create=True)) as database,
        database.writing() as connection,
    ):
        connection.execute(
            text(f"UPDATE {schema_version.VERSION_TABLE} SET version_num = :version"),
            {"version": version},
        )


def _is_ours(item: SchemaItem, name: str | None, kind: str, *_: object) -> bool:
    return kind != "table" or (
        str(name).startswith(PREFIX) and name != schema_version.VERSION_TABLE
    )


OURS: dict[str, Any] = {
    "compare_type": True,
    "include_object": _is_ours,
    "version_table": schema_version.VERSION_TABLE,
}
"""What Alembic compares with the models: our own tables, with the types of their columns."""


def lets_in(url: str) -> bool:
    """Whether a PostgreSQL server takes a connection at this address."""
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def tables(connection: Connection) -> set[str]:
    """The names of the tables."""
    return set(inspect(connection).get_table_names())


class TestOpen:
    def test_created_and_found(self, store_url: str) -> None:
        """A store is created once, and found from then on, also with `create=False`."""
        with StoreLocation.parse(store_url).open() as store:
            store.studies.register_study(1, "demo", {})

        with StoreLocation.parse(store_url).open(create=False) as store:
            assert [study.name for study in store.studies.list_studies()] == ["demo"]

    def test_relative_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path is not affected by a later change of the working directory."""
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        with closing(
            StoreLocation.parse("sqlite:///search.db").open_database(create=True)
        ) as database:
            monkeypatch.chdir(tmp_path / "elsewhere")
            schema_version.ensure_tables(database)

        assert sorted(path.name for path in tmp_path.rglob("*")) == ["elsewhere", "search.db"]

    def test_created_by_two(self, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that opens a store while another one creates it waits for it."""
        migrate, halfway, another = schema_version._migrate, threading.Event(), threading.Event()

        def stop_halfway(connection: Connection) -> None:
            migrate(connection)
            halfway.set()
            assert another.wait(PATIENCE_S)

        def noted(step: Callable[[Database], Any]) -> Callable[[Database], Any]:
            def call(database: Database) -> Any:
                if halfway.is_set():
                    another.set()
                return step(database)

            return call

        monkeypatch.setattr(schema_version, "_migrate", stop_halfway)
        for step in (
            "_create_tables",
            "_read_version_locked",
        ):  # both wait for a process that creates the tables
            monkeypatch.setattr(schema_version, step, noted(getattr(schema_version, step)))
        with ThreadPoolExecutor() as pool:
            first = pool.submit(StoreLocation.parse(store_url).open)
            assert halfway.wait(PATIENCE_S)
            second = pool.submit(StoreLocation.parse(store_url).open)
            for opened in (second, first):
                with opened.result() as store:
                    assert store.studies.list_studies() == []

    def test_odd_path(self, tmp_path: Path) -> None:
        """A path may have spaces, percent signs and '@'."""
        folder = tmp_path / "a b%41@c"
        folder.mkdir()

        StoreLocation.parse(f"sqlite:///{tmp_path}/a b%2541@c/search.db").open().close()

        assert [path.name for path in folder.iterdir()] == ["search.db"]

    def test_write_ahead_log(self, sqlite_url: str) -> None:
        """An SQLite store uses a write-ahead log, and waits for locks."""
        with (
            StoreLocation.parse(sqlite_url).open() as store,
            store._database.reading() as connection,
        ):
            pragmas = [
                connection.execute(text(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "busy_timeout", "synchronous")
            ]

        assert pragmas == ["wal", 30_000, 1]

    def test_switched_while_read(self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The switch to a write-ahead log waits for a program that is reading the file."""
        StoreLocation.parse(sqlite_url).open().close()
        begins, switch = threading.Event(), database_module.switch_to_wal

        def noted(connection: Any, where: str) -> None:
            begins.set()
            switch(connection, where)

        monkeypatch.setattr(database_module, "switch_to_wal", noted)
        with (
            closing(
                sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
            ) as reader,
            ThreadPoolExecutor() as pool,
        ):
            reader.execute("PRAGMA journal_mode = DELETE")
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM search_studies").fetchall()
            opened = pool.submit(StoreLocation.parse(sqlite_url).open)
            assert begins.wait(PATIENCE_S)
            time.sleep(0.3)
            assert not opened.done()
            reader.execute("COMMIT")
            with opened.result() as store, store._database.reading() as connection:
                assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"

    def test_models_are_migrations(self, store_url: str) -> None:
        """The migrations create the tables of the models; the last one is the required version."""
        StoreLocation.parse(store_url).open().close()
        with (
            closing(StoreLocation.parse(store_url).open_database(create=True)) as database,
            database.reading() as connection,
        ):
            assert (
                compare_metadata(MigrationContext.configure(connection, opts=OURS), Table.metadata)
                == []
            )
            assert tables(connection) == {*Table.metadata.tables, schema_version.VERSION_TABLE}
        assert ScriptDirectory(str(schema_version.MIGRATIONS)).get_heads() == [schema_version.HEAD]


class TestUpgrade:
    OLD = (
        "INSERT INTO search_studies VALUES (1, 11, 'demo', '{}', 1.5)",
        "INSERT INTO search_trials (id, study_id, number, state, attempt, lost, worker, host, pid,"
        " reason, error, created_at)"
        " VALUES (1, 1, 0, 'paused', 3, 1, 'box:1', 'box', 1, '', '', 2.5)",
        "INSERT INTO search_trials (id, study_id, number, state, attempt, lost, worker, host, pid,"
        " reason, error, created_at)"
        " VALUES (2, 1, 1, 'pruned', 1, 0, 'box:1', 'box', 1, 'median: below it', '', 3.5)",
    )
    """A study with two trials, as a program of version 0001 left them."""

    def test_first_version(self, store_url: str) -> None:
        """An upgraded store of version 0001 keeps its trials, and has the tables of the models."""
        with (
            closing(StoreLocation.parse(store_url).open_database(create=True)) as database,
            database.writing() as connection,
        ):
            schema_version._migrate(connection, "0001")
            for row in self.OLD:
                connection.execute(text(row))
        with pytest.raises(StoreError, match="older program"):
            StoreLocation.parse(store_url).open()

        for _ in range(2):  # the second time there is nothing left to do
            upgrade_store(StoreLocation.parse(store_url))

        with (
            closing(StoreLocation.parse(store_url).open_database(create=True)) as database,
            database.reading() as connection,
        ):
            assert (
                compare_metadata(MigrationContext.configure(connection, opts=OURS), Table.metadata)
                == []
            )
        with StoreLocation.parse(store_url).open() as store:
            trial, pruned = store.trials.list_trials(1)
            assert (trial.number, trial.state, trial.attempt, trial.created_at) == (
                0,
                "paused",
                3,
                2.5,
            )
            assert (trial.device, trial.device_s, trial.halvings) == (None, 0.0, 0)
            assert (trial.signal, pruned.signal) == (None, "median")
            claim = store.leases.claim_trial(1, 2, "b", 600)
            assert claim is not None
            assert (claim.trial_id, claim.attempt) == (1, 4)


class TestRefused:
    @pytest.mark.parametrize(
        ("url", "what"),
        [
            ("", "the store's URL is malformed"),
            ("search.db", r"malformed\n(.|\n)*next: +write sqlite:///search.db"),
            ("postgresql//user:s3cret@host/db", "malformed"),
            (
                "postgresql://user:s3cret@s3cret@host/db",
                r"malformed\n(.|\n)*write an '@' in the password as %40",
            ),
            ("postgresql://user:s3cret@host:port/db", "malformed"),
            (
                "oracle://user:s3cret@host/db",
                r"of the kind 'oracle'\n(.|\n)*allowed: sqlite, postgresql, mysql, mariadb",
            ),
            ("mysql://user:s3cret@host", "names no database"),
            ("mysql+mysqldb://user:s3cret@host/db", "'mysql[+]mysqldb'"),
            ("mariadb+mariadbconnector://user:s3cret@host/db", "'mariadb[+]mariadbconnector'"),
            ("postgres://user:s3cret@host/db", "did you mean 'postgresql'"),
            ("postgresql+psycopg2://user:s3cret@host/db", "'postgresql[+]psycopg2'"),
            ("sqlite://", "cannot be in memory"),
            ("sqlite:///:memory:", "cannot be in memory"),
            ("sqlite:///file:x.db?uri=true", "takes no options"),
            ("sqlite://search.db", "has no host"),
            (
                "sqlite:///missing/search.db",
                r"folder does not exist\n(.|\n)*found: +no folder /.*/missing\n.*mkdir -p",
            ),
            ("sqlite:///.", "names a folder, not a file"),
            (
                "sqlite:///text.txt",
                r"the file is not a database\n(.|\n)*text.txt is not an SQLite 3 file",
            ),
            ("sqlite:///text.txt/search.db", "folder does not exist"),
            (f"sqlite:///{'x' * 300}.db", "cannot be read"),
            ("sqlite:///almost.db", "the file is not a database"),
        ],
    )
    def test_address(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, what: str
    ) -> None:
        """An unusable URL is refused with a helpful error; no file changes, no secret is shown."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "text.txt").write_text("a note\n")
        (tmp_path / "almost.db").write_bytes(b"SQLite format 3\0" + b"\x5a" * 5000)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*")}

        with pytest.raises(StoreError, match=what) as caught:
            StoreLocation.parse(url).open()

        assert {path: path.read_bytes() for path in tmp_path.rglob("*")} == before
        assert SECRET not in traceback_of(caught.value)

    def test_nothing_there(self, store_url: str, tmp_path: Path) -> None:
        """With `create=False` a missing store is an error, and is not created."""
        with pytest.raises(
            StoreError, match=r"there is no store there\n(.|\n)*next: +check the URL"
        ):
            StoreLocation.parse(store_url).open(create=False)

        assert list(tmp_path.iterdir()) == []
        with (
            closing(StoreLocation.parse(store_url).open_database(create=True)) as database,
            database.reading() as connection,
        ):
            assert tables(connection) == set()

    def test_database_of_others(self, store_url: str) -> None:
        """With `create=False` a database of another program is not changed."""
        with (
            closing(StoreLocation.parse(store_url).open_database(create=True)) as database,
            database.writing() as connection,
        ):
            connection.execute(text("CREATE TABLE theirs (id INTEGER)"))

        with pytest.raises(StoreError, match="a database without our tables"):
            StoreLocation.parse(store_url).open(create=False)

        with (
            closing(StoreLocation.parse(store_url).open_database(create=True)) as database,
            database.reading() as connection,
        ):
            assert tables(connection) == {"theirs"}
            if connection.dialect.name == "sqlite":
                assert connection.execute(text("PRAGMA journal_mode")).scalar() == "delete"

    def test_newer(self, store_url: str) -> None:
        """A store of a newer program is refused with both versions, by an upgrade too."""
        StoreLocation.parse(store_url).open().close()
        set_version(store_url, "0999")

        for attempt in (StoreLocation.open, upgrade_store):
            with pytest.raises(
                StoreError,
                match=rf"newer program\n(.|\n)*found: +version 0999\n"
                rf" +allowed: version {schema_version.HEAD},.*\n +next: +install",
            ):
                attempt(StoreLocation.parse(store_url))

        with (
            closing(StoreLocation.parse(store_url).open_database(create=True)) as database,
            database.reading() as connection,
        ):
            assert schema_version.read_version(connection) == "0999"

    def test_older(self, store_url: str) -> None:
        """A store of an older program is refused with both versions and the upgrade command."""
        StoreLocation.parse(store_url).open().close()
        set_version(store_url, "0000")

        with pytest.raises(
            StoreError,
            match=rf"older program\n(.|\n)*found: +version 0000\n"
            rf" +allowed: version {schema_version.HEAD},(.|\n)*search store migrate",
        ):
            StoreLocation.parse(store_url).open()

    def test_read_only_file(self, public_folder: Path) -> None:
        """A read-only file is refused before anything is created."""
        url = f"sqlite:///{public_folder}/search.db"
        StoreLocation.parse(url).open().close()
        public_folder.chmod(0o777)
        (public_folder / "search.db").chmod(0o444)

        with no_rights(), pytest.raises(StoreError, match="the store's file cannot be written"):
            StoreLocation.parse(url).open()

        assert [path.name for path in public_folder.iterdir()] == ["search.db"]

    @pytest.mark.parametrize("exists", [False, True])
    def test_read_only_folder(self, public_folder: Path, exists: bool) -> None:
        """A read-only folder is refused, because SQLite writes its log next to the file."""
        url = f"sqlite:///{public_folder}/search.db"
        if exists:
            StoreLocation.parse(url).open().close()
            (public_folder / "search.db").chmod(0o666)
        public_folder.chmod(0o555)

        with (
            no_rights(),
            pytest.raises(
                StoreError, match=r"the store's folder cannot be written\n(.|\n)*is read-only"
            ),
        ):
            StoreLocation.parse(url).open()

    def test_silent_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that never answers is an error after a timeout."""
        monkeypatch.setattr(engines, "CONNECT_TIMEOUT_S", 2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with pytest.raises(
                StoreError,
                match=r"cannot be reached\n"
                rf" +where: +postgresql[+a-z]*://user:\*\*\*@127.0.0.1:{port}/db\n",
            ) as caught:
                StoreLocation.parse(f"postgresql://user:{SECRET}@127.0.0.1:{port}/db").open()
        assert SECRET not in traceback_of(caught.value)

    def test_no_server(self) -> None:
        """A port without a server is named in the error, without the password."""
        with pytest.raises(
            StoreUnreachableError,
            match=r"cannot be reached\n(.|\n)*refused(.|\n)*check that the server runs",
        ) as caught:
            StoreLocation.parse(f"postgresql://user@127.0.0.1:1/db?password={SECRET}").open()
        assert SECRET not in traceback_of(caught.value)

    def test_wrong_password(
        self, own_postgres: Any, own_postgres_admin: psycopg.Connection
    ) -> None:
        """A refused password is reported, and not shown."""
        rules = own_postgres.pgdata / "pg_hba.conf"
        trusting = rules.read_text()
        own_postgres_admin.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        rules.write_text(f"local all locked scram-sha-256\n{trusting}")
        own_postgres_admin.execute("SELECT pg_reload_conf()")
        place = f"/postgres?host={own_postgres.get_postmaster_info().socket_dir}"
        try:
            until(
                lambda: not lets_in(f"postgresql://locked@{place}"),
                "the server has read its new rules",
            )
            for given in (f":{SECRET}", ""):
                with pytest.raises(
                    StoreError, match=r"refused the password|requires a password"
                ) as caught:
                    StoreLocation.parse(f"postgresql://locked{given}@{place}").open()
                assert SECRET not in traceback_of(caught.value)
        finally:
            rules.write_text(trusting)
            own_postgres_admin.execute("SELECT pg_reload_conf()")
            own_postgres_admin.execute("DROP ROLE locked")

    def test_no_such_database(self, postgresql_url: str) -> None:
        """A missing database on a server is reported."""
        with pytest.raises(StoreError, match="the server has no such database"):
            StoreLocation.parse(postgresql_url.replace("/postgres?", "/nowhere?")).open()

    def test_no_rights_on_schema(
        self, postgresql_url: str, postgres_admin: psycopg.Connection
    ) -> None:
        """A user who lacks the permission to create tables is reported."""
        postgres_admin.execute("CREATE ROLE guest LOGIN")
        try:
            with pytest.raises(
                StoreError, match=r"the user lacks a permission|no schema has been selected"
            ):
                StoreLocation.parse(postgresql_url.replace("//postgres:", "//guest:")).open()
        finally:
            postgres_admin.execute("DROP ROLE guest")


class TestMariaDB:
    def test_refused(self, mariadb: MariaDB, mariadb_url: str) -> None:
        """A refused password, a missing database and a missing permission are reported."""
        mariadb.execute(
            "CREATE USER locked IDENTIFIED BY 'right'",
            f"CREATE USER guest IDENTIFIED BY '{SECRET}'",
        )
        database = mariadb_url.split("/")[3].partition("?")[0]
        mariadb.execute(f"GRANT SELECT ON {database}.* TO guest")
        try:
            for url, what in (
                (mariadb.url(database, "locked", SECRET), "does not accept the user"),
                (mariadb.url("nowhere"), r"no such database\n(.|\n)*CREATE DATABASE"),
                (mariadb.url(database, "guest", SECRET), "lacks a permission"),
            ):
                with pytest.raises(StoreError, match=what) as caught:
                    StoreLocation.parse(url).open()
                assert SECRET not in traceback_of(caught.value)
        finally:
            mariadb.execute("DROP USER locked", "DROP USER guest")

    @pytest.mark.parametrize(
        "setting", ["CHARACTER SET latin1", "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"]
    )
    def test_letters(self, mariadb: MariaDB, mariadb_url: str, setting: str) -> None:
        """A database that cannot store every text, or ignores case, is refused with a remedy."""
        database = mariadb_url.split("/")[3].partition("?")[0]
        mariadb.execute(f"ALTER DATABASE {database} {setting}")
        with pytest.raises(
            StoreError,
            match=r"cannot store every text\n(.|\n)*"
            rf"next: +ALTER DATABASE `{database}` CHARACTER SET utf8mb4",
        ) as caught:
            StoreLocation.parse(mariadb_url).open()

        mariadb.execute(caught.value.next_step.partition(", before")[0])

        StoreLocation.parse(mariadb_url).open().close()


class TestTrouble:
    def test_damaged(self, sqlite_url: str) -> None:
        """A partly overwritten file is reported as damaged, with a way to recover it."""
        StoreLocation.parse(sqlite_url).open().close()
        with open(sqlite_url.removeprefix("sqlite:///"), "r+b") as file:
            file.seek(4096)
            file.write(b"\x5a" * 4096 * 100)

        with pytest.raises(StoreError, match=r"the database is damaged\n(.|\n)*[.]recover"):
            StoreLocation.parse(sqlite_url).open()

    def test_busy(self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A store that another program locks for too long is reported, and usable afterwards."""
        monkeypatch.setattr(engines, "BUSY_TIMEOUT_S", 0)
        with StoreLocation.parse(sqlite_url).open() as store:
            with closing(
                sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
            ) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreBusyError, match="busy for too long"):
                    store.studies.register_study(1, "demo", {})
            assert store.studies.register_study(1, "demo", {}).name == "demo"

    def test_full(self, sqlite_url: str) -> None:
        """A full disk rolls the transaction back; the store works again when there is space."""
        with StoreLocation.parse(sqlite_url).open() as store:
            limited = store._database
            with limited.reading() as connection:
                connection.execute(text("PRAGMA max_page_count = 1"))
            with pytest.raises(StoreError, match="the disk is full"):
                store.studies.register_study(1, "demo", {"about": "x" * 100_000})
            assert store.studies.list_studies() == []
            with limited.reading() as connection:
                connection.execute(text("PRAGMA max_page_count = 100000"))
            assert store.studies.register_study(1, "demo", {"about": "x" * 100_000}).name == "demo"

    def test_cut_connection(self, postgresql_url: str, postgres_admin: psycopg.Connection) -> None:
        """A connection that the server cut meanwhile is replaced without an error."""
        name = postgresql_url.rpartition("%3D")[2]  # parallel test processes share the server
        with StoreLocation.parse(f"{postgresql_url}&application_name={name}").open() as store:
            store.studies.register_study(1, "demo", {})
            cut = (
                "SELECT count(pg_terminate_backend(pid, %s)) FROM pg_stat_activity"
                " WHERE application_name = %s"
            )
            assert postgres_admin.execute(cut, (int(1000 * PATIENCE_S), name)).fetchone() == (1,)

            assert [study.name for study in store.studies.list_studies()] == ["demo"]

    def test_deadlock(self, postgresql_url: str) -> None:
        """In a deadlock the server rolls one transaction back, which can be retried immediately."""
        with (
            StoreLocation.parse(postgresql_url).open() as store,
            closing(StoreLocation.parse(postgresql_url).open_database(create=True)) as database,
            ThreadPoolExecutor() as pool,
        ):
            ids = [
                store.studies.register_study(number, f"study {number}", {}).id for number in (1, 2)
            ]
            both = threading.Barrier(2)

            def lock(first: int, second: int) -> None:
                with database.writing() as connection:
                    for each in (first, second):
                        connection.execute(
                            text(f"UPDATE search_studies SET created_at = 0 WHERE id = {each}")
                        )
                        if each == first:
                            both.wait(PATIENCE_S)

            ends = [
                end.exception() for end in [pool.submit(lock, *order) for order in (ids, ids[::-1])]
            ]

        assert sorted(type(end) for end in ends if end is not None) == [StoreBusyError]


class TestOptuna:
    @pytest.mark.parametrize("first", ["optuna", "store"])
    def test_side_by_side(self, store_url: str, first: str) -> None:
        """Optuna's tables and ours are in one database, created in any order."""
        if first == "store":
            StoreLocation.parse(store_url).open().close()
        storage = optuna.storages.RDBStorage(StoreLocation.parse(store_url).optuna_url)
        tune_sqlite(storage.engine)
        theirs = optuna.create_study(
            storage=storage, study_name="demo", sampler=optuna.samplers.RandomSampler(seed=0)
        )
        theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)

        with StoreLocation.parse(store_url).open() as store:
            study = store.studies.register_study(theirs._study_id, "demo", {})
            claim = store.leases.claim_trial(study.id, 1, "a", 600)
            assert claim is not None
            assert (claim.number, claim.optuna_trial_id) == (3, theirs.trials[3]._trial_id)
            store.leases.finish_trial(
                store.leases.bind_trial(claim, 3, theirs.trials[3]._trial_id, {}),
                Outcome("complete", 0.5),
            )
            theirs.tell(3, 0.5)

        again = optuna.load_study(
            study_name="demo",
            storage=optuna.storages.RDBStorage(StoreLocation.parse(store_url).optuna_url),
        )
        assert [trial.number for trial in again.trials] == [0, 1, 2, 3]
        with (
            closing(StoreLocation.parse(store_url).open_database(create=True)) as database,
            database.reading() as connection,
        ):
            names = tables(connection)
            assert schema_version.read_version(connection) == schema_version.HEAD
            assert (
                connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
                != schema_version.HEAD
            )
        assert {name for name in names if name.startswith(PREFIX)} == {
            *Table.metadata.tables,
            schema_version.VERSION_TABLE,
        }
        assert {"studies", "trials", "alembic_version"} <= names
        for each in (storage, again._storage._backend):  # type: ignore[attr-defined]
            each.engine.dispose()

    def test_tuned(self, sqlite_url: str) -> None:
        """Every connection of a tuned database_module, also an earlier one, waits for 30 s for a lock."""
        storage = optuna.storages.RDBStorage(StoreLocation.parse(sqlite_url).optuna_url)

        tune_sqlite(storage.engine)

        with storage.engine.connect() as connection:
            pragmas = [
                connection.execute(text(f"PRAGMA {name}")).scalar()
                for name in ("busy_timeout", "synchronous")
            ]
            raw: Any = connection.connection.dbapi_connection
            assert (pragmas, raw.isolation_level) == ([30_000, 1], "")
        storage.engine.dispose()

    def test_same_database(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Optuna gets the same file, driver and password."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", "/home/user")

        assert (
            StoreLocation.parse("sqlite:///search.db").optuna_url
            == f"sqlite:///{tmp_path}/search.db"
        )
        assert (
            StoreLocation.parse("sqlite:///~/search.db").optuna_url
            == "sqlite:////home/user/search.db"
        )
        assert (
            StoreLocation.parse("postgresql://user:p%40ss@host/db").optuna_url
            == "postgresql+psycopg://user:p%40ss@host/db"
        )
