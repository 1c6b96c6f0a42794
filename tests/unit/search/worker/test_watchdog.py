"""The watchdog notices a hung training by its steps, whatever the rest of the process does."""

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
from search.worker.watchdog import FIRST_STEP_FACTOR, HANG_AFTER_S, Watchdog
from spaces.errors import LeaseLostError, WorkerRestartRequired
from spaces.loader import load_study
from storage.location import StoreLocation
from storage.rows import Claim, Death
from tests.waiting import PATIENCE_S

HANGING = """
import sys, time
from types import SimpleNamespace
from objectives.segmentation.train import Run
from search.worker import watchdog
original, hours = Run.accumulate_gradients, 0
watchdog.time = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * hours)
def never_ends(self, group, means):
    global hours
    if self.epoch == 2 and means.steps == 1:
        hours = 1
        while True:
            time.sleep(1)
    return original(self, group, means)
Run.accumulate_gradients = never_ends
from search.cli import main
sys.argv = ["search", "worker", "--study", sys.argv[1]]
main()
"""
"""A worker whose second epoch hangs in its second step, and whose watchdog sees an hour of it pass at once."""


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


class TestWatchdog:
    def test_only_within_the_training(self, clock: Clock) -> None:
        """Before the training starts, and while its records are stored, nothing hangs."""
        watchdog = Watchdog(10)
        clock.now += 1e6
        assert not watchdog.is_hung
        for _ in zip(range(3), watchdog.watch_training(endless()), strict=False):
            clock.now += 1e6
            assert not watchdog.is_hung
            assert watchdog.elapsed_s == 0

    def test_steps(self, clock: Clock) -> None:
        """A step may take as long as the study says, the first one of an epoch four times that; the message names it."""
        watchdog, seen = Watchdog(10), []

        def training() -> Iterator[int]:
            for _ in range(2):
                for allowed in (10 * FIRST_STEP_FACTOR, 10, 10):
                    clock.now += allowed
                    seen.append(watchdog.is_hung)
                    clock.now += 1
                    seen.append(watchdog.is_hung)
                    described.append(watchdog.describe_step())
                    watchdog.record_step()
                yield 1

        described: list[str] = []
        assert list(watchdog.watch_training(training())) == [1, 1]
        assert seen == [False, True] * 6
        assert (
            described[-1]
            == "step 3 of epoch 2 (validation included) has taken 11 s; the limit is 10 s (hang_after_s)"
        )

    def test_longest_step(self, clock: Clock) -> None:
        """By default a step may take five minutes, or 20 times the longest one so far, first steps excluded."""
        watchdog, seen = Watchdog(), []

        def training() -> Iterator[int]:
            for took in (100, 2, 60, 3):
                clock.now += took
                watchdog.record_step()
                seen.append(watchdog.limit_s)
            yield 1

        list(watchdog.watch_training(training()))
        assert seen == [HANG_AFTER_S, HANG_AFTER_S, 1200, 1200]

    def test_suspended(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that was suspended for an hour is not hung when it continues, and that step is not a long one.

        It is suspended within a renewal of the lease; after that the step takes 4 s per renewal.
        """
        monkeypatch.setattr(lease, "time", clock)
        watchdog, renewals, hung_after, ended = Watchdog(10), [], [], threading.Event()

        class Leases:
            def renew_lease(self, claim: Claim, lease_s: float) -> float:
                renewals.append(lease_s)
                clock.now += 3600 if len(renewals) == 1 else 4
                return math.inf

        def note_hung(trial: str, watchdog: Watchdog) -> None:
            hung_after.append(len(renewals))
            ended.set()

        def training() -> Iterator[bool]:
            watchdog.record_step()
            yield ended.wait(PATIENCE_S)

        monkeypatch.setattr(lease, "exit_hung_process", note_hung)
        with lease.Lease(
            cast(Any, SimpleNamespace(leases=Leases())),
            cast(Any, SimpleNamespace(trial_id=1, number=0, device_left_s=math.inf)),
            StopRequest(),
            watchdog,
            flush_epochs=lambda: None,
            lease_s=0.01,
        ):
            assert list(watchdog.watch_training(training())) == [True]
        assert hung_after[0] == 4
        assert watchdog.longest_s < 3600


def test_hung_after_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung step is noticed by a worker that lost its trial, too: it would never get to its next write."""
    ended, asked = threading.Event(), []

    class LostLeases:
        def renew_lease(self, claim: Claim, lease_s: float) -> float:
            asked.append(lease_s)
            raise LeaseLostError("another worker owns it")

    monkeypatch.setattr(lease, "exit_hung_process", lambda trial, watchdog: ended.set())
    watchdog = Watchdog(0.3)

    def training() -> Iterator[bool]:
        watchdog.record_step()
        yield ended.wait(PATIENCE_S)

    with lease.Lease(
        cast(Any, SimpleNamespace(leases=LostLeases())),
        cast(Any, SimpleNamespace(trial_id=1, number=0, device_left_s=math.inf)),
        StopRequest(),
        watchdog,
        flush_epochs=lambda: None,
        lease_s=0.1,
    ):
        assert list(watchdog.watch_training(training())) == [True]
    assert len(asked) == 1


def test_hung_worker(tmp_path: Path) -> None:
    """A worker with a hung step logs the stacks of its threads and the step, and ends with the code for a restart."""
    url = f"sqlite:///{tmp_path / 'search.db'}"
    data = {"train_scenes": 16, "val_scenes": 8, "test_scenes": 8, "size": 32}
    spec = load_study(
        "lr_clip", {"epochs": 3, "trials": 1, "presets": [], "hang_after_s": 600, "base.data": data}
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
        said, _ = worker.communicate(timeout=PATIENCE_S)

        assert worker.returncode == WorkerRestartRequired.exit_code, said
        last = said.splitlines()[-1]
        assert last.startswith(
            "error: trial 0 hangs: step 2 of epoch 2 (validation included) has taken "
        )
        assert last.endswith(
            "the limit is 600 s (hang_after_s); this process ends, the stacks of its threads are above"
        )
        assert "in never_ends" in said
        assert "Thread 0x" in said
        (line,) = store.trials.list_progress(session.stored.id)
        assert (line.state, line.epochs) == ("running", 1)
        (reaped,) = store.reaping.reap_trials(
            session.stored.id, Death(worker_name(worker.pid), "hung", last)
        )
        assert (reaped.lost, reaped.ended) == (1, False)
