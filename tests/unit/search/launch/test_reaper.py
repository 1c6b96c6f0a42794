"""What a supervisor does for the trials of its workers: workers of this machine with scripts in place of the real command."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from search.launch import local
from search.launch.devices import Slot
from search.launch.local import LocalWorkers
from search.launch.reaper import TrialCare, ended_by
from search.worker.identity import worker_name
from spaces.errors import SearchError
from storage.location import StoreLocation
from tests.unit.search.conftest import Demo


def team(demo: Demo, logs: Path, script: str) -> LocalWorkers:
    """One worker, which runs a script in place of the real command."""
    made = LocalWorkers([Slot("cpu", 1)], [], StoreLocation.parse("sqlite:///search.db"), logs)
    made.workers[0].command = [sys.executable, "-c", script]
    made.care = TrialCare(demo.store, demo.stored.id)
    return made


def let_end(team: LocalWorkers) -> None:
    """Look at it until it has ended."""
    deadline = time.monotonic() + 60
    while not team.finished():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two workers."""
    monkeypatch.setattr(local, "BACKOFF_S", 0.001)


DIES = "import os; print('last words', flush=True); os.abort()"


class TestTakenAway:
    def test_terminated(self, demo: Demo, tmp_path: Path) -> None:
        """A worker that somebody told to end, and not the whole run, makes room for another one."""
        mark = tmp_path / "mark"
        script = f"import pathlib, sys; mark = pathlib.Path({str(mark)!r}); first = not mark.exists(); mark.touch(); sys.exit(130 if first else 0)"
        made = team(demo, tmp_path, script)
        with made.running():
            let_end(made)
        made.check()
        assert mark.exists()
        assert made.workers[0].deaths == 1


class TestWordless:
    def test_exit(self, demo: Demo, tmp_path: Path) -> None:
        """A worker that ends with some exit code and no word of why is replaced like one that died, and in the end the code is told."""
        made = team(demo, tmp_path, "import os; os._exit(7)")
        with made.running():
            let_end(made)
        assert made.workers[0].deaths > 2
        with pytest.raises(SearchError, match="the last time with exit code 7, and said nothing"):
            made.check()


class TestDeaths:
    def test_given_back(self, demo: Demo, tmp_path: Path) -> None:
        """What a dead worker held is given back as soon as it is seen to be dead, with how it ended and its last words."""
        made = team(demo, tmp_path, DIES)
        with made.running():
            process = made.workers[0].process
            assert process is not None
            claim = demo.start([0.1], worker=worker_name(process.pid))
            process.wait(60)
            made.finished()
            (line,) = demo.store.trials.list_progress(demo.stored.id)
            assert (line.trial_id, line.state, line.lost) == (claim.trial_id, "paused", 1)
            trial = demo.store.trials.find_trial(demo.stored.id, 0)
            assert trial is not None
            assert trial.error == "last words"
            made.workers[0].command = [sys.executable, "-c", ""]
            let_end(made)
        made.check()

    def test_no_progress(self, demo: Demo, tmp_path: Path) -> None:
        """A place in which one worker after the other dies while the study does not get on is given up, and says how they ended."""
        made = team(demo, tmp_path, DIES)
        with made.running():
            let_end(made)

        assert made.workers[0].deaths == local.MAX_DEATHS + 1
        with pytest.raises(SearchError, match="last words"):
            made.check()

    def test_progress(self, demo: Demo, tmp_path: Path) -> None:
        """As long as the study gets on, a worker is replaced however often it dies."""
        claim = demo.start([0.1])
        made, deaths, epoch = team(demo, tmp_path, DIES), 0, 1
        deadline = time.monotonic() + 60
        with made.running():
            while deaths < 2 * local.MAX_DEATHS:
                assert time.monotonic() < deadline
                pid = made.workers[0].process.pid  # type: ignore[union-attr]
                epoch += 1
                demo.epochs(claim, [0.1], first=epoch)
                while made.workers[0].process.pid == pid:  # type: ignore[union-attr]
                    assert not made.finished()
                    time.sleep(0.01)
                deaths += 1
            made.workers[0].command = [sys.executable, "-c", ""]
            let_end(made)
        made.check()

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            (-9, "was ended by signal 9 (SIGKILL)"),
            (-63, "was ended by signal 63"),
            (1, "ended with exit code 1"),
        ],
    )
    def test_how(self, code: int, told: str) -> None:
        """A signal is told by its number and its name, if it has one."""
        assert ended_by(code) == told


class TestSilence:
    def test_others(self, demo: Demo) -> None:
        """A supervisor gives back what workers of other machines left behind, too."""
        demo.store.leases.renew_lease(demo.start([0.1]), 1e-9)
        time.sleep(0.01)

        TrialCare(demo.store, demo.stored.id).look()

        assert [line.state for line in demo.store.trials.list_progress(demo.stored.id)] == [
            "paused"
        ]
