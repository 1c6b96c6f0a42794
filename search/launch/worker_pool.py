"""The workers of one `search run`, wherever they were placed: watched and stopped together."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from types import FrameType
from typing import Self

from search.launch.reaper import TrialReaper
from search.worker.events import WorkerEvent, last_error, list_warnings
from spaces.errors import InputError, SearchError
from spaces.exit_codes import ExitCode

STOP_S = 10.0
"""How long workers have to end after each request to stop."""

TAIL_LINES = 12
"""Lines of a worker's log that are shown when it reported no error."""


class StopLevel(IntEnum):
    """How urgently workers are asked to stop; each Ctrl-C raises it by one."""

    AFTER_EPOCH = 1
    NOW = 2
    KILL = 3


@dataclass(frozen=True)
class WorkerEnd:
    """How a worker process ended.

    Attributes:
        exit_code: negative when a signal ended it; None if unknown.
        events: reported by this process.
        log_tail: the last lines of its log.
        log: where its log is.
    """

    exit_code: int | None
    events: list[WorkerEvent] = field(default_factory=list)
    log_tail: Sequence[str] = ()
    log: str = ""

    @property
    def is_explained(self) -> bool:
        """Whether the worker reported an error.

        One that was ended from within, as by a library that calls `exit`, did not.
        """
        return last_error(self.events) is not None

    def to_error(self) -> SearchError:
        """The error for a worker that cannot be replaced."""
        message = last_error(self.events) or "\n".join(self.log_tail[-TAIL_LINES:])
        if not message:
            message = (
                "a worker ended again and again, "
                f"the last time with exit code {self.exit_code} and an empty log"
            )
        if self.exit_code == ExitCode.BAD_INPUT:
            return InputError(message)  # which is complete without the log
        return SearchError(f"{message}\n  log:     {self.log}")


class WorkerPool(ABC):
    """The workers of one run as the commands see them; their results are in the store.

    Args:
        reaper: releases the trials of dead workers; None in a test of the workers alone.
        timeout_s: the workers finish their epochs and stop after this time.

    Attributes:
        stops: how many times a stop was requested.
        is_expired: whether the time is over.
    """

    _failure: SearchError | None = None

    def __init__(self, reaper: TrialReaper | None = None, timeout_s: float | None = None) -> None:
        self.stops = 0
        self.is_expired = False
        self._reaper = reaper
        self._is_terminated = False
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    @abstractmethod
    def start_workers(self) -> None:
        """Start all workers."""

    @abstractmethod
    def request_stop(self, level: StopLevel) -> None:
        """Ask every worker to stop."""

    def stop_after_step(self) -> None:
        """Ask the workers on this machine to stop after the step, because it is taken away.

        Workers elsewhere may finish their epochs.
        """
        self.request_stop(StopLevel.AFTER_EPOCH)

    @abstractmethod
    def poll(self) -> bool:
        """Replace dead workers, stop all when one cannot continue; whether all have exited."""

    @abstractmethod
    def all_exited(self) -> bool:
        """Whether all workers have exited; replaces none."""

    @abstractmethod
    def read_events(self) -> list[WorkerEvent]:
        """The events of the workers in this run, as far as they are available."""

    def raise_failure(self) -> None:
        """Raise what ended the workers, unless it was the end of the work.

        Raises:
            SearchError: as the failed worker reported it.
        """
        if self._failure is not None:
            raise self._failure

    @abstractmethod
    def remove_logs(self) -> None:
        """Remove the logs of this run; those of earlier runs stay."""

    def release_resources(self) -> None:  # noqa: B027 - most launchers have none
        """Release what the launcher has besides the workers."""

    def is_finished(self) -> bool:
        """Whether all workers have exited; when the time is over they are asked to stop."""
        has_expired = self._deadline is not None and time.monotonic() >= self._deadline
        if has_expired and not self.is_expired:
            self.is_expired = True
            self.request_stop(StopLevel.AFTER_EPOCH)
        if self._reaper is not None:
            self._reaper.reap_trials()
        return self.poll()

    def raise_stop_level(self) -> None:
        """Ask all workers to stop: after the epoch the first time, then at once, then kill them."""
        self.stops += 1
        self.request_stop(StopLevel(min(self.stops, StopLevel.KILL)))

    def handle_termination(self) -> None:
        """Stop after the step on SIGTERM, however many times it comes."""
        self._is_terminated = True
        self.stops = max(self.stops, StopLevel.AFTER_EPOCH)
        self.stop_after_step()

    def list_warnings(self) -> list[str]:
        """The warnings of the workers in this run, each one once."""
        return list_warnings(self.read_events())

    def describe_status(self) -> str:
        """What the user waits for: a requested stop, or places for workers; empty otherwise."""
        if self._failure is not None:
            return ""
        if not self.stops:
            return self.describe_waiting()
        if self.stops > StopLevel.AFTER_EPOCH:
            return "stopping at once"
        unit = "steps" if self._is_terminated else "epochs"
        return f"stopping after the current {unit}; Ctrl-C again stops at once"

    def describe_waiting(self) -> str:
        """How many workers wait for a place; empty when none does."""
        return ""

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Start the workers, pass Ctrl-C and SIGTERM on to them, and leave none running."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGTERM:
                self.handle_termination()
            else:
                self.raise_stop_level()

        before = {
            number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self.start_workers()
            yield self
        finally:
            self._end_workers()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end_workers(self) -> None:
        """End all workers, however the block ended."""
        try:
            for level in StopLevel:
                if self.all_exited():
                    return
                self.request_stop(level)
                deadline = time.monotonic() + STOP_S
                while not self.all_exited() and time.monotonic() < deadline:
                    time.sleep(0.05)
        finally:
            self.release_resources()
