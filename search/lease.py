"""Keeps a trial's lease alive from a thread while an epoch takes its time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from spaces.errors import LeaseLostError, SearchError
from storage.rows import Claim
from storage.store import Store

LEASE_S = 30.0
"""How long a trial stays with a worker that is not heard of; then another may take it over."""


@contextmanager
def kept_alive(store: Store, claim: Claim, lease_s: float = LEASE_S) -> Iterator[None]:
    """Extend the lease three times in its length, until the block ends or the lease is lost."""
    done = threading.Event()

    def extend() -> None:
        while not done.wait(lease_s / 3):
            try:
                store.extend(claim, lease_s)
            except LeaseLostError:
                return  # the next write will say so
            except SearchError:
                continue  # the database may come back before the lease is over

    thread = threading.Thread(target=extend, daemon=True, name="lease")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
