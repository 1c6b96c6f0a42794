"""How a worker asks a store again that does not answer: how long it waits between two tries, and how long in all."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from search.worker.stop import StopRequest
from spaces.errors import SearchError, StoreBusyError, StoreError, StoreUnreachableError
from storage.database.errors import as_store_error, is_database_error

Answer = TypeVar("Answer")

FIRST_WAIT_S, LAST_WAIT_S = 0.25, 4.0
"""Between two tries; each wait is twice as long as the one before it, give or take a half, so that not all workers ask at once."""

STORE_PATIENCE_S = 600.0
"""How long a worker goes on asking a database that does not answer."""

STOP_PATIENCE_S = 3.0
"""The same for a worker that was asked to stop."""

REFUSED_PATIENCE_S = 60.0
"""How long a worker goes on with a store that answers, and refuses what it is asked: a full disk may be emptied, a missing right stays missing."""


class Backoff:
    """When to ask again a store that does not answer."""

    def __init__(self) -> None:
        self._tries, self._next_at = 0, 0.0

    @property
    def over(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self._next_at

    def failed(self, problem: StoreError) -> float:
        """Seconds to wait after this failure; none at first when another transaction was in the way."""
        at_once = isinstance(problem, StoreBusyError) and self._tries == 0
        wait_s = (
            0.0
            if at_once
            else min(LAST_WAIT_S, FIRST_WAIT_S * 2**self._tries) * random.uniform(0.5, 1.5)
        )
        self._tries += 1
        self._next_at = time.monotonic() + wait_s
        return wait_s

    def answered(self) -> None:
        """The next failure is a first one again."""
        self._tries, self._next_at = 0, 0.0


def asked(where: str, question: Callable[[], Answer]) -> Answer:
    """An answer in which Optuna may have had a part; its words for a database that failed are put into ours.

    Args:
        where: the store's address, without a password.
        question: put to the store.

    Raises:
        StoreError: when the database failed.
    """
    try:
        return question()
    except SearchError:
        raise
    except Exception as problem:
        if is_database_error(problem):
            raise as_store_error(where, problem) from problem
        raise


def patiently(where: str, stop: StopRequest, seen: bool, question: Callable[[], Answer]) -> Answer:
    """An answer of the store that a worker needs to begin.

    A database that has been seen at its address is waited for while it restarts, be it by this worker or by the supervisor
    that started it. A person is told at once that an address does not answer.

    Raises:
        StoreError: when there is none, for long enough.
    """
    began, backoff = time.monotonic(), Backoff()
    while True:
        try:
            return asked(where, question)
        except StoreUnreachableError as problem:
            if not seen or stop.requested or time.monotonic() - began > STORE_PATIENCE_S:
                raise
            print(f"warning: {problem.what}; asking again", flush=True)
            stop.wait(backoff.failed(problem))


class Trouble:
    """What a worker has had of late with its store between two trials, and how long it bears that."""

    def __init__(self) -> None:
        self._silent_since: float | None = None
        self._refused_since: float | None = None
        self._backoff = Backoff()

    @property
    def at_hand(self) -> bool:
        """Whether the last question failed; what became of it nobody knows."""
        return self._silent_since is not None

    def answered(self) -> None:
        """The store is there again. That it takes what it refused shows in the end of a trial."""
        self._silent_since = None
        self._backoff.answered()

    def over(self) -> None:
        """A trial came to its end."""
        self._refused_since = None

    def met(self, problem: StoreError) -> float:
        """Seconds after which to ask again.

        Raises:
            StoreError: the problem, when that has gone on for too long.
        """
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        since, patience_s = self._silent_since, STORE_PATIENCE_S
        if not isinstance(problem, StoreUnreachableError):
            since = self._refused_since = self._refused_since or now
            patience_s = REFUSED_PATIENCE_S
        if now - since > patience_s:
            raise problem
        wait_s = self._backoff.failed(problem)
        if wait_s:
            print(f"warning: {problem.what}; asking again", flush=True)
        return wait_s
