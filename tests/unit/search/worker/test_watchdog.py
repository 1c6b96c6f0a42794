"""A training that hangs is noticed by its steps, whatever the rest of its process does."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from search.session import open_session
from search.worker import lease
from search.worker import watchdog as module
from search.worker.identity import worker_name
from search.worker.stop import StopRequest
from search.worker.watchdog import FIRST_TIMES, HANG_AFTER_S, Progress
from spaces.errors import LeaseLostError, WorkerRestartRequired
from spaces.loader import load_study
from storage.location import StoreLocation
from storage.rows import Claim, Death

HANGING = """
import sys, time
from objectives.segmentation.train import Run
sound = Run.accumulate
def never_ends(self, group, means):
    while self.epoch == 2 and means.steps == 1:
        time.sleep(1)
    return sound(self, group, means)
Run.accumulate = never_ends
from search.cli import main
sys.argv = ["search", "worker", "--study", sys.argv[1]]
main()
"""
"""A worker whose second epoch hangs in its second step."""


class Clock:
    """Time that passes as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In place of the real one."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def endless() -> Iterator[int]:
    """Records."""
    yield from range(1000)


class TestProgress:
    def test_only_within_the_training(self, clock: Clock) -> None:
        """Before it begins, and while its records are stored, however long, nothing hangs."""
        progress = Progress(10)
        clock.now += 1e6
        assert not progress.hung
        for _ in zip(range(3), progress.watched(endless()), strict=False):
            clock.now += 1e6
            assert not progress.hung
            assert progress.silent_s == 0

    def test_steps(self, clock: Clock) -> None:
        """Within the training a step may take as long as the study says, and the first one of an epoch four times that; the message tells which it is."""
        progress, seen = Progress(10), []

        def training() -> Iterator[int]:
            for _ in range(2):
                for allowed in (10 * FIRST_TIMES, 10, 10):
                    clock.now += allowed
                    seen.append(progress.hung)
                    clock.now += 1
                    seen.append(progress.hung)
                    told.append(progress.told())
                    progress.sign()
                yield 1

        told: list[str] = []
        assert list(progress.watched(training())) == [1, 1]
        assert seen == [False, True] * 6
        assert (
            told[-1]
            == "step 3 (those of its validation counted, too) of the epoch after 1 whole ones here has taken 11 s, where 10 s are allowed (hang_after_s)"
        )

    def test_longest_step(self, clock: Clock) -> None:
        """Unless told otherwise a step may take five minutes, or twenty times the longest one so far, the first one of an epoch left out."""
        progress, seen = Progress(), []

        def training() -> Iterator[int]:
            for took in (100, 2, 60, 3):
                clock.now += took
                progress.sign()
                seen.append(progress.limit_s)
            yield 1

        list(progress.watched(training()))
        assert seen == [HANG_AFTER_S, HANG_AFTER_S, 1200, 1200]

    def test_stood_still(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that was stopped for an hour is not hung when it goes on, but is when a step then takes too long; nor does the hour count as a long step."""
        monkeypatch.setattr(lease, "time", clock)
        progress = Progress(10)

        class Wait(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                clock.now += 3600 if timeout == 3 else timeout or 0
                return False

        def training() -> Iterator[int]:
            progress.sign()
            assert not lease.waited(Wait(), 3, progress)
            assert not progress.hung
            assert not lease.waited(Wait(), 11, progress)
            assert progress.hung
            progress.sign()
            yield 1

        list(progress.watched(training()))
        assert progress.longest_s == 11


def test_hung_after_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that hangs is noticed also by a worker that lost its trial: it would never come to the write that tells it so."""
    ended, asked = threading.Event(), []

    class Taken:
        def extend(self, claim: Claim, lease_s: float) -> float:
            asked.append(lease_s)
            raise LeaseLostError("another worker has it")

    monkeypatch.setattr(lease, "end_hung", lambda trial, progress: ended.set())
    progress = Progress(0.3)

    def training() -> Iterator[bool]:
        progress.sign()
        yield ended.wait(30)

    with lease.Lease(
        cast(Any, Taken()),
        cast(Any, SimpleNamespace(trial_id=1, number=0, device_left_s=math.inf)),
        StopRequest(),
        progress,
        lease_s=0.1,
    ):
        assert list(progress.watched(training())) == [True]
    assert len(asked) == 1


def test_hung_worker(tmp_path: Path) -> None:
    """A worker whose step hangs says which, with what all threads are at, and ends with the code on which it is replaced; its trial counts as lost."""
    url = f"sqlite:///{tmp_path / 'search.db'}"
    data = {"train_scenes": 16, "val_scenes": 8, "test_scenes": 8, "size": 32}
    spec = load_study(
        "lr_clip", {"epochs": 3, "trials": 1, "presets": [], "hang_after_s": 6, "base.data": data}
    )
    session = open_session(spec, StoreLocation.parse(url))
    with session.store as store:
        worker = subprocess.Popen(
            [sys.executable, "-c", HANGING, spec.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"SEARCH_STORE": url},
        )
        said, _ = worker.communicate(timeout=200)

        assert worker.returncode == WorkerRestartRequired.exit_code, said
        last = said.splitlines()[-1]
        assert last.startswith(
            "error: trial 0 hangs: step 2 (those of its validation counted, too) of the epoch after 1 whole ones here has taken "
        )
        assert last.endswith(
            "where 6 s are allowed (hang_after_s); this process ends, and what each thread was at stands above"
        )
        assert "in never_ends" in said
        assert "Thread 0x" in said
        (line,) = store.trials.list_progress(session.stored.id)
        assert (line.state, line.epochs) == ("running", 1)
        (reaped,) = store.reaping.reap_trials(
            session.stored.id, Death(worker_name(worker.pid), "hung", last)
        )
        assert (reaped.lost, reaped.ended) == (1, False)
