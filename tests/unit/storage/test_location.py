"""Where a store is, parsed once."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from spaces.errors import StoreError
from storage.location import StoreLocation

SERVER = "postgresql://me:s3cret@host/db"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with no folder set for the files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEARCH_FILES", raising=False)
    return tmp_path


class TestParse:
    def test_sqlite(self, folder: Path) -> None:
        """The files of an SQLite store are next to its database file, and no other store's."""
        location = StoreLocation.parse("sqlite:///search.db")
        assert location.sqlite_file == folder / "search.db"
        assert location.files_root == folder / "search.files"
        assert not location.files_shared
        assert (location.url, location.safe_url) == ("sqlite:///search.db", "sqlite:///search.db")

    def test_server(self, folder: Path) -> None:
        """The files of a store on a server are in the working directory, which others may use."""
        location = StoreLocation.parse(SERVER)
        assert location.sqlite_file is None
        assert location.files_root == folder / "search.files"
        assert location.files_shared
        assert location.optuna_url == "postgresql+psycopg://me:s3cret@host/db"

    def test_chosen_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """$SEARCH_FILES sets the folder for every store, so they share it."""
        monkeypatch.setenv("SEARCH_FILES", str(folder / "big"))
        location = StoreLocation.parse("sqlite:///search.db")
        assert location.files().root == location.files_root == folder / "big"
        assert location.files_shared

    def test_moved_directory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A later change of the working directory does not change where a relative path leads."""
        (folder / "elsewhere").mkdir()
        location = StoreLocation.parse("sqlite:///search.db")
        monkeypatch.chdir(folder / "elsewhere")
        location.open().close()
        assert (folder / "search.db").is_file()

    def test_refused(self) -> None:
        """A mistake in the URL is reported before anything is opened."""
        with pytest.raises(StoreError, match="the store's URL is malformed"):
            StoreLocation.parse("search.db")


class TestSecret:
    def test_shown(self) -> None:
        """Neither form of printing a location shows the password; only `url` has it."""
        location = StoreLocation.parse(SERVER)
        assert "s3cret" not in repr(location)
        assert "s3cret" not in str(location)
        assert location.safe_url == "postgresql://me:***@host/db"
        assert (location.url, location.password) == (SERVER, "s3cret")

    def test_dump_command(self) -> None:
        """The command that dumps the database prompts for the password."""
        assert "s3cret" not in StoreLocation.parse(SERVER).dump_command()


class TestEquality:
    def test_same_database(self, folder: Path) -> None:
        """Two spellings of one place are equal."""
        assert StoreLocation.parse("sqlite:///search.db") == StoreLocation.parse(
            f"sqlite+pysqlite:///{folder}/search.db"
        )

    def test_other_database(self) -> None:
        """Two databases of one server are not."""
        assert StoreLocation.parse(SERVER) != StoreLocation.parse(f"{SERVER}2")

    def test_value(self) -> None:
        """A location cannot change, and a process can pass it on to another."""
        location = StoreLocation.parse(SERVER)
        with pytest.raises(FrozenInstanceError):
            location.url = "sqlite:///other.db"  # type: ignore[misc]
        assert pickle.loads(pickle.dumps(location)) == location


class TestReach:
    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("sqlite:///search.db", "SQLite is safe for the processes of one machine only"),
            ("postgresql://me@localhost/db", "its URL names this machine itself"),
            ("postgresql://me@/db?host=/var/run/postgresql", "its URL names this machine itself"),
            ("postgresql://me@db.example.org/db", ""),
        ],
    )
    def test_local_only(self, url: str, why: str) -> None:
        """A store that only this machine can use says why."""
        explained = StoreLocation.parse(url).explain_local_only()
        assert explained.startswith(why)
        assert bool(explained) == bool(why)


class TestOpen:
    def test_absent(self, folder: Path) -> None:
        """A store that must exist is not created."""
        with pytest.raises(StoreError, match="there is no store there"):
            StoreLocation.parse("sqlite:///search.db").open(create=False)
        assert list(folder.iterdir()) == []
