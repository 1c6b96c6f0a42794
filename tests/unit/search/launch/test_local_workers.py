"""Workers on this machine: their logs and events, and what follows from how they end."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from search.launch.device_slots import Slot
from search.launch.local_workers import LocalWorkers
from search.worker.options import WorkerOptions
from spaces.errors import InputError, SearchError
from storage.location import StoreLocation
from tests.waiting import PATIENCE_S, until

REPORTING = """
import sys
from pathlib import Path
from search.worker.events import LOGGER, log_worker_events
from spaces.errors import DataError
with log_worker_events(Path(sys.argv[1])):
    {}
"""
"""A script that reports its events to the file in its argument."""


IMPORTING = """
import sys, time
from pathlib import Path
from search.worker.stop import StopRequest
folder = Path(sys.argv[1])
(folder / "started").touch()
while not (folder / "interrupted").exists():
    time.sleep(0.01)
stop = StopRequest()
stop.handle_signals()
print(stop.was_interrupted)
"""
"""A script that handles signals when it was sent one, as a worker does that imports its modules until then."""


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """The folder for the logs."""
    return tmp_path / "search.files" / "demo"


def run_scripts(logs: Path, *scripts: str) -> LocalWorkers:
    """Workers that ran a script each instead of the command, after they ended."""
    options = WorkerOptions("demo")
    pool = LocalWorkers(
        [Slot("cpu", 1) for _ in scripts], options, StoreLocation.parse("sqlite:///search.db"), logs
    )
    for worker, script in zip(pool.workers, scripts, strict=True):
        worker.command = [sys.executable, "-c", script, str(worker.events)]
    with pool.running():
        for worker in pool.workers:
            assert worker.process is not None
            worker.process.wait(PATIENCE_S)
        assert pool.is_finished()
    return pool


class TestStart:
    def test_interrupted(self, logs: Path, tmp_path: Path) -> None:
        """A SIGINT that comes before a worker handles signals arrives as soon as it does."""
        location = StoreLocation.parse("sqlite:///search.db")
        pool = LocalWorkers([Slot("cpu", 1)], WorkerOptions("demo"), location, logs)
        (worker,) = pool.workers
        worker.command = [sys.executable, "-c", IMPORTING, str(tmp_path)]
        with pool.running():
            until((tmp_path / "started").exists, "the worker imports its modules")
            worker.send_signal(signal.SIGINT)
            (tmp_path / "interrupted").touch()
            assert worker.process is not None
            worker.process.wait(PATIENCE_S)
        assert worker.read_log() == ["True"]


class TestRaiseFailure:
    def test_done(self, logs: Path) -> None:
        """Workers that ended well raise nothing."""
        run_scripts(logs, "print('done')").raise_failure()

    def test_bad_input(self, logs: Path) -> None:
        """Bad input is raised once, as the worker reported it, with nothing added."""
        script = (
            "LOGGER.warning('mind')\n    try: raise DataError('no data', where='data')\n"
            "    except DataError as problem: LOGGER.error(str(problem)); sys.exit(2)"
        )
        pool = run_scripts(logs, REPORTING.format(script))
        with pytest.raises(InputError) as caught:
            pool.raise_failure()
        assert str(caught.value) == "no data\n  where:   data"
        assert pool.list_warnings() == ["mind"]

    def test_crash(self, logs: Path) -> None:
        """An unexpected exception is raised with its message and the path of the log."""
        pool = run_scripts(logs, REPORTING.format("raise ZeroDivisionError('by 0')"))
        with pytest.raises(
            SearchError, match="a worker ended unexpectedly: ZeroDivisionError: by 0"
        ) as caught:
            pool.raise_failure()
        assert str(caught.value).endswith(f"log:     {logs / 'worker-0.log'}")

    def test_earlier_process(self, logs: Path) -> None:
        """What an earlier process of the slot reported does not explain how the current one ended."""
        script = REPORTING.format("LOGGER.error('out of memory'); sys.exit(1)")
        (worker,) = run_scripts(logs, script).workers
        assert worker.describe_end().is_explained
        worker.command = [sys.executable, "-c", "print('a library ends it'); raise SystemExit(1)"]
        worker.start_process()
        assert worker.process is not None
        worker.process.wait(PATIENCE_S)
        end = worker.describe_end()
        assert not end.is_explained
        assert (end.exit_code, list(end.log_tail)) == (1, ["a library ends it"])
        assert [event.message for event in worker.read_events()] == ["out of memory"]

    def test_text_is_not_read(self, logs: Path) -> None:
        """What a library prints is never taken for a warning or an error of the worker."""
        pool = run_scripts(logs, "print('warning: mind'); print('error: no data')")
        pool.raise_failure()
        assert pool.list_warnings() == []


class TestRemoveLogs:
    def test_new(self, logs: Path, tmp_path: Path) -> None:
        """The logs and events of a first run are removed with their folders."""
        warning = REPORTING.format("LOGGER.warning('mind')")
        run_scripts(logs, warning, "print(2)").remove_logs()
        assert list(tmp_path.iterdir()) == []

    def test_earlier(self, logs: Path) -> None:
        """Logs and events of earlier runs, and other files, stay."""
        logs.mkdir(parents=True)
        (logs / "worker-0.log").write_text("earlier\n")
        (logs / "worker-0.events.jsonl").write_text("{}\n")
        (logs / "trial-00000.ckpt").write_bytes(b"x")
        warning = REPORTING.format("LOGGER.warning('mind')")
        run_scripts(logs, warning, "print(2)").remove_logs()
        assert sorted(path.name for path in logs.iterdir()) == [
            "trial-00000.ckpt",
            "worker-0.events.jsonl",
            "worker-0.log",
        ]
        assert (logs / "worker-0.log").read_text() == "earlier\n"
        assert (logs / "worker-0.events.jsonl").read_text() == "{}\n"
