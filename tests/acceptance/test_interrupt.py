"""A search that is interrupted, or whose processes are killed, resumes as if nothing had happened."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

from search.worker.lease import LEASE_S
from spaces.records import EpochRecord
from storage.rows import StoredTrial
from tests.acceptance.gates import Gate
from tests.acceptance.studies import (
    BASE,
    ENDLESS_EPOCHS,
    QUIET,
    expire_lease,
    progress,
    repeatable,
    stored_records,
    stored_trials,
    url_in,
    write_study,
)
from tests.acceptance.terminal import Job, Terminal, until
from tests.postgresql import PostgresServer, start, start_server

LONG = {
    "epochs": 8,
    "trials": 2,
    "presets": ["recommended"],
    "signals": QUIET,
    "base": BASE | {"schedule": {"lr": "cosine", "dice_ce_only_epochs": 2}},
}
"""Two trials, of which the tests interrupt one in its midst, at a gate."""

STEPS = BASE | {"batch_size": 4}
"""Eight steps in an epoch, so that one can be interrupted between two of them."""

RUN = ("run", "--study", "tiny.yaml", "--devices", "cpu")
INTERRUPTED = 130


@dataclass(frozen=True)
class Kept:
    """What a study left in the store."""

    trials: list[StoredTrial]
    records: dict[int, list[EpochRecord]]


def kept(folder: Path) -> Kept:
    """What the study in this folder left in its store."""
    return Kept(stored_trials(url_in(folder)), stored_records(url_in(folder)))


def reached(folder: Path, number: int, epochs: int) -> bool:
    """Whether the trial of that number has so many epochs behind it."""
    return any(
        trial.number == number and trial.epochs >= epochs for trial in progress(url_in(folder))
    )


def checkpoints(folder: Path) -> list[str]:
    """The files of checkpoints in this folder."""
    return sorted(path.name for path in (folder / "search.files").rglob("*.ckpt*"))


def logs(folder: Path) -> str:
    """What the workers of the study in this folder logged."""
    return "".join(
        log.read_text() for log in (folder / "search.files" / "tiny").glob("worker-*.log")
    )


@dataclass(frozen=True)
class Undisturbed:
    """The study without an interruption. It runs in parallel with the first test that needs it."""

    job: Job
    folder: Path

    def kept(self) -> Kept:
        """What it left in the store, once it has ended."""
        answer = self.job.wait()
        assert answer.code == 0, answer.text
        return kept(self.folder)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, lasting_terminal: Terminal
) -> Undisturbed:
    """The long study, by one worker."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_study(folder, **LONG)
    return Undisturbed(lasting_terminal.start(*RUN, "--workers", "1", folder=folder), folder)


class TestInterrupt:
    def test_resumes(self, terminal: Terminal, tmp_path: Path, undisturbed: Undisturbed) -> None:
        """After Ctrl-C the current trial waits with its checkpoint; the same command ends the study with the scores of an unbroken one."""
        write_study(tmp_path, **LONG)
        gate = Gate(tmp_path / "gate", training=2, epoch=5)
        job = terminal.start(*RUN, "--workers", "1", folder=tmp_path, **gate.variables)
        gate.wait()
        job.interrupt()
        stopped = job.wait()
        paused = kept(tmp_path)

        assert (stopped.code, stopped.err) == (INTERRUPTED, "")
        assert job.alive() == []
        assert [trial.state for trial in paused.trials] == ["complete", "paused"]
        assert len(paused.records[1]) == 5
        assert 1 <= len(checkpoints(tmp_path)) <= 2
        assert all(name.startswith("trial-00001.1.") for name in checkpoints(tmp_path))
        assert "trial 1 released after epoch" in stopped.out

        resumed = terminal.run(*RUN, "--workers", "1", folder=tmp_path)
        ended, unbroken = kept(tmp_path), undisturbed.kept()
        assert (resumed.code, resumed.err) == (0, "")
        assert f"trial 1 resumed after epoch {len(paused.records[1])}" in resumed.out
        assert [trial.state for trial in ended.trials] == ["complete", "complete"]
        assert [trial.attempt for trial in ended.trials] == [1, 2]
        assert ended.trials[0] == paused.trials[0]
        assert [trial.score for trial in ended.trials] == [trial.score for trial in unbroken.trials]
        assert repeatable(ended.records) == repeatable(unbroken.records)
        assert checkpoints(tmp_path) == []

    def test_twice(self, terminal: Terminal, tmp_path: Path) -> None:
        """A second Ctrl-C ends the command in the midst of an epoch, and the trial goes back to the study."""
        write_study(tmp_path, trials=1, presets=[])
        gate = Gate(tmp_path / "gate", epoch=1, signal_opens=False)
        job = terminal.start(*RUN, "--workers", "1", folder=tmp_path, **gate.variables)
        gate.wait()
        job.interrupt()
        gate.wait_for_signals(1)  # two signals at one moment are one
        assert job.said().code == -1000, "it waits for the end of the epoch"
        job.interrupt()
        stopped = job.wait()

        assert (stopped.code, stopped.err) == (INTERRUPTED, "")
        assert job.alive() == []
        assert [(trial.state, trial.epochs) for trial in progress(url_in(tmp_path))] == [
            ("paused", 0)
        ]
        assert checkpoints(tmp_path) == []

    def test_terminated(self, terminal: Terminal, tmp_path: Path, undisturbed: Undisturbed) -> None:
        """After SIGTERM the current trial waits with its checkpoint, within an epoch or not; it resumes and reaches the scores of an unbroken one."""
        write_study(tmp_path, **LONG | {"trials": 1})
        gate = Gate(tmp_path / "gate", epoch=5)
        job = terminal.start(*RUN, "--workers", "1", folder=tmp_path, **gate.variables)
        gate.wait()
        job.terminate()
        stopped, paused = job.wait(), kept(tmp_path)

        assert stopped.code == INTERRUPTED, stopped.text
        assert job.alive() == []
        assert [trial.state for trial in paused.trials] == ["paused"]
        assert len(checkpoints(tmp_path)) == 1

        resumed = terminal.run(*RUN, "--workers", "1", folder=tmp_path)
        ended, unbroken = kept(tmp_path), undisturbed.kept()
        assert resumed.code == 0, resumed.text
        assert [(trial.state, trial.attempt) for trial in ended.trials] == [("complete", 2)]
        assert ended.trials[0].score == unbroken.trials[0].score
        assert repeatable(ended.records)[0] == repeatable(unbroken.records)[0]

    def test_terminated_midway(self, terminal: Terminal, tmp_path: Path) -> None:
        """SIGTERM, sent to every process at once as a cluster does, does not wait for the end of a long epoch, and what was trained of it is kept."""
        write_study(tmp_path, trials=1, base=STEPS, presets=[])
        gate = Gate(tmp_path / "gate", epoch=1, steps=2, signal_opens=False)
        job = terminal.start(*RUN, "--workers", "1", folder=tmp_path, **gate.variables)
        gate.wait()
        for process in job.workers():
            process.terminate()
        gate.wait_for_signals(1)  # the next one at the same moment would be the same one
        job.terminate()
        gate.wait_for_signals(2)
        gate.open()
        stopped = job.wait()

        assert (stopped.code, stopped.err) == (INTERRUPTED, "")
        assert job.alive() == []
        assert [(trial.state, trial.epochs) for trial in progress(url_in(tmp_path))] == [
            ("paused", 0)
        ]
        (path,) = (tmp_path / "search.files").rglob("*.ckpt")
        assert torch.load(path, weights_only=True)["midway"]["means"]["steps"] == 3

    def test_at_the_start(self, terminal: Terminal, tmp_path: Path) -> None:
        """Ctrl-C while the workers are still starting ends them without a complaint, and the study can begin later."""
        write_study(tmp_path, epochs=ENDLESS_EPOCHS, signals=QUIET)
        job = terminal.start(*RUN, "--workers", "2", folder=tmp_path)
        until(lambda: len(job.workers()) == 2, "there are workers")
        job.interrupt()
        stopped = job.wait()

        assert stopped.code == INTERRUPTED
        assert "Traceback" not in stopped.text
        assert job.alive() == []
        assert {trial.state for trial in stored_trials(url_in(tmp_path))} <= {"paused"}


class TestKill:
    def test_supervisor(self, terminal: Terminal, tmp_path: Path) -> None:
        """Workers whose supervisor was killed notice, keep their trials for the next run, and end."""
        write_study(tmp_path, **LONG | {"epochs": ENDLESS_EPOCHS})
        job = terminal.start(*RUN, "--workers", "2", folder=tmp_path)
        until(lambda: reached(tmp_path, 0, 2) and reached(tmp_path, 1, 2), "both workers train")
        assert len(job.workers()) == 2
        job.kill()
        until(lambda: job.alive() == [], "the workers have ended")

        left = kept(tmp_path)
        assert [trial.state for trial in left.trials] == ["paused", "paused"]
        assert all(len(records) >= 2 for records in left.records.values())
        assert {name.split(".")[0] for name in checkpoints(tmp_path)} == {
            "trial-00000",
            "trial-00001",
        }

    def test_worker(self, terminal: Terminal, tmp_path: Path, undisturbed: Undisturbed) -> None:
        """A killed worker is replaced, its trial is released and resumed immediately, and the budget stays exact."""
        write_study(tmp_path, **LONG)
        gate = Gate(tmp_path / "gate", epoch=5)
        job = terminal.start(*RUN, "--workers", "1", folder=tmp_path, **gate.variables)
        gate.wait()
        (victim,) = job.workers()
        victim.kill()
        answer = job.wait()
        ended, unbroken = kept(tmp_path), undisturbed.kept()

        assert (answer.code, answer.err) == (0, "")
        assert [(trial.state, trial.attempt) for trial in ended.trials] == [
            ("complete", 2),
            ("complete", 1),
        ]
        lost = rf"trial 0 re(leased|sumed) after .*worker .*:{victim.pid} stopped responding"
        assert re.search(lost, answer.out)
        assert [trial.score for trial in ended.trials] == [trial.score for trial in unbroken.trials]
        assert repeatable(ended.records) == repeatable(unbroken.records)

    def test_stopped(self, terminal: Terminal, tmp_path: Path, undisturbed: Undisturbed) -> None:
        """A worker that stood still beyond its lease writes nothing more to its trial, says so, and the other one's scores are as ever."""
        write_study(tmp_path, **LONG)
        gate = Gate(tmp_path / "gate", epoch=5)
        job = terminal.start(*RUN, "--workers", "1", folder=tmp_path, **gate.variables)
        sleeper = psutil.Process(gate.wait())
        sleeper.suspend()
        threads = str(
            len(os.sched_getaffinity(0))
        )  # as many as the only worker has: sums depend on it in their last bits
        other = terminal.start("worker", "--study", "tiny", "--threads", threads, folder=tmp_path)
        expire_lease(url_in(tmp_path), 0, LEASE_S)
        until(
            lambda: (
                [line.attempt for line in progress(url_in(tmp_path)) if line.number == 0] == [2]
            ),
            "the other worker has it",
        )
        gate.open()
        sleeper.resume()
        answer = job.wait()
        assert other.wait().code == 0
        ended, unbroken = kept(tmp_path), undisturbed.kept()

        assert (answer.code, answer.err) == (0, "")
        assert ended.trials[0].pid == other.pid
        lost = "attempt 1 can no longer write to it; continuing with other work"
        assert lost in logs(tmp_path)
        assert [trial.score for trial in ended.trials] == [trial.score for trial in unbroken.trials]
        assert repeatable(ended.records) == repeatable(unbroken.records)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of its own, to be stopped and started again."""
    made = start_server(f"search-pg-{uuid.uuid4().hex[:12]}")
    yield made
    made.cleanup()


CONTINUES = "training continues, its epochs are written later"


class TestLostStore:
    AWAY_S = LEASE_S + 1
    """Every lease is over by then."""

    def test_restart(
        self, terminal: Terminal, tmp_path: Path, server: PostgresServer, undisturbed: Undisturbed
    ) -> None:
        """The database's server stops twice in the middle of a trial, once for longer than a lease: no epoch is lost or trained again."""
        write_study(tmp_path, **LONG)
        gate = Gate(tmp_path / "gate", epoch=4)
        job = terminal.start(
            *RUN, "--workers", "1", folder=tmp_path, SEARCH_STORE=server.get_uri(), **gate.variables
        )
        gate.wait()
        server.stop()
        start(server)
        server.stop()
        gate.open()
        until(lambda: CONTINUES in logs(tmp_path), "training continues without the server")
        time.sleep(self.AWAY_S)  # the outage itself: a lease ends by the database's clock
        start(server)
        answer = job.wait()
        trials, records = stored_trials(server.get_uri()), stored_records(server.get_uri())
        unbroken = undisturbed.kept()

        assert answer.code == 0, answer.text
        assert [(trial.state, trial.lost) for trial in progress(server.get_uri())] == [
            ("complete", 0),
            ("complete", 0),
        ]
        assert (
            trials[0].attempt == 1
        )  # the other one may have been claimed at the moment at which the server stopped
        assert [trial.score for trial in trials] == [trial.score for trial in unbroken.trials]
        assert repeatable(records) == repeatable(unbroken.records)
        assert CONTINUES in answer.text


def test_job_ends(terminal: Terminal, tmp_path: Path) -> None:
    """What these tests start is ended with all that it started, also when its supervisor died first."""
    write_study(tmp_path)
    job: Job = terminal.start(*RUN, "--workers", "1", folder=tmp_path)
    until(lambda: len(job.workers()) == 1, "there is a worker")
    job.kill()
    job.end()
    assert job.alive() == []
