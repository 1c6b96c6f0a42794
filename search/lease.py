"""Keeps a trial's lease alive from a thread while an epoch takes its time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from search.stop import StopRequest
from spaces.errors import LeaseLostError, SearchError
from storage.rows import Claim
from storage.store import Store

LEASE_S = 10.0
"""How long a trial stays with a worker that is not heard of; then another may take it over."""

EXTENSIONS = 3.3
"""So often in its length a lease is extended."""


def worker_name(pid: int, host: str = "") -> str:
    """What a worker process, of this machine unless another is named, is called in the store."""
    return f"{host or socket.gethostname()}:{pid}"


@contextmanager
def kept_alive(store: Store, claim: Claim, stop: StopRequest, lease_s: float = LEASE_S) -> Iterator[None]:
    """Extend the lease, and ask for a stop when device time runs out, until the block ends or the lease is lost."""
    done = threading.Event()
    stop.allow(claim.device_left_s)

    def extend() -> None:
        while not done.wait(lease_s / EXTENSIONS):
            try:
                stop.allow(store.extend(claim, lease_s))
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
