"""Watchdog: detects a hung training step, which would otherwise keep lease and GPU forever."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import TypeVar

from spaces.exit_codes import ExitCode

logger = logging.getLogger(__name__)

HANG_AFTER_S = 300.0
LONGEST_STEPS = 20.0
"""When a step counts as hung if the study sets no limit: after this many seconds, or after this
many times the longest step so far, whichever is longer."""

FIRST_STEP_FACTOR = 4.0
"""The first step of an epoch may take this many times as long: models are built, decoding processes
are started and kernels are chosen."""

Record = TypeVar("Record")


class Watchdog:
    """Measures how long the current training step takes.

    Only time within the training counts, not the time spent writing to the store.

    Args:
        hang_after_s: seconds after which a step counts as hung; None derives it from the longest
            step.
    """

    def __init__(self, hang_after_s: float | None = None) -> None:
        self.hang_after_s = hang_after_s
        self.epochs = 0
        self.steps = 0
        self.longest_s = 0.0
        self._last: float | None = None  # None while the training does not run

    def watch_training(self, training: Iterator[Record]) -> Iterator[Record]:
        """Yield the records of a training, and time it while it computes the next one."""
        while True:
            self.steps = 0
            self._last = time.monotonic()
            try:
                record = next(training)
            except StopIteration:
                return
            finally:
                self._last = None
            self.epochs += 1
            yield record

    def record_step(self) -> None:
        """Record that a step is done; it costs next to nothing."""
        now = time.monotonic()
        if self._last is not None and self.steps:
            self.longest_s = max(self.longest_s, now - self._last)
        self.steps += 1
        if self._last is not None:
            self._last = now

    def restart_step(self) -> None:
        """Time the current step from now on, because the whole process was suspended."""
        if self._last is not None:
            self._last = time.monotonic()

    @property
    def limit_s(self) -> float:
        """How long the current step may take."""
        usual = self.hang_after_s or max(HANG_AFTER_S, LONGEST_STEPS * self.longest_s)
        return usual if self.steps else usual * FIRST_STEP_FACTOR

    @property
    def elapsed_s(self) -> float:
        """How long the current step has taken; 0 while the training does not run."""
        last = self._last
        return 0.0 if last is None else time.monotonic() - last

    @property
    def is_hung(self) -> bool:
        """Whether the current step takes too long."""
        return self.elapsed_s > self.limit_s

    def describe_step(self) -> str:
        """Which step runs, for how long, and how long it may take."""
        return (
            f"step {self.steps + 1} of epoch {self.epochs + 1} (validation included) has taken"
            f" {self.elapsed_s:.0f} s; the limit is {self.limit_s:.0f} s (hang_after_s)"
        )


def exit_hung_process(trial: str, watchdog: Watchdog) -> None:
    """End this process at once, with the reason and the stack of every thread in its log.

    Nothing in a hung process can be relied on to end by itself. The trial is not released: its
    worker counts as lost, so that a trial that hangs every worker ends as failed.
    """
    sys.stdout.flush()
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    logger.error(
        "%s hangs: %s; this process ends, the stacks of its threads are above",
        trial,
        watchdog.describe_step(),
    )
    os._exit(ExitCode.RESTART)
