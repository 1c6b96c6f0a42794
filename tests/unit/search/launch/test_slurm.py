"""How the supervisor handles the ends of its Slurm jobs, with fake answers of Slurm.

A real Slurm runs in benchmarks/slurm_preemption.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from search.launch import slurm
from search.launch import slurm_queue as queue
from search.launch.slurm import (
    MAX_RESTARTS,
    UNANSWERED_S,
    JobArray,
    SlurmWorker,
    SlurmWorkers,
)
from search.launch.slurm_task import TaskEnd
from search.worker.options import WorkerOptions
from spaces.errors import LauncherError, SearchError
from spaces.exit_codes import ExitCode
from storage.location import StoreLocation


class Cluster(SlurmWorkers):
    """Two workers on a cluster that accepts or refuses jobs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            JobArray(2, "cuda", 1, {}),
            WorkerOptions("demo"),
            StoreLocation.parse("postgresql://host/db"),
            folder,
        )
        self.submitted: list[list[int]] = []
        self.accepts_jobs = True
        self.folder.mkdir(parents=True)
        self._submit_jobs(self._workers)

    def _submit_jobs(self, workers: Sequence[SlurmWorker]) -> None:
        self.submitted.append([worker.task.index for worker in workers])
        if not self.accepts_jobs:
            for worker in workers:
                worker.is_over = True
            raise LauncherError("Slurm does not accept the jobs")
        for worker in workers:
            worker.job, worker.state = f"{len(self.submitted)}{worker.task.index}", "RUNNING"
            worker.starts.append(slurm.time.monotonic())

    def end_worker(self, index: int, code: int) -> None:
        """A worker ended by itself."""
        TaskEnd(code).write_file(self.folder, index)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """With both jobs running."""
    monkeypatch.setattr(queue, "list_states", lambda jobs: dict.fromkeys(jobs, "RUNNING"))
    monkeypatch.setattr(queue, "cancel_jobs", lambda jobs, *options: None)
    monkeypatch.setattr(slurm, "POLL_S", 0.0)
    return Cluster(tmp_path)


class TestRestart:
    def test_again(self, cluster: Cluster) -> None:
        """A worker that asks for a restart gets a new job, and the others continue."""
        cluster.end_worker(1, ExitCode.RESTART)
        assert not cluster.poll()
        assert cluster.submitted == [[0, 1], [1]]
        assert TaskEnd.read_file(cluster.folder, 1) is None
        cluster.raise_failure()

    def test_again_and_again(self, cluster: Cluster) -> None:
        """Not forever, when the study makes no progress."""
        for _ in range(MAX_RESTARTS + 1):
            cluster.end_worker(1, ExitCode.RESTART)
            cluster.poll()
        with pytest.raises(SearchError, match="again and again"):
            cluster.raise_failure()


class TestRefused:
    def lose(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """Slurm has lost the job of worker 0, and refuses another."""
        cluster.accepts_jobs = False
        monkeypatch.setattr(
            queue,
            "list_states",
            lambda jobs: {job: "RUNNING" for job in jobs if not job.endswith("0")},
        )

    def test_later(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """A job that Slurm refuses for the moment is submitted again; the run continues meanwhile."""
        self.lose(cluster, monkeypatch)
        assert not cluster.poll()
        assert not cluster.poll()
        assert cluster.submitted == [[0, 1], [0], [0]]
        cluster.accepts_jobs = True
        assert not cluster.poll()
        monkeypatch.setattr(queue, "list_states", lambda jobs: dict.fromkeys(jobs, "RUNNING"))
        assert not cluster.poll()
        assert len(cluster.submitted) == 4

    def test_for_good(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """After ten minutes of refusals the run ends with Slurm's message."""
        self.lose(cluster, monkeypatch)
        cluster._accepted_s -= UNANSWERED_S + 1
        with pytest.raises(LauncherError, match="does not accept the jobs"):
            cluster.poll()
