"""How a supervisor releases trials and replaces workers, with scripts instead of the real command."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from search.launch import local_workers
from search.launch.device_slots import Slot
from search.launch.local_workers import LocalWorkers
from search.launch.reaper import TrialReaper, describe_exit
from search.worker.identity import worker_name
from search.worker.options import WorkerOptions
from spaces.errors import SearchError
from spaces.exit_codes import ExitCode
from storage.location import StoreLocation
from tests.contract.test_store import let_lapse
from tests.unit.search.conftest import Demo
from tests.waiting import PATIENCE_S, until


def make_pool(demo: Demo, logs: Path, script: str) -> LocalWorkers:
    """One worker, which runs a script instead of the real command."""
    reaper = TrialReaper(demo.store, demo.stored.id)
    options = WorkerOptions("demo")
    location = StoreLocation.parse("sqlite:///search.db")
    pool = LocalWorkers([Slot("cpu", 1)], options, location, logs, reaper)
    pool.workers[0].command = [sys.executable, "-c", script]
    return pool


def poll_until_finished(pool: LocalWorkers) -> None:
    """Poll the workers until they have ended."""
    until(pool.is_finished, "all workers have ended")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait between two workers."""
    monkeypatch.setattr(local_workers, "BACKOFF_S", 0.001)


DIES = "import os; print('last words', flush=True); os.abort()"


class TestInterrupted:
    def test_outside(self, demo: Demo, tmp_path: Path) -> None:
        """A worker that was stopped from outside, while the run was not, is replaced."""
        mark = tmp_path / "mark"
        script = f"import pathlib, sys; mark = pathlib.Path({str(mark)!r}); first = not mark.exists(); mark.touch(); sys.exit({int(ExitCode.INTERRUPTED)} if first else 0)"
        pool = make_pool(demo, tmp_path, script)
        with pool.running():
            poll_until_finished(pool)
        pool.raise_failure()
        assert mark.exists()
        assert pool.workers[0].deaths == 1


class TestUnexplained:
    def test_exit(self, demo: Demo, tmp_path: Path) -> None:
        """A worker that exits without an error is replaced like one that died; finally its exit code is reported."""
        pool = make_pool(demo, tmp_path, "import os; os._exit(7)")
        with pool.running():
            poll_until_finished(pool)
        assert pool.workers[0].deaths > 2
        with pytest.raises(SearchError, match="the last time with exit code 7 and an empty log"):
            pool.raise_failure()


class TestDeaths:
    def test_released(self, demo: Demo, tmp_path: Path) -> None:
        """The trial of a dead worker is released as soon as the death is noticed, with the end of its log."""
        pool = make_pool(demo, tmp_path, DIES)
        with pool.running():
            process = pool.workers[0].process
            assert process is not None
            claim = demo.start([0.1], worker=worker_name(process.pid))
            process.wait(PATIENCE_S)
            pool.is_finished()
            (line,) = demo.store.trials.list_progress(demo.stored.id)
            assert (line.trial_id, line.state, line.lost) == (claim.trial_id, "paused", 1)
            trial = demo.store.trials.find_trial(demo.stored.id, 0)
            assert trial is not None
            assert trial.error == "last words"
            pool.workers[0].command = [sys.executable, "-c", ""]
            poll_until_finished(pool)
        pool.raise_failure()

    def test_no_progress(self, demo: Demo, tmp_path: Path) -> None:
        """A slot in which workers die without progress of the study is abandoned, with the end of the log."""
        pool = make_pool(demo, tmp_path, DIES)
        with pool.running():
            poll_until_finished(pool)

        assert pool.workers[0].deaths == local_workers.MAX_DEATHS + 1
        with pytest.raises(SearchError, match="last words"):
            pool.raise_failure()

    def test_progress(self, demo: Demo, tmp_path: Path) -> None:
        """As long as the study makes progress, a worker is replaced however many times it dies."""
        claim = demo.start([0.1])
        pool = make_pool(demo, tmp_path, DIES)

        def is_replaced(pid: int) -> bool:
            assert not pool.is_finished()
            return pool.workers[0].process.pid != pid  # type: ignore[union-attr]

        with pool.running():
            for epoch in range(2, 2 + 2 * local_workers.MAX_DEATHS):
                pid = pool.workers[0].process.pid  # type: ignore[union-attr]
                demo.epochs(claim, [0.1], first=epoch)
                until(partial(is_replaced, pid), "the worker is replaced")
            pool.workers[0].command = [sys.executable, "-c", ""]
            poll_until_finished(pool)
        pool.raise_failure()

    @pytest.mark.parametrize(
        ("code", "description"),
        [
            (-9, "was ended by signal 9 (SIGKILL)"),
            (-63, "was ended by signal 63"),
            (1, "ended with exit code 1"),
        ],
    )
    def test_how(self, code: int, description: str) -> None:
        """A signal is described by its number and its name, if it has one."""
        assert describe_exit(code) == description


class TestExpired:
    def test_others(self, demo: Demo) -> None:
        """Trials that workers of other machines left are released too."""
        let_lapse(demo.store, demo.start([0.1]))

        TrialReaper(demo.store, demo.stored.id).reap_trials()

        assert [line.state for line in demo.store.trials.list_progress(demo.stored.id)] == [
            "paused"
        ]
