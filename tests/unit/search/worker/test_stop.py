"""Requests to stop a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from search.worker import stop as module
from search.worker.stop import StopNow, StopRequest, StopTraining
from tests.waiting import until

ORPHAN = """
import os, sys, time
from search.worker.stop import StopRequest
stop = StopRequest()
stop.watch_parent(int(sys.argv[1]))
print("asked" if stop.is_requested else "not asked", flush=True)
while not stop.is_requested:
    time.sleep(0.01)
print("gone" if stop.is_urgent else "asked to stop after the epoch", flush=True)
"""
"""A worker that waits for the death of its parent."""

PARENT = "import subprocess, sys, os, signal; subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())]); signal.pause()"


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restore the signal handlers after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class TestStopRequest:
    def test_requested(self) -> None:
        """A request is permanent."""
        stop = StopRequest()
        assert not stop.is_requested
        stop.stop_after_epoch()
        assert stop.is_requested
        assert stop.is_requested

    def test_deadline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stop is requested once the deadline has passed."""
        now = [1000.0]
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
        assert StopRequest(0).is_requested
        stop = StopRequest(3600)
        now[0] += 3599
        assert not stop.is_requested
        now[0] += 1
        assert stop.is_requested

    @pytest.mark.usefixtures("handlers")
    @pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
    def test_interrupt_again(self, first: int) -> None:
        """The first signal of either kind requests a stop; Ctrl-C after that stops at once."""
        stop = StopRequest()
        stop.handle_signals()
        os.kill(os.getpid(), first)
        assert stop.is_requested
        assert stop.was_interrupted
        with pytest.raises(StopNow):
            os.kill(os.getpid(), signal.SIGINT)

    @pytest.mark.usefixtures("handlers")
    def test_urgent(self) -> None:
        """Ctrl-C waits for the epoch, SIGTERM for the step, also after Ctrl-C and however often it comes."""
        stop = StopRequest()
        stop.handle_signals()
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.is_urgent
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.is_urgent

    @pytest.mark.usefixtures("handlers")
    def test_without_trial(self) -> None:
        """Without a trial to release, SIGTERM ends the block at once and Ctrl-C does not; after SIGTERM none starts."""
        stop = StopRequest()
        stop.handle_signals()
        with pytest.raises(StopNow), stop.without_trial():  # noqa: PT012 - the order is what is tested
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.is_requested
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopNow), stop.without_trial():
            pass

    def test_unstoppable(self) -> None:
        """No `except Exception` of an objective catches a stop."""
        assert not issubclass(StopNow, Exception)
        assert not issubclass(StopTraining, Exception)


class TestWatchParent:
    def test_killed(self) -> None:
        """A worker whose parent is killed is asked to stop."""
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, ORPHAN], stdout=subprocess.PIPE, text=True
        )
        assert parent.stdout is not None
        with parent.stdout as said:
            assert said.readline() == "not asked\n"
            parent.kill()
            parent.wait()
            assert said.read() == "gone\n"

    def test_gone_before(self) -> None:
        """A parent that was gone before the worker looked is noticed too."""
        stop = StopRequest()
        stop.watch_parent(os.getpid())  # a process is never its own parent
        until(lambda: stop.is_requested, "a stop is requested")


class TestDeviceTime:
    def test_over(self) -> None:
        """When no device time is left, the current step is the last one; more device time revokes that."""
        stop = StopRequest()
        stop.limit_device_time(600)
        assert not stop.is_requested
        stop.limit_device_time(0)
        assert stop.is_requested
        assert stop.is_urgent
        assert not stop.was_interrupted
        stop.limit_device_time(float("inf"))
        assert not stop.is_requested
