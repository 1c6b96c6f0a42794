"""Workers of this machine: their logs, and what is made of how they end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from search.launch.devices import Slot
from search.launch.local import LocalWorkers
from spaces.errors import InputError, SearchError
from storage.location import StoreLocation


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Where the logs go."""
    return tmp_path / "search.files" / "demo"


def ended(logs: Path, *scripts: str) -> LocalWorkers:
    """Workers, each of which runs a script in place of the real command, after they ended."""
    team = LocalWorkers(
        [Slot("cpu", 1) for _ in scripts], [], StoreLocation.parse("sqlite:///search.db"), logs
    )
    for worker, script in zip(team.workers, scripts, strict=True):
        worker.command = [sys.executable, "-c", script]
    with team.running():
        for worker in team.workers:
            assert worker.process is not None
            worker.process.wait(60)
        assert team.finished()
    return team


class TestCheck:
    def test_done(self, logs: Path) -> None:
        """Workers that ended well are nothing to speak of."""
        ended(logs, "print('done')").check()

    def test_bad_input(self, logs: Path) -> None:
        """Bad input is told once, in the worker's own words from its error on, and nothing is added to them."""
        team = ended(
            logs, "print('warning: mind\\nerror: no data\\n  where:   data'); raise SystemExit(2)"
        )
        with pytest.raises(InputError) as caught:
            team.check()
        assert str(caught.value) == "no data\n  where:   data"
        assert team.warnings() == ["mind"]

    def test_crash(self, logs: Path) -> None:
        """A worker that broke down is told by the last line of its log, with the place of the rest."""
        team = ended(logs, "raise ZeroDivisionError('by 0')")
        with pytest.raises(
            SearchError, match="a worker ended unexpectedly: ZeroDivisionError: by 0"
        ) as caught:
            team.check()
        assert str(caught.value).endswith(f"log:     {logs / 'worker-0.log'}")


class TestForgetLogs:
    def test_new(self, logs: Path, tmp_path: Path) -> None:
        """The logs of a first run go with their folders."""
        ended(logs, "print(1)", "print(2)").forget_logs()
        assert list(tmp_path.iterdir()) == []

    def test_earlier(self, logs: Path) -> None:
        """What earlier runs wrote, and other files, stay."""
        logs.mkdir(parents=True)
        (logs / "worker-0.log").write_text("earlier\n")
        (logs / "trial-00000.ckpt").write_bytes(b"x")
        ended(logs, "print(1)", "print(2)").forget_logs()
        assert sorted(path.name for path in logs.iterdir()) == ["trial-00000.ckpt", "worker-0.log"]
        assert (logs / "worker-0.log").read_text() == "earlier\n"
