"""How a worker is asked to stop.

Ctrl-C (SIGINT) once: it finishes the epoch; twice: it stops at once. SIGTERM, by which a machine is taken away (Slurm,
Kubernetes, spot machines), and the death of the supervisor: it finishes the step, however often it is told.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopNow(BaseException):
    """The second request: leave everything as it is. No `except Exception` may hold it up."""


class StopTraining(BaseException):
    """The step is done and its state is written, or there is none to write: the trial goes back. No objective is to catch it."""


class StopRequest:
    """Set by SIGINT or SIGTERM, by a deadline, or by the death of the process that started this one.

    Args:
        deadline_s: so many seconds from now it asks by itself, for the end of the epoch.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        self._asked, self._hurried = threading.Event(), threading.Event()
        self._interrupts = 0
        self._idle = False
        self._deadline = None if deadline_s is None else time.monotonic() + deadline_s
        self._device_end = math.inf

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked, rather than the time being over."""
        return self._asked.is_set()

    @property
    def requested(self) -> bool:
        """Whether to stop after the epoch at hand."""
        return (
            self._asked.is_set()
            or self.spent
            or (self._deadline is not None and time.monotonic() >= self._deadline)
        )

    @property
    def spent(self) -> bool:
        """Whether the device time that the study may take is over."""
        return time.monotonic() >= self._device_end

    def allow(self, seconds: float) -> None:
        """So many seconds of device time are left, from now on; infinity takes an earlier limit back."""
        self._device_end = time.monotonic() + seconds

    @property
    def hurried(self) -> bool:
        """Whether to stop after the step at hand, in the midst of an epoch."""
        return self._hurried.is_set() or self.spent

    def request(self) -> None:
        """Ask for the end of the epoch."""
        self._asked.set()

    def hurry(self) -> None:
        """Ask for the end of the step."""
        self._hurried.set()
        self._asked.set()

    def wait(self, seconds: float) -> None:
        """Sleep, but not past a request."""
        self._asked.wait(seconds)

    def listen(self) -> None:
        """Take SIGINT and SIGTERM as requests; only the main thread may call this."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(signal.SIGTERM, self._on_termination)

    @contextmanager
    def nothing_at_hand(self) -> Iterator[None]:
        """A block, such as decoding the data, that SIGTERM ends at once: there is no trial to give back."""
        if self.hurried:
            raise StopNow
        self._idle = True
        try:
            yield
        finally:
            self._idle = False

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupts or self.hurried:
            raise StopNow
        self._interrupts += 1
        self.request()

    def _on_termination(self, number: int, frame: FrameType | None) -> None:
        self.hurry()  # a second one is no other wish: whoever signals a whole group of processes is passed on by the supervisor as well
        if self._idle:
            raise StopNow

    def follow_parent(self, parent: int) -> None:
        """Stop when the process `parent` is gone, so that no worker is left behind by a killed supervisor."""

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(1)
            self.hurry()

        threading.Thread(target=watch, daemon=True, name="follow-parent").start()
