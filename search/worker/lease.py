"""Keeps a trial's lease alive from a thread while an epoch takes its time, as long as the training gets on."""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType
from typing import Self

from search.worker.epoch_writer import EpochLog
from search.worker.stop import StopRequest
from search.worker.watchdog import Progress, end_hung
from spaces.errors import LeaseLostError, SearchError
from storage.rows import Claim
from storage.store import Store

LEASE_S = 8.0
"""How long a trial stays with a worker that is not heard of; then another may take it over."""

EXTENSIONS = 3.3
"""So often in its length a lease is extended."""

RETRY_S = 1.0
"""After so long a store that did not answer is asked again, give or take a half."""

STOOD_STILL_S = 5.0
"""When a short wait took so much longer, the whole process was stopped meanwhile, as by SIGSTOP or a paused machine."""


def waited(done: threading.Event, seconds: float, progress: Progress) -> bool:
    """Wait, but not past the end of the trial; whether that has come. A step is not to blame for a process that stood still."""
    began = time.monotonic()
    over = done.wait(seconds)
    if time.monotonic() - began > seconds + STOOD_STILL_S:
        progress.stood_still()
    return over


class Lease:
    """While the block lasts, the trial is held, a stop is asked for when device time runs out, and epochs that the store missed are written.

    A training that hangs ends the whole process: a thread that extends a lease proves nothing of the one that trains.

    Args:
        store: where the trial is.
        claim: what is held.
        stop: what is asked for a stop.
        progress: whether the training gets on.
        lease_s: how long the trial stays with a worker that is not heard of.

    Attributes:
        log: the epochs of the attempt, once it has begun.
    """

    def __init__(
        self,
        store: Store,
        claim: Claim,
        stop: StopRequest,
        progress: Progress,
        lease_s: float = LEASE_S,
    ) -> None:
        self._store, self._claim, self._stop, self._progress, self.lease_s = (
            store,
            claim,
            stop,
            progress,
            lease_s,
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")
        self.log: EpochLog | None = None

    def __enter__(self) -> Self:
        self._stop.allow(self._claim.device_left_s)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        wait_s, lost = self.lease_s / EXTENSIONS, False
        while not waited(self._over, wait_s, self._progress):
            if self._progress.hung:
                end_hung(
                    f"trial {self._claim.trial_id if self._claim.number is None else self._claim.number}",
                    self._progress,
                )
            if lost:
                continue
            try:
                self._stop.allow(self._store.leases.renew_lease(self._claim, self.lease_s))
                wait_s = self.lease_s / EXTENSIONS
            except LeaseLostError:
                lost = True  # the next write will say so; a step that hangs never comes to it
            except SearchError:
                wait_s = RETRY_S * random.uniform(
                    0.5, 1.5
                )  # the database may come back before the lease is over
                continue
            if self.log is not None and not lost:
                self.log.flush()
