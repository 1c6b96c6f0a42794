"""What a Slurm job does, run by submitit's local executor; a real Slurm runs it in benchmarks/slurm_preemption.py."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
import submitit

from search.launch.slurm_task import ADDRESS, STOP_MARK, SlurmTask, end_file
from search.session import open_session
from spaces.loader import load_study
from storage.location import StoreLocation
from tests.acceptance.studies import BASE, QUIET, progress, stored_trials, write_study
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
        open_session(
            load_study(str(write_study(folder, **changes))), StoreLocation.parse(url)
        ).store.close()
        task = SlurmTask(self.folder, folder / "files", folder, 0, "tiny", "auto", 1, "off")
        executor = submitit.LocalExecutor(folder=self.folder)
        self.job = executor.submit(task)

    def process(self) -> psutil.Process:
        """The worker's own."""
        holders = [trial.pid for trial in stored_trials(self.url) if trial.pid is not None]
        return psutil.Process(holders[0])

    def end(self) -> dict[str, object]:
        """What the task left word of."""
        until(
            lambda: end_file(self.folder, 0).exists(),
            f"the task has ended, which told {self.job.stdout()}",
        )
        told: dict[str, object] = json.loads(end_file(self.folder, 0).read_text())
        return told


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("SEARCH_STORE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_stop(tmp_path: Path, sqlite_url: str) -> None:
    """SIGTERM reaches the worker once: the trial goes back with a checkpoint, and word of that is left when the whole run was to stop."""
    submitted = Submitted(tmp_path, sqlite_url, epochs=200, trials=1, signals=QUIET)
    until(
        lambda: any(trial.epochs >= 2 for trial in progress(sqlite_url)), "the trial is on its way"
    )
    worker = submitted.process()
    (submitted.folder / STOP_MARK).touch()
    worker.terminate()
    assert submitted.end() == {"code": 130, "told": []}
    assert [trial.state for trial in stored_trials(sqlite_url)] == ["paused"]
    assert list((tmp_path / "files" / "tiny").glob("trial-00000*.ckpt"))
    until(
        lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE,
        "the process is gone",
    )


def test_bad_input(tmp_path: Path, sqlite_url: str) -> None:
    """A worker that cannot go on says why, in the words of the error."""
    submitted = Submitted(tmp_path, sqlite_url, base=BASE | {"data": DATA}, trials=1)
    told = submitted.end()
    assert told["code"] == 2
    assert "nowhere" in "\n".join(told["told"])  # type: ignore[arg-type]
    assert str(told["told"][0]).startswith("error: ")  # type: ignore[index]
