"""The events of a worker: what its log and its supervisor get."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from search.worker.events import (
    WorkerEvent,
    events_path,
    last_error,
    list_warnings,
    log_worker_events,
    read_events,
)
from spaces.errors import DataError

logger = logging.getLogger("search.worker.test")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file for the events."""
    return events_path(tmp_path / "worker-0.log")


class TestLogWorkerEvents:
    def test_both(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A record is a line for people on standard output, and an event in the file."""
        with log_worker_events(path):
            logger.info("started")
            logger.warning("the disk is %s\n  next: %s", "full", "free some space")
        assert capsys.readouterr().out == (
            "started\nwarning: the disk is full\n  next: free some space\n"
        )
        assert read_events(path) == [
            WorkerEvent("info", "started"),
            WorkerEvent("warning", "the disk is full\n  next: free some space"),
        ]

    def test_no_events(self, path: Path) -> None:
        """A worker without events leaves no file."""
        with log_worker_events(path):
            pass
        assert not path.exists()
        assert read_events(path) == []

    def test_own_error(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """An error of ours that ends the worker is an event in full; its caller prints it."""
        with pytest.raises(DataError), log_worker_events(path):
            raise DataError("no images", where="data", next_step="check the folder")
        assert last_error(read_events(path)) == (
            "no images\n  where:   data\n  next:    check the folder"
        )
        assert capsys.readouterr().out == ""

    def test_other_error(self, path: Path) -> None:
        """Any other exception is an event with its type and message."""
        with pytest.raises(ZeroDivisionError), log_worker_events(path):
            raise ZeroDivisionError("by 0")
        assert last_error(read_events(path)) == (
            "a worker ended unexpectedly: ZeroDivisionError: by 0"
        )

    def test_exit(self, path: Path) -> None:
        """A library that exits the process reports no error."""
        with pytest.raises(SystemExit), log_worker_events(path):
            raise SystemExit(3)
        assert last_error(read_events(path)) is None

    def test_python_warnings(self, path: Path) -> None:
        """Warnings for users are events; those for programmers are not."""
        with log_worker_events(path), warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("few images of class 3", UserWarning, stacklevel=1)
            warnings.warn("use the new name", DeprecationWarning, stacklevel=1)
        assert list_warnings(read_events(path)) == ["few images of class 3"]

    def test_restored(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """After the block, and for the root logger at any time, logging is as it was."""
        root = list(logging.getLogger().handlers)
        ours = logging.getLogger("search")
        before = (ours.level, ours.propagate, list(ours.handlers), warnings.showwarning)
        with log_worker_events(path):
            assert logging.getLogger().handlers == root
        assert (ours.level, ours.propagate, ours.handlers, warnings.showwarning) == before


class TestReadEvents:
    def test_start(self, path: Path) -> None:
        """Events of an earlier run are skipped."""
        with log_worker_events(path):
            logger.warning("earlier")
        size = path.stat().st_size
        with log_worker_events(path):
            logger.warning("later")
        assert list_warnings(read_events(path, size)) == ["later"]

    def test_cut_off(self, path: Path) -> None:
        """A line that was cut off when its worker was killed is ignored."""
        with log_worker_events(path):
            logger.warning("complete")
        with path.open("ab") as file:
            file.write(b'{"level": "warning", "mess')
        assert list_warnings(read_events(path)) == ["complete"]

    def test_repeated(self) -> None:
        """A warning that is repeated is listed once."""
        event = WorkerEvent("warning", "full")
        assert list_warnings([event, WorkerEvent("error", "x"), event]) == ["full"]
