"""Writes the epochs of an attempt to the store.

While the database is unavailable, training continues and buffered records are flushed later, in
order. The loop over the epochs appends, and the lease thread flushes between two epochs, so that a
long epoch does not delay it. After a cut connection it is unknown whether the last transaction was
committed, so the store is asked before it is repeated.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from search.worker.stop import StopRequest
from search.worker.store_retry import (
    STOP_PATIENCE_S,
    STORE_PATIENCE_S,
    Backoff,
    RetryTimer,
    translating_store_errors,
)
from spaces.errors import StoreUnreachableError
from spaces.records import EpochRecord, Evidence
from storage.rows import Claim, TrialState
from storage.store import Store

if TYPE_CHECKING:
    from search.sampling.optuna_trial import (
        OptunaTrial,  # imports Optuna, which a supervisor does without
    )

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

DURABLE_AFTER_S = 60.0
"""After this time a commit is on the disk, whatever happens to the machine."""

MAX_RECENT = 200
"""Most epochs that are kept as not yet durable; only epochs of a fraction of a second reach it."""


class EpochWriter:
    """Writes the epochs of one attempt to the store's tables and to Optuna's.

    Args:
        store: the store.
        claim: the right to write to the trial.
        trial: Optuna's trial.
        stop: a worker that was asked to stop does not wait long.
        lease_s: each epoch renews the lease for this time.
    """

    def __init__(
        self, store: Store, claim: Claim, trial: OptunaTrial, stop: StopRequest, lease_s: float
    ) -> None:
        self._store = store
        self._claim = claim
        self._trial = trial
        self._stop = stop
        self._lease_s = lease_s
        self._pending: deque[EpochRecord] = deque()
        self._warnings: deque[Evidence] = deque()
        self._recent: deque[tuple[float, EpochRecord]] = deque(maxlen=MAX_RECENT)
        self._lock = threading.Lock()
        self._backoff = Backoff()
        self._commit_is_unknown = False
        self._problem: Exception | None = None

    @property
    def is_flushed(self) -> bool:
        """Whether the store has all epochs."""
        return not self._pending and not self._warnings

    def unconfirmed_records(self) -> list[EpochRecord]:
        """The epochs that a power cut may take from the store: pending ones and the last minute's.

        SQLite hands a commit to the operating system, which writes it to the disk within half a
        minute; a server's replica lags behind.
        """
        since = time.monotonic() - DURABLE_AFTER_S
        recent = (record for at, record in list(self._recent) if at >= since)
        return [*recent, *list(self._pending)]

    def append_record(self, record: EpochRecord) -> None:
        """Add one epoch, and write it if the store answers.

        Raises:
            LeaseLostError: when another attempt owns the trial, or the trial ended.
            StoreError: when the store refuses the epoch.
            EpochOrderError: when the epoch is not the next one.
        """
        self._pending.append(record)
        self.flush_pending()
        self._raise_problem()

    def append_warning(self, warning: Evidence) -> None:
        """Add a warning about the last epoch, and write it if the store answers.

        Raises:
            LeaseLostError: when another attempt owns the trial, or the trial ended.
            StoreError: when the store refuses it.
        """
        self._warnings.append(warning)
        self.flush_pending()
        self._raise_problem()

    def _raise_problem(self) -> None:
        """Raise what ended the writing, once: the end of a failed trial still has to be written."""
        with self._lock:  # the lease thread may be writing
            problem = self._problem
            if problem is None:
                return
            self._pending.clear()
            self._warnings.clear()
            self._problem = None
        raise problem

    def flush_pending(self) -> None:
        """Write what is pending, unless it is too early to retry or another thread is writing.

        Raises nothing: `append_record` and `write_end` raise what failed here.
        """
        is_due = not self.is_flushed and self._problem is None and self._backoff.is_over
        if not is_due or not self._lock.acquire(blocking=False):
            return
        try:
            self._write_pending()
        except StoreUnreachableError:
            pass
        except Exception as problem:
            # This may be the lease thread; the loop over the epochs has to raise it.
            self._problem = problem
        finally:
            self._lock.release()

    def _write_pending(self) -> None:
        """Write what is pending.

        Raises:
            StoreUnreachableError: when the store does not answer.
        """
        while self._pending:
            record = self._pending[0]
            try:
                if not self._is_written(record):
                    self._store.epochs.append_epoch(self._claim, record, self._lease_s)
                with translating_store_errors(self._store.where):
                    self._trial.report_epoch(record)
                self._commit_is_unknown = False
            except StoreUnreachableError as problem:
                self._record_outage(problem)
                raise
            self._recent.append((time.monotonic(), record))
            self._pending.popleft()
        self._write_warnings()
        self._backoff.reset()

    def _write_warnings(self) -> None:
        """Write the pending warnings; a warning that the store has already is replaced.

        Raises:
            StoreUnreachableError: when the store does not answer.
        """
        while self._warnings:
            try:
                self._store.epochs.append_warning(self._claim, self._warnings[0])
            except StoreUnreachableError as problem:
                self._backoff.record_failure(problem)
                raise
            self._warnings.popleft()

    def _is_written(self, record: EpochRecord) -> bool:
        """Whether the store has the epoch from an attempt whose answer was lost."""
        if not self._commit_is_unknown:
            return False
        return record.epoch <= self._store.epochs.last_written(self._claim)

    def _record_outage(self, problem: StoreUnreachableError) -> None:
        is_first = not self._commit_is_unknown
        self._commit_is_unknown = True
        if self._backoff.record_failure(problem) and is_first:
            logger.warning("%s; training continues, its epochs are written later", problem.what)

    def write_all(self) -> None:
        """Write what is pending now, because a decision depends on it.

        Raises:
            LeaseLostError: when another attempt owns the trial, or the trial ended.
            StoreError: when the store refuses it, or does not answer.
        """
        self._raise_problem()
        with self._lock:
            self._write_pending()

    def ask_peers(self, ask: Callable[[], Answer | None]) -> Answer | None:
        """What the store's other trials answer; None while the store is unavailable."""
        if not self.is_flushed:
            return None
        with suppress(StoreUnreachableError), translating_store_errors(self._store.where):
            return ask()
        return None

    def write_end(self, state: TrialState, write: Callable[[], None]) -> None:
        """Write what is pending, then the end of the attempt, and wait for an unavailable store.

        Args:
            state: the trial's state after that.
            write: writes it.

        Raises:
            LeaseLostError: when another attempt owns the trial, or the trial ended.
            StoreError: when the store refuses it, or is unavailable for too long.
        """
        timer = RetryTimer()
        commit_is_unknown = False
        while True:
            try:
                self._raise_problem()
                with self._lock:
                    self._write_pending()
                if commit_is_unknown and self._store.trials.find_state(self._claim) == state:
                    return
                commit_is_unknown = True
                with translating_store_errors(self._store.where):
                    write()
                return
            except StoreUnreachableError as problem:
                patience_s = STOP_PATIENCE_S if self._stop.is_requested else STORE_PATIENCE_S
                wait_s = timer.next_wait_s(problem, patience_s)
            time.sleep(wait_s)
