"""What a Slurm job does, run by submitit's local executor; a real Slurm runs it in benchmarks/slurm_preemption.py."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import submitit

from search.launch.slurm_task import ADDRESS, STOP_MARK, SlurmTask, TaskEnd, task_events_path
from search.session import open_session
from search.worker.events import last_error, read_events
from search.worker.options import WorkerOptions
from spaces.exit_codes import ExitCode
from spaces.loader import load_study
from storage.location import StoreLocation
from tests.acceptance.studies import (
    BASE,
    QUIET,
    progress,
    stored_trials,
    write_study,
)
from tests.acceptance.terminal import until

DATA = {
    "kind": "folder",
    "root": "nowhere",
    "classes": ["road", "car", "person"],
    "height": 32,
    "width": 32,
    "loader_workers": 0,
}
"""A folder that is not there."""


class Submitted:
    """A study, and one task of an array that works on it."""

    def __init__(self, folder: Path, url: str, **changes: object) -> None:
        self.url, self.folder = url, folder / "run"
        self.folder.mkdir()
        (self.folder / ADDRESS).write_text(url)
        spec = load_study(str(write_study(folder, **changes)))
        open_session(spec, StoreLocation.parse(url)).close()
        options = WorkerOptions("tiny", "auto")
        task = SlurmTask(self.folder, folder / "files", folder, 0, options)
        executor = submitit.LocalExecutor(folder=self.folder)
        self.job = executor.submit(task)

    def process(self) -> psutil.Process:
        """The worker's own."""
        holders = [trial.pid for trial in stored_trials(self.url) if trial.pid is not None]
        return psutil.Process(holders[0])

    def read_end(self) -> TaskEnd:
        """How the worker ended."""
        until(
            lambda: TaskEnd.read_file(self.folder, 0) is not None,
            f"the task has ended, which printed {self.job.stdout()}",
        )
        end = TaskEnd.read_file(self.folder, 0)
        assert end is not None
        return end


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("SEARCH_STORE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_stop(tmp_path: Path, sqlite_url: str) -> None:
    """SIGTERM reaches the worker once: it releases the trial with a checkpoint, and writes its end when the whole run stops."""
    submitted = Submitted(tmp_path, sqlite_url, epochs=200, trials=1, signals=QUIET)
    until(
        lambda: any(trial.epochs >= 2 for trial in progress(sqlite_url)), "the trial is on its way"
    )
    worker = submitted.process()
    (submitted.folder / STOP_MARK).touch()
    worker.terminate()
    assert submitted.read_end() == TaskEnd(ExitCode.INTERRUPTED)
    assert last_error(read_events(task_events_path(submitted.folder, 0))) is None
    assert [trial.state for trial in stored_trials(sqlite_url)] == ["paused"]
    assert list((tmp_path / "files" / "tiny").glob("trial-00000*.ckpt"))
    until(
        lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE,
        "the process is gone",
    )


def test_bad_input(tmp_path: Path, sqlite_url: str) -> None:
    """A worker that cannot continue reports its error."""
    submitted = Submitted(tmp_path, sqlite_url, base=BASE | {"data": DATA}, trials=1)
    assert submitted.read_end() == TaskEnd(ExitCode.BAD_INPUT)
    error = last_error(read_events(task_events_path(submitted.folder, 0)))
    assert error is not None
    assert "nowhere" in error
