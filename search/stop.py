"""How a worker is asked to stop: once, and it finishes the epoch; twice, and it stops at once."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from types import FrameType


class StopNow(BaseException):
    """The second request: leave everything as it is. No `except Exception` may hold it up."""


class StopRequest:
    """Set by SIGINT or SIGTERM, by a deadline, or by the death of the process that started this one."""

    def __init__(self, deadline_s: float | None = None) -> None:
        self._asked = threading.Event()
        self._deadline = None if deadline_s is None else time.monotonic() + deadline_s
        self._device_end = math.inf

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked, rather than the time being over."""
        return self._asked.is_set()

    @property
    def requested(self) -> bool:
        """Whether to stop after the epoch at hand."""
        return self._asked.is_set() or self.spent or (self._deadline is not None and time.monotonic() >= self._deadline)

    @property
    def spent(self) -> bool:
        """Whether the device time that the study may take is over."""
        return time.monotonic() >= self._device_end

    def allow(self, seconds: float) -> None:
        """So many seconds of device time are left, from now on; infinity takes an earlier limit back."""
        self._device_end = time.monotonic() + seconds

    def request(self) -> None:
        """Ask for it."""
        self._asked.set()

    def wait(self, seconds: float) -> None:
        """Sleep, but not past a request."""
        self._asked.wait(seconds)

    def listen(self) -> None:
        """Take SIGINT and SIGTERM as requests; only the main thread may call this."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked.is_set():
            raise StopNow
        self._asked.set()

    def follow_parent(self, parent: int) -> None:
        """Stop when the process `parent` is gone, so that no worker is left behind by a killed supervisor."""

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(1)
            self._asked.set()

        threading.Thread(target=watch, daemon=True, name="follow-parent").start()
