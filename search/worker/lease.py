"""Background thread that renews a trial's lease while training makes progress."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from search.worker.stop import StopRequest
from search.worker.watchdog import Watchdog, exit_hung_process
from spaces.errors import LeaseLostError, SearchError
from storage.rows import Claim
from storage.store import Store

LEASE_S = 8.0
"""How long a worker owns a trial without renewing the lease; then another worker may claim it."""

RENEWALS = 3.3
"""How many times a lease is renewed within its length."""

RETRY_S = 1.0
"""Seconds until a failed renewal is tried again, plus or minus half of it."""

SUSPENDED_S = 5.0
"""When the time from one renewal to the next is this much longer than the wait between them, the
whole process was suspended, as by SIGSTOP or a paused machine. The watchdog then times the current
step from the beginning."""


class Lease:
    """Context manager that renews the lease of a trial from a thread.

    The thread also asks the worker to stop when device time runs out, and has epochs written that
    the database has missed. When the training hangs, it ends the whole process: a lease that a
    thread renews says nothing about the training.

    Args:
        store: the store with the trial.
        claim: the worker's right to the trial.
        stop: gets the limit on device time.
        watchdog: detects a hung step.
        flush_epochs: called after each renewal; writes epochs that are still to be written.
        lease_s: how long the worker owns the trial after a renewal.
    """

    def __init__(
        self,
        store: Store,
        claim: Claim,
        stop: StopRequest,
        watchdog: Watchdog,
        flush_epochs: Callable[[], None],
        lease_s: float = LEASE_S,
    ) -> None:
        self._store = store
        self._claim = claim
        self._stop = stop
        self._watchdog = watchdog
        self._flush_epochs = flush_epochs
        self._lease_s = lease_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_over, daemon=True, name="lease")

    def __enter__(self) -> Self:
        self._stop.limit_device_time(self._claim.device_left_s)
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

    def _renew_until_over(self) -> None:
        wait_s = self._lease_s / RENEWALS
        is_lost = False
        began = time.monotonic()
        while not self._over.wait(wait_s):
            # A suspension counts wherever it hit this thread, in the wait or in the renewal. A
            # database that does not answer looks the same; a hung step is then noticed later.
            now = time.monotonic()
            if now - began > wait_s + SUSPENDED_S:
                self._watchdog.restart_step()
            began = now
            if self._watchdog.is_hung:
                exit_hung_process(self._trial_name(), self._watchdog)
            if is_lost:
                continue
            try:
                left_s = self._store.leases.renew_lease(self._claim, self._lease_s)
            except LeaseLostError:
                # The next write raises it in the training's thread. This one watches on: a step
                # that hangs never gets to its next write.
                is_lost = True
                wait_s = self._lease_s / RENEWALS
            except SearchError:
                # The database may be back before the lease is over.
                wait_s = RETRY_S * random.uniform(0.5, 1.5)
            else:
                self._stop.limit_device_time(left_s)
                wait_s = self._lease_s / RENEWALS
                self._flush_epochs()

    def _trial_name(self) -> str:
        number = self._claim.number
        return f"trial {self._claim.trial_id if number is None else number}"
