"""The contract of checking, migrating and vacuuming a store."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from search.maintenance import inspect_store, migrate_store, vacuum_store
from search.sampling.connection import close_trials, open_any_version, open_trials
from spaces.errors import StoreError
from spaces.records import EpochRecord
from storage.location import StoreLocation
from storage.tables import schema_version
from storage.tables.optuna_tables import SCHEMA
from tests.contract.filled import contents, fill, plain_trials
from tests.contract.test_store_opening import TestUpgrade as Upgrade

Make = Callable[..., EpochRecord]


@pytest.fixture
def filled(
    store_url: str, make_record: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> str:
    """The URL of a store with a trial of every kind; its files are in the test's folder."""
    monkeypatch.chdir(tmp_path)
    fill(store_url, make_record)
    return store_url


def execute(url: str, *statements: str) -> None:
    """Run statements without the store's repositories."""
    with StoreLocation.parse(url).open() as store, store._database.writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(
                text("SET LOCAL session_replication_role = replica")
            )  # no foreign keys
        elif connection.dialect.name == "mysql":
            connection.execute(text("SET foreign_key_checks = 0"))
        for statement in statements:
            connection.execute(text(statement))


def release(url: str) -> None:
    """Pause the running trials."""
    execute(
        url, "UPDATE search_trials SET state = 'paused', lease_until = NULL WHERE state = 'running'"
    )


class TestCheck:
    def test_sound(self, filled: str) -> None:
        """A consistent store has no problems; a study of another program is none."""
        trials = open_trials(StoreLocation.parse(filled))
        plain_trials(trials)
        close_trials(trials)

        found = inspect_store(StoreLocation.parse(filled))

        assert (found.is_consistent, found.store.problems) == (True, ())
        assert (found.store.version, found.store.optuna_version) == (schema_version.HEAD, SCHEMA)
        assert found.store.size_bytes > 50_000
        states = dict.fromkeys(("complete", "pruned", "diverged", "failed", "running", "paused"), 1)
        assert [(study.name, study.trials, study.epochs) for study in found.store.studies] == [
            ("demo", states, 15)
        ]

    def test_problems(self, filled: str) -> None:
        """Every problem is found once, with what to do about it."""
        execute(
            filled,
            "UPDATE search_trials SET lease_until = lease_until - 6000 WHERE state = 'running'",
            "UPDATE trials SET state = 'RUNNING' WHERE number = 0",
            "UPDATE trials SET number = 77 WHERE number = 1",
            "DELETE FROM search_epochs WHERE epoch = 1"
            " AND trial_id = (SELECT id FROM search_trials WHERE number = 2)",
            "DELETE FROM trials WHERE number = 3",
            "UPDATE search_trials SET"
            " optuna_trial_id = (SELECT trial_id FROM trials WHERE number = 4) WHERE number = 5",
            "INSERT INTO search_signals SELECT 999, s.signal, 9, s.step, s.severity, s.statement,"
            " s.numbers, s.diagnosis FROM search_signals s",
            "INSERT INTO studies (study_id, study_name) VALUES (900, 'begun')",
            "UPDATE study_user_attributes SET study_id = 900 WHERE study_id = 1",
        )

        problems = inspect_store(StoreLocation.parse(filled)).store.problems

        found = sorted(problem.what for problem in problems)
        expected = [
            "1 rows of search_signals belong to no row of search_trials",
            "study begun: it was created in Optuna's tables only",
            "study demo, trial 0: it is complete, and RUNNING in Optuna's tables",
            "study demo, trial 1: its number in Optuna's tables is 77",
            "study demo, trial 2: 2 epochs from 2 to 3, so some are missing",
            "study demo, trial 3: it is not in Optuna's tables",
            "study demo, trial 4: another trial refers to the same trial of Optuna's",
            "study demo, trial 4: worker w4 lost its lease",
            "study demo, trial 5: another trial refers to the same trial of Optuna's",
            "study demo, trial 5: it is in Optuna's tables only (RUNNING)",
            "study demo, trial 5: its number in Optuna's tables is 4",
        ]
        assert [
            line if "lost its lease" not in line else line[: len(expected[7])] for line in found
        ] == expected
        assert all(problem.next_step for problem in problems)
        assert [problem.next_step for problem in problems if problem.kind == "lease"] == [
            "start a worker, which resumes it: search worker --study demo"
        ]

    def test_many(self, filled: str) -> None:
        """Of many problems of one kind the first are listed, and the others counted."""
        lonely = [
            f"INSERT INTO trials (study_id, number, state) VALUES (1, {100 + number}, 'RUNNING')"
            for number in range(30)
        ]
        execute(filled, *lonely)

        problems = inspect_store(StoreLocation.parse(filled)).store.problems

        assert len(problems) == 21
        assert problems[-1].what == "10 more problems of this kind (end)"

    def test_other_version(self, filled: str) -> None:
        """A store of another version is reported, and not checked any further."""
        execute(filled, f"UPDATE {schema_version.VERSION_TABLE} SET version_num = '0000'")

        assert [
            (problem.kind, problem.next_step)
            for problem in inspect_store(StoreLocation.parse(filled)).store.problems
        ] == [("version", "search store migrate")]

    def test_damaged(self, sqlite_url: str, make_record: Make) -> None:
        """A partly overwritten file is reported as damaged."""
        fill(sqlite_url, make_record)
        file = Path(sqlite_url.removeprefix("sqlite:///"))
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA journal_mode = DELETE")
        data = bytearray(file.read_bytes())
        data[4096 * 3 : 4096 * 6] = b"\x5a" * 4096 * 3
        file.write_bytes(data)

        problems = inspect_store(StoreLocation.parse(sqlite_url)).store.problems

        assert {problem.kind for problem in problems} == {"damage"}
        assert "recover" in problems[0].next_step


class TestFiles:
    def test_leftovers(self, filled: str, tmp_path: Path) -> None:
        """Files of missing trials and studies are removed; other files and links stay."""
        root = StoreLocation.parse(filled).files_root
        (tmp_path / "elsewhere").mkdir()
        gone = (
            "demo/trial-00099.ckpt",
            "demo/.trial-00099.ckpt.12-ab",
            "old/trial-00000.json",
            "old/worker-0.log",
            "old/worker-0.events.jsonl",
            f"old/artifacts/{'a' * 64}",
        )
        kept = (
            "demo/trial-00005.2.3.ckpt",
            "demo/worker-0.log",
            "demo/worker-0.events.jsonl",
            f"demo/artifacts/{'a' * 64}",
            "demo/notes.txt",
            "../elsewhere/trial-00000.ckpt",
        )
        for name in (*gone, *kept):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("x")
        (root / "link").symlink_to(tmp_path / "elsewhere")
        release(filled)

        assert sorted(
            file.path.relative_to(root).as_posix()
            for file in inspect_store(StoreLocation.parse(filled)).orphans
        ) == sorted(gone)
        assert vacuum_store(StoreLocation.parse(filled), dry_run=True).removed == 0
        shared = not filled.startswith("sqlite")
        assert vacuum_store(StoreLocation.parse(filled)).removed == (0 if shared else 6)
        assert vacuum_store(StoreLocation.parse(filled), shared_files=True).removed == (
            6 if shared else 0
        )

        assert [name for name in gone if (root / name).exists()] == []
        assert [name for name in kept if not (root / name).exists()] == []
        assert not (root / "old").exists()

    def test_after_the_end(self, filled: str) -> None:
        """Checkpoints of an ended trial are orphans once its worker would have removed them."""
        with StoreLocation.parse(filled).open(create=False) as store:
            number = next(
                trial.number
                for trial in store.trials.list_trials(store.studies.list_studies()[0].id)
                if trial.state == "complete"
            )
            name = store.studies.list_studies()[0].name
        state = StoreLocation.parse(filled).files_root / name / f"trial-{number:05d}.1.2.ckpt"
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_text("x")
        release(filled)
        assert inspect_store(StoreLocation.parse(filled)).orphans == ()
        execute(
            filled,
            f"UPDATE search_trials SET finished_at = finished_at - 86400 WHERE number = {number}",
        )
        assert [file.path for file in inspect_store(StoreLocation.parse(filled)).orphans] == [state]

    def test_named_folder(
        self, sqlite_url: str, make_record: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Files of another store in a shared folder are not removed."""
        monkeypatch.setenv("SEARCH_FILES", str(tmp_path / "all"))
        fill(sqlite_url, make_record)
        release(sqlite_url)
        (tmp_path / "all" / "another").mkdir(parents=True)
        (tmp_path / "all" / "another" / "trial-00000.ckpt").write_text("x")

        done = vacuum_store(StoreLocation.parse(sqlite_url))

        assert (len(done.orphans), done.removed, done.files_shared) == (1, 0, True)


class TestVacuum:
    def test_room(self, filled: str) -> None:
        """A vacuum does not change the data, and returns the space of deleted rows."""
        release(filled)
        with StoreLocation.parse(filled).open() as store, store._database.writing() as connection:
            connection.execute(text("CREATE TABLE junk (t VARCHAR(15000))"))
            connection.execute(text("INSERT INTO junk VALUES (:t)"), [{"t": "x" * 15_000}] * 70)
        execute(filled, "DROP TABLE junk")
        before = repr(contents(filled))

        done = vacuum_store(StoreLocation.parse(filled))

        assert repr(contents(filled)) == before
        if filled.startswith("sqlite"):
            assert done.after_bytes < done.before_bytes - 900_000

    def test_running(self, sqlite_url: str, make_record: Make) -> None:
        """An SQLite store to which workers write is not vacuumed."""
        fill(sqlite_url, make_record)

        with pytest.raises(StoreError, match="cannot be vacuumed while workers own trials"):
            vacuum_store(StoreLocation.parse(sqlite_url))


class TestMigrate:
    def test_current(self, filled: str) -> None:
        """A store of this version is not changed."""
        assert migrate_store(StoreLocation.parse(filled)) == []

    def test_newer(self, filled: str) -> None:
        """A store of a newer program is refused, and so are tables of a newer Optuna."""
        execute(filled, "UPDATE alembic_version SET version_num = 'v9.0.0.a'")
        with pytest.raises(
            StoreError, match=r"created by a newer Optuna\n(.|\n)*found: +version v9.0.0.a"
        ):
            migrate_store(StoreLocation.parse(filled), backed_up=True)

        execute(filled, f"UPDATE {schema_version.VERSION_TABLE} SET version_num = '0999'")
        with pytest.raises(StoreError, match="made by a newer program"):
            migrate_store(StoreLocation.parse(filled), backed_up=True)

    def test_optuna(self, filled: str) -> None:
        """Older tables of Optuna's are refused, and upgraded after a copy was made."""
        execute(filled, "UPDATE alembic_version SET version_num = 'v3.0.0.d'")
        with pytest.raises(
            StoreError,
            match=r"another version than the installed Optuna\n(.|\n)*search store migrate",
        ):
            open_trials(StoreLocation.parse(filled))
        with pytest.raises(StoreError, match="cannot be migrated while workers own trials"):
            migrate_store(StoreLocation.parse(filled), backed_up=True)
        release(filled)
        before = repr(_ours(filled))
        if not filled.startswith("sqlite"):
            with pytest.raises(
                StoreError,
                match=r"pg_dump --format=custom --file=search.dump 'postgresql://(.|\n)*--backed-up"
                "|mysqldump",
            ):
                migrate_store(StoreLocation.parse(filled))

        done = migrate_store(StoreLocation.parse(filled), backed_up=True)

        assert done[-1] == f"Optuna's tables: version v3.0.0.d → {SCHEMA}"
        assert repr(_ours(filled)) == before
        trials = open_any_version(StoreLocation.parse(filled))
        assert trials.get_current_version() == trials.get_head_version()
        close_trials(trials)

    def test_first_version(self, sqlite_url: str, tmp_path: Path) -> None:
        """A store of version 0001 is copied and upgraded, once no worker owns a trial of it."""
        with (
            closing(StoreLocation.parse(sqlite_url).open_database(create=True)) as database,
            database.writing() as connection,
        ):
            schema_version._migrate(connection, "0001")
            for row in Upgrade.OLD:
                connection.execute(text(row))
            connection.execute(
                text("UPDATE search_trials SET state = 'running', lease_until = 1e12")
            )
        with pytest.raises(
            StoreError,
            match=r"migrated while workers own trials\n(.|\n)*study demo, trial 0: worker box:1",
        ):
            migrate_store(StoreLocation.parse(sqlite_url))
        with (
            closing(StoreLocation.parse(sqlite_url).open_database(create=True)) as database,
            database.writing() as connection,
        ):
            connection.execute(
                text("UPDATE search_trials SET state = 'paused', lease_until = NULL")
            )

        done = migrate_store(StoreLocation.parse(sqlite_url))

        assert done == [
            f"copied to {tmp_path / 'search.db.backup-0001'}",
            f"our tables: version 0001 → {schema_version.HEAD}",
        ]
        with StoreLocation.parse(sqlite_url).open() as store:
            assert [trial.number for trial in store.trials.list_trials(1)] == [0, 1]

    def test_copy(self, sqlite_url: str, make_record: Make, tmp_path: Path) -> None:
        """An SQLite file is copied first, and an existing copy is not overwritten."""
        fill(sqlite_url, make_record)
        release(sqlite_url)
        execute(sqlite_url, "UPDATE alembic_version SET version_num = 'v3.0.0.d'")
        copy = tmp_path / f"search.db.backup-{schema_version.HEAD}"

        assert migrate_store(StoreLocation.parse(sqlite_url))[0] == f"copied to {copy}"

        before = copy.read_bytes()
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE(copy.stat().st_mode) == 0o666 & ~umask
        with closing(sqlite3.connect(copy)) as database:
            assert database.execute("SELECT version_num FROM alembic_version").fetchone() == (
                "v3.0.0.d",
            )
            assert database.execute("SELECT COUNT(*) FROM search_epochs").fetchone() == (15,)
        execute(
            sqlite_url,
            "UPDATE alembic_version SET version_num = 'v3.0.0.d'",
            "DROP INDEX trials_study_id_key",
        )
        with pytest.raises(StoreError, match=r"the backup file already exists\n(.|\n)*--no-backup"):
            migrate_store(StoreLocation.parse(sqlite_url))
        assert copy.read_bytes() == before
        assert len(migrate_store(StoreLocation.parse(sqlite_url), backup=False)) == 1


def _ours(url: str) -> list[object]:
    with StoreLocation.parse(url).open() as store:
        return [
            (study, store.trials.list_trials(study.id), store.epochs.study_records(study.id))
            for study in store.studies.list_studies()
        ]
