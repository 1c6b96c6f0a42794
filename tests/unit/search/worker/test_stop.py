"""How a worker is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from search.worker.stop import StopNow, StopRequest, StopTraining

ORPHAN = """
import os, sys, time
from search.worker.stop import StopRequest
stop = StopRequest()
stop.follow_parent(int(sys.argv[1]))
print("asked" if stop.requested else "not asked", flush=True)
while not stop.requested:
    time.sleep(0.01)
print("gone" if stop.hurried else "asked for the end of the epoch", flush=True)
"""
"""A worker that waits for the death of its parent."""

PARENT = "import subprocess, sys, os, time; subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())]); time.sleep(60)"


@pytest.fixture
def handlers() -> Iterator[None]:
    """Whatever a test does with the signals' handlers is undone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class TestStopRequest:
    def test_asked(self) -> None:
        """It is not asked for until it is, and stays so."""
        stop = StopRequest()
        assert not stop.requested
        stop.request()
        assert stop.requested
        assert stop.requested

    def test_deadline(self) -> None:
        """A deadline asks for it; one in the future has not yet."""
        assert not StopRequest(3600).requested
        assert StopRequest(0).requested
        stop = StopRequest(0.01)
        time.sleep(0.02)
        assert stop.requested

    @pytest.mark.usefixtures("handlers")
    @pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
    def test_interrupt_again(self, first: int) -> None:
        """The first signal of either kind asks for it; Ctrl-C after it does not wait."""
        stop = StopRequest()
        stop.listen()
        os.kill(os.getpid(), first)
        assert stop.requested
        assert stop.interrupted
        with pytest.raises(StopNow):
            os.kill(os.getpid(), signal.SIGINT)

    @pytest.mark.usefixtures("handlers")
    def test_hurried(self) -> None:
        """Ctrl-C waits for the epoch, SIGTERM for the step, also after Ctrl-C and however often it comes."""
        stop = StopRequest()
        stop.listen()
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.hurried
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.hurried

    @pytest.mark.usefixtures("handlers")
    def test_nothing_at_hand(self) -> None:
        """While there is no trial to give back, SIGTERM ends the work at once, Ctrl-C does not; and work that was asked to hurry is not begun."""
        stop = StopRequest()
        stop.listen()
        with pytest.raises(StopNow), stop.nothing_at_hand():  # noqa: PT012 - the order is what is tested
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopNow), stop.nothing_at_hand():
            pass

    def test_unstoppable(self) -> None:
        """No `except Exception` of an objective holds a stop up."""
        assert not issubclass(StopNow, Exception)
        assert not issubclass(StopTraining, Exception)


class TestFollowParent:
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
        """A parent that was gone before the worker looked is noticed, too."""
        stop = StopRequest()
        stop.follow_parent(os.getpid())  # a process is never its own parent
        deadline = time.monotonic() + 30
        while not stop.requested and time.monotonic() < deadline:
            time.sleep(0.001)
        assert stop.requested


class TestDeviceTime:
    def test_over(self) -> None:
        """When the device time that is left is over, the step at hand is the last one; more of it takes that back."""
        stop = StopRequest()
        stop.allow(600)
        assert not stop.requested
        stop.allow(0)
        assert stop.requested
        assert stop.hurried
        assert not stop.interrupted
        stop.allow(float("inf"))
        assert not stop.requested
