"""What an attempt writes to the store. While the store does not answer, the training goes on, and what it told is written later, in order.

The loop over the epochs appends, and the lease thread tries again between two epochs, so that a long one does not delay it.
After a cut connection nobody knows whether the last transaction was in time; so the store is asked before it is repeated.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from search.worker.retry import STOP_PATIENCE_S, STORE_PATIENCE_S, Backoff, asked
from search.worker.stop import StopRequest
from spaces.errors import StoreUnreachableError
from spaces.records import EpochRecord
from storage.rows import Claim, TrialState
from storage.store import Store

if TYPE_CHECKING:
    from search.sampling.trial import OptunaTrial  # and Optuna, which a supervisor does without

DURABLE_AFTER_S, MANY = 60.0, 200
"""After so long a commit is on the disk, whatever happens to the machine; of shorter epochs no more than so many are kept."""


class EpochLog:
    """The epochs of one attempt on their way into both books.

    Args:
        store: where they go.
        claim: the right to write them.
        trial: of Optuna's.
        stop: a worker that was asked to stop does not wait for long.
        lease_s: with every epoch the trial is held for so long.
    """

    def __init__(
        self, store: Store, claim: Claim, trial: OptunaTrial, stop: StopRequest, lease_s: float
    ) -> None:
        self._store, self._claim, self._trial, self._stop, self._lease_s = (
            store,
            claim,
            trial,
            stop,
            lease_s,
        )
        self._pending: deque[EpochRecord] = deque()
        self._heard: deque[tuple[float, EpochRecord]] = deque(maxlen=MANY)
        self._writing = threading.Lock()
        self._backoff = Backoff()
        self._unsure = False
        self._problem: Exception | None = None

    @property
    def settled(self) -> bool:
        """Whether the store has all that was told."""
        return not self._pending

    def unheard(self) -> list[EpochRecord]:
        """The epochs that the store may not have after a power cut: those that wait, and those of the last minute.

        SQLite gives a commit to the operating system, which writes it to the disk within half a minute; a server's replica lags.
        """
        since = time.monotonic() - DURABLE_AFTER_S
        return [*(record for at, record in list(self._heard) if at >= since), *list(self._pending)]

    def append(self, record: EpochRecord) -> None:
        """Keep one epoch, in the store if that answers.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
            StoreError: when the store refuses it.
            EpochOrderError: when the epoch is not the one that comes next.
        """
        self._pending.append(record)
        self.flush()
        self._check()

    def _check(self) -> None:
        """Raise what ended the writing, once; the end of a failed trial is still to be written."""
        problem, self._problem = self._problem, None
        if problem is not None:
            self._pending.clear()
            raise problem

    def flush(self) -> None:
        """Try to write what is left, if it is time for it and nobody else is at it. Raises nothing: `append` and `end` do."""
        if (
            self._pending
            and self._problem is None
            and self._backoff.over
            and self._writing.acquire(blocking=False)
        ):
            try:
                self._flush()
            except StoreUnreachableError:
                pass
            except (
                Exception
            ) as problem:  # in whichever thread this is, the loop over the epochs has to hear of it
                self._problem = problem
            finally:
                self._writing.release()

    def _flush(self) -> None:
        """Write what is left.

        Raises:
            StoreUnreachableError: when the store does not answer.
        """
        while self._pending:
            record = self._pending[0]
            try:
                if not (
                    self._unsure and record.epoch <= self._store.epochs.last_written(self._claim)
                ):
                    self._store.epochs.append_epoch(self._claim, record, self._lease_s)
                asked(self._store.where, lambda: self._trial.report(record))  # noqa: B023 - called at once
                self._unsure = False
            except StoreUnreachableError as problem:
                self._away(problem)
                raise
            self._heard.append((time.monotonic(), record))
            self._pending.popleft()
        self._backoff.answered()

    def _away(self, problem: StoreUnreachableError) -> None:
        first, self._unsure = not self._unsure, True
        if self._backoff.failed(problem) and first:
            print(
                f"warning: {problem.what}; the training goes on, and what it tells is written later",
                flush=True,
            )

    def peers(self, ask: Callable[[], str | None]) -> str | None:
        """What the peer pruner says; nothing while the store is away."""
        if not self.settled:
            return None
        with suppress(StoreUnreachableError):
            return asked(self._store.where, ask)
        return None

    def end(self, state: TrialState, write: Callable[[], None]) -> None:
        """Write what is left, then the end of the attempt, and wait for a store that does not answer.

        Args:
            state: in which the trial is then.
            write: writes it.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
            StoreError: when the store refuses it, or is away for too long.
        """
        began, backoff, unsure = time.monotonic(), Backoff(), False
        while True:
            try:
                self._check()
                with self._writing:
                    self._flush()
                if not (unsure and self._store.trials.find_state(self._claim) == state):
                    unsure = True
                    asked(self._store.where, write)
                return
            except StoreUnreachableError as problem:
                wait_s = backoff.failed(problem)
                if time.monotonic() - began > (
                    STOP_PATIENCE_S if self._stop.requested else STORE_PATIENCE_S
                ):
                    raise
            time.sleep(wait_s)
