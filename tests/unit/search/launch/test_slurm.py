"""What the supervisor makes of how its Slurm jobs end. Slurm itself runs in benchmarks/slurm_preemption.py; here its answers are given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from search.launch import slurm
from search.launch import slurm_queue as queue
from search.launch.slurm import RESTARTS, UNHEARD_S, Array, SlurmWorker, SlurmWorkers
from search.launch.slurm_task import end_file
from spaces.errors import LauncherError, SearchError, WorkerRestartRequired


class Cluster(SlurmWorkers):
    """Two workers on a cluster that takes jobs, or does not."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            Array(2, "cuda", 1, {}),
            ["--study", "demo", "--wandb", "off"],
            "postgresql://host/db",
            folder,
        )
        self.submitted: list[list[int]] = []
        self.takes_jobs = True
        self.folder.mkdir(parents=True)
        self._submit(self._workers)

    def _submit(self, workers: Sequence[SlurmWorker]) -> None:
        self.submitted.append([worker.task.index for worker in workers])
        if not self.takes_jobs:
            for worker in workers:
                worker.over = True
            raise LauncherError("Slurm does not take the jobs")
        for worker in workers:
            worker.job, worker.state = f"{len(self.submitted)}{worker.task.index}", "RUNNING"
            worker.starts.append(slurm.time.monotonic())

    def left(self, index: int, code: int) -> None:
        """A task wrote how it ended."""
        end_file(self.folder, index).write_text(
            json.dumps({"code": code, "told": ["error: a trial failed on the device"]})
        )


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """With both jobs running."""
    monkeypatch.setattr(queue, "states", lambda jobs: dict.fromkeys(jobs, "RUNNING"))
    monkeypatch.setattr(queue, "cancel", lambda jobs, *options: None)
    monkeypatch.setattr(slurm, "POLL_S", 0.0)
    return Cluster(tmp_path)


class TestSpent:
    def test_again(self, cluster: Cluster) -> None:
        """A worker whose process is spent gets a new job, and the others are left alone."""
        cluster.left(1, WorkerRestartRequired.exit_code)
        assert not cluster.look()
        assert cluster.submitted == [[0, 1], [1]]
        assert not end_file(cluster.folder, 1).exists()
        cluster.check()

    def test_again_and_again(self, cluster: Cluster) -> None:
        """Not for ever, where the study does not get on."""
        for _ in range(RESTARTS + 1):
            cluster.left(1, WorkerRestartRequired.exit_code)
            cluster.look()
        with pytest.raises(SearchError, match="again and again"):
            cluster.check()


class TestRefused:
    def lose(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """Slurm knows the job of worker 0 no more, and takes no other."""
        cluster.takes_jobs = False
        monkeypatch.setattr(
            queue, "states", lambda jobs: {job: "RUNNING" for job in jobs if not job.endswith("0")}
        )

    def test_later(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """A job that Slurm does not take at the moment is offered again; the run goes on meanwhile."""
        self.lose(cluster, monkeypatch)
        assert not cluster.look()
        assert not cluster.look()
        assert cluster.submitted == [[0, 1], [0], [0]]
        cluster.takes_jobs = True
        assert not cluster.look()
        monkeypatch.setattr(queue, "states", lambda jobs: dict.fromkeys(jobs, "RUNNING"))
        assert not cluster.look()
        assert len(cluster.submitted) == 4

    def test_for_good(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """After ten minutes of that the run ends with Slurm's words."""
        self.lose(cluster, monkeypatch)
        cluster._taken_s -= UNHEARD_S + 1
        with pytest.raises(LauncherError, match="does not take the jobs"):
            cluster.look()
