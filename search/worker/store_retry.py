"""The retry policy for a database that fails: waits between attempts, and the time in all."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from search.worker.stop import StopRequest
from spaces.errors import SearchError, StoreBusyError, StoreError, StoreUnreachableError
from storage.database.errors import as_store_error, is_database_error

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

FIRST_WAIT_S = 0.25
LAST_WAIT_S = 4.0
"""First and longest wait between two attempts. Each wait is twice as long as the one before, plus
or minus half of it, so that the workers do not all retry at once."""

STORE_PATIENCE_S = 600.0
"""How long a worker retries while the database does not answer."""

STOP_PATIENCE_S = 3.0
"""The same for a worker that was asked to stop."""

REFUSED_PATIENCE_S = 60.0
"""How long a worker retries while the database answers but refuses the request. A full disk may be
emptied; a missing right stays missing."""


class Backoff:
    """When to ask a database again that does not answer."""

    def __init__(self) -> None:
        self._failures = 0
        self._next_at = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the wait is over."""
        return time.monotonic() >= self._next_at

    def record_failure(self, problem: StoreError) -> float:
        """Count a failure and return the seconds to wait.

        The first conflict with another transaction is retried immediately.
        """
        wait_s = min(LAST_WAIT_S, FIRST_WAIT_S * 2.0**self._failures) * random.uniform(0.5, 1.5)
        if isinstance(problem, StoreBusyError) and self._failures == 0:
            wait_s = 0.0
        self._failures += 1
        self._next_at = time.monotonic() + wait_s
        return wait_s

    def reset(self) -> None:
        """Treat the next failure as the first one."""
        self._failures = 0
        self._next_at = 0.0


class RetryTimer:
    """Backoff for one operation, with a limit on the time in all."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._backoff = Backoff()

    def next_wait_s(self, problem: StoreUnreachableError, patience_s: float) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            StoreUnreachableError: the problem, when `patience_s` have passed since the first
                attempt.
        """
        wait_s = self._backoff.record_failure(problem)
        if time.monotonic() - self._began > patience_s:
            raise problem
        return wait_s


class OutageTracker:
    """How long a worker tolerates database errors between two trials."""

    def __init__(self) -> None:
        self._unanswered_since: float | None = None
        self._refused_since: float | None = None
        self._backoff = Backoff()

    @property
    def last_request_failed(self) -> bool:
        """Whether the last request failed, so that its effect on the database is unknown."""
        return self._unanswered_since is not None

    def record_answer(self) -> None:
        """The database answered. Whether it accepts what it refused shows at the end of a trial."""
        self._unanswered_since = None
        self._backoff.reset()

    def record_trial_end(self) -> None:
        """The database accepted the end of a trial."""
        self._refused_since = None

    def record_error(self, problem: StoreError) -> float:
        """Count an error and return the seconds after which to try again.

        Raises:
            StoreError: the problem, when the errors have lasted too long.
        """
        now = time.monotonic()
        self._unanswered_since = self._unanswered_since or now
        since = self._unanswered_since
        patience_s = STORE_PATIENCE_S
        if not isinstance(problem, StoreUnreachableError):
            self._refused_since = self._refused_since or now
            since = self._refused_since
            patience_s = REFUSED_PATIENCE_S
        if now - since > patience_s:
            raise problem
        wait_s = self._backoff.record_failure(problem)
        if wait_s:
            logger.warning("%s; retrying", problem.what)
        return wait_s


@contextmanager
def translating_store_errors(where: str) -> Iterator[None]:
    """Turn database errors that Optuna raises in the block into ours.

    Args:
        where: the store's address, without a password.

    Raises:
        StoreError: when the database failed.
    """
    try:
        yield
    except SearchError:
        raise
    except Exception as problem:
        if is_database_error(problem):
            raise as_store_error(where, problem) from problem
        raise


def retry_until_available(
    where: str, stop: StopRequest, known: bool, request: Callable[[], Answer]
) -> Answer:
    """Make a request that a worker needs in order to start, and wait while the database restarts.

    Args:
        where: the store's address, without a password.
        stop: ends the waiting.
        known: whether the database has answered at this address before, to this worker or to its
            supervisor. Otherwise the address may be wrong, and the first error is raised.
        request: made again after each error.

    Raises:
        StoreError: when the database does not answer for too long.
    """
    timer = RetryTimer()
    while True:
        try:
            with translating_store_errors(where):
                return request()
        except StoreUnreachableError as problem:
            if not known or stop.is_requested:
                raise
            wait_s = timer.next_wait_s(problem, STORE_PATIENCE_S)
            logger.warning("%s; retrying", problem.what)
            stop.wait(wait_s)
