"""Requests to stop a worker.

Ctrl-C (SIGINT) once: the worker finishes the epoch; twice: it stops at once. SIGTERM, which Slurm,
Kubernetes and spot machines send before they take a machine away, and the death of the supervisor:
it finishes the step, however often the signal comes.
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
    """The second request: leave everything as it is. No `except Exception` may catch it."""


class StopTraining(BaseException):
    """Stop within an epoch: the state of the last step is written, or there is none to write.

    No `except Exception` of an objective may catch it.
    """


class StopRequest:
    """Set by SIGINT or SIGTERM, by a deadline, or by the death of the parent process.

    Args:
        deadline_s: seconds after which the worker stops at the end of its epoch.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        self._requested = threading.Event()
        self._urgent = threading.Event()
        self._interrupts = 0
        self._has_no_trial = False
        self._deadline = None if deadline_s is None else time.monotonic() + deadline_s
        self._device_end = math.inf

    @property
    def was_interrupted(self) -> bool:
        """Whether a signal or a dead parent asked for it, rather than a limit on time."""
        return self._requested.is_set()

    @property
    def is_requested(self) -> bool:
        """Whether to stop after the current epoch."""
        expired = self._deadline is not None and time.monotonic() >= self._deadline
        return self._requested.is_set() or self.device_time_is_spent or expired

    @property
    def device_time_is_spent(self) -> bool:
        """Whether the study has no device time left."""
        return time.monotonic() >= self._device_end

    @property
    def is_urgent(self) -> bool:
        """Whether to stop after the current step, within an epoch."""
        return self._urgent.is_set() or self.device_time_is_spent

    def limit_device_time(self, seconds: float) -> None:
        """Set the device time that is left from now on; infinity removes the limit."""
        self._device_end = time.monotonic() + seconds

    def stop_after_epoch(self) -> None:
        """Ask the worker to stop at the end of the epoch."""
        self._requested.set()

    def stop_after_step(self) -> None:
        """Ask the worker to stop at the end of the step."""
        self._urgent.set()
        self._requested.set()

    def wait(self, seconds: float) -> None:
        """Sleep, but not past a request."""
        self._requested.wait(seconds)

    def handle_signals(self) -> None:
        """Treat SIGINT and SIGTERM as requests; only the main thread may call this.

        A supervisor starts its workers with SIGINT blocked. One that came meanwhile arrives here.
        """
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(signal.SIGTERM, self._on_termination)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    @contextmanager
    def without_trial(self) -> Iterator[None]:
        """A block that SIGTERM ends at once, because there is no trial to release yet."""
        if self.is_urgent:
            raise StopNow
        self._has_no_trial = True
        try:
            yield
        finally:
            self._has_no_trial = False

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupts or self.is_urgent:
            raise StopNow
        self._interrupts += 1
        self.stop_after_epoch()

    def _on_termination(self, number: int, frame: FrameType | None) -> None:
        # A second SIGTERM asks for nothing new: when one is sent to a whole group of processes, the
        # supervisor passes its own on as well.
        self.stop_after_step()
        if self._has_no_trial:
            raise StopNow

    def watch_parent(self, parent: int) -> None:
        """Stop when the process `parent` is gone, so that no worker outlives its supervisor."""

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(1)
            self.stop_after_step()

        threading.Thread(target=watch, daemon=True, name="watch-parent").start()
