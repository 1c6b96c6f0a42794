"""Stores and studies that were created in vain are deleted; others never are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.location import StoreLocation
from storage.store import Store


def files(folder: Path) -> list[str]:
    """The content of a folder."""
    return sorted(path.name for path in folder.iterdir())


class TestUnmake:
    def test_made(self, sqlite_url: str, tmp_path: Path) -> None:
        """A store that was just created and has no study leaves no file behind."""
        with StoreLocation.parse(sqlite_url).open() as store:
            assert "search.db" in files(tmp_path)
            assert store.delete_if_created()
        assert files(tmp_path) == []

    def test_study(self, sqlite_url: str, tmp_path: Path) -> None:
        """A store with a study stays, and can be shared as before."""
        with StoreLocation.parse(sqlite_url).open() as store:
            store.studies.register_study(1, "demo", {})
            assert not store.delete_if_created()
            assert [study.name for study in store.studies.list_studies()] == ["demo"]
        with closing(sqlite3.connect(tmp_path / "search.db")) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def test_found(self, sqlite_url: str, tmp_path: Path) -> None:
        """A store that existed before stays."""
        StoreLocation.parse(sqlite_url).open().close()
        with StoreLocation.parse(sqlite_url).open() as store:
            assert not store.delete_if_created()
        assert files(tmp_path) == ["search.db"]

    def test_in_use(self, sqlite_url: str) -> None:
        """A store that another process has open stays, with what that one writes."""
        with (
            StoreLocation.parse(sqlite_url).open() as store,
            StoreLocation.parse(sqlite_url).open() as other,
        ):
            assert other.studies.list_studies() == []
            assert not store.delete_if_created()
            other.studies.register_study(1, "demo", {})
            assert [study.name for study in store.studies.list_studies()] == ["demo"]

    def test_server(self, postgresql_url: str) -> None:
        """A server's database stays, because the store did not create it."""
        with StoreLocation.parse(postgresql_url).open() as store:
            assert not store.delete_if_created()
            assert store.studies.list_studies() == []


class TestForgetUntried:
    @pytest.mark.parametrize("claims", [0, 2])
    def test_untried(self, store: Store, claims: int) -> None:
        """A study is deleted with its claimed trials if none was bound; other studies stay."""
        kept = store.studies.register_study(1, "kept", {})
        made = store.studies.register_study(2, "demo", {})
        for _ in range(claims):
            assert store.leases.claim_trial(made.id, 10, "a", 600)
        assert store.studies.forget_untried(made.id)
        assert store.studies.list_studies() == [kept]

    def test_tried(self, store: Store) -> None:
        """A study with a bound trial stays."""
        made = store.studies.register_study(1, "demo", {})
        claim = store.leases.claim_trial(made.id, 10, "a", 600)
        assert claim is not None
        store.leases.bind_trial(claim, 0, 0, {})
        assert not store.studies.forget_untried(made.id)
        assert [trial.number for trial in store.trials.list_trials(made.id)] == [0]
