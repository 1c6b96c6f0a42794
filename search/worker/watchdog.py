"""Whether a training gets on: a hung step holds its trial, and its device, for as long as the process lives and extends the lease."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections.abc import Iterator
from typing import TypeVar

from spaces.errors import WorkerRestartRequired

HANG_AFTER_S = 300.0
LONGEST_STEPS = 20.0
"""Where a study does not say when a step counts as hung: after so many seconds, or after so many times the longest step, if that is more."""

FIRST_TIMES = 4.0
"""An epoch's first step may take so many times as long: models are built, decoding processes started and kernels chosen."""

Record = TypeVar("Record")


class Progress:
    """The signs of life of one attempt. Only the time within the training counts, not that with a store that does not answer.

    Args:
        hang_after_s: seconds without a sign after which a step counts as hung; None: it follows from the longest step.
    """

    def __init__(self, hang_after_s: float | None = None) -> None:
        self.hang_after_s = hang_after_s
        self.epochs = self.signs = 0
        self.longest_s = 0.0
        self._last: float | None = None  # None while the training does not run

    def watched(self, training: Iterator[Record]) -> Iterator[Record]:
        """The records of a training, which is watched while it works on the next one."""
        while True:
            self.signs, self._last = 0, time.monotonic()
            try:
                record = next(training)
            except StopIteration:
                return
            finally:
                self._last = None
            self.epochs += 1
            yield record

    def sign(self) -> None:
        """A step is done. Costs next to nothing."""
        now = time.monotonic()
        if self._last is not None and self.signs:
            self.longest_s = max(self.longest_s, now - self._last)
        self.signs += 1
        if self._last is not None:
            self._last = now

    def stood_still(self) -> None:
        """The whole process did nothing for a while: the step at hand counts from now."""
        if self._last is not None:
            self._last = time.monotonic()

    @property
    def limit_s(self) -> float:
        """How long the step at hand may take."""
        usual = self.hang_after_s or max(HANG_AFTER_S, LONGEST_STEPS * self.longest_s)
        return usual if self.signs else usual * FIRST_TIMES

    @property
    def silent_s(self) -> float:
        """How long the step at hand has taken; 0 while the training does not run."""
        last = self._last
        return 0.0 if last is None else time.monotonic() - last

    @property
    def hung(self) -> bool:
        """Whether the step at hand takes too long."""
        return self.silent_s > self.limit_s

    def told(self) -> str:
        """What hangs, and for how long."""
        place = f"step {self.signs + 1} (those of its validation counted, too) of the epoch after {self.epochs} whole ones here"
        return f"{place} has taken {self.silent_s:.0f} s, where {self.limit_s:.0f} s are allowed (hang_after_s)"


def end_hung(trial: str, progress: Progress) -> None:
    """End this process hard, with what every thread is at and the reason in its log: nothing in it can be trusted to end by itself.

    The trial is not given back: it counts as lost, so that one that hangs wherever it runs ends as failed.
    """
    sys.stdout.flush()
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    print(
        f"error: {trial} hangs: {progress.told()}; this process ends, and what each thread was at stands above",
        file=sys.stderr,
        flush=True,
    )
    os._exit(WorkerRestartRequired.exit_code)
