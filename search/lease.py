"""Keeps a trial's lease alive from a thread while an epoch takes its time, as long as the training gets on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from search.progress import Progress, end_hung
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


STOOD_STILL_S = 5.0
"""When a short wait took so much longer, the whole process was stopped meanwhile, as by SIGSTOP or a paused machine."""


def waited(done: threading.Event, seconds: float, progress: Progress) -> bool:
    """Wait, but not past the end of the trial; whether that has come. A step is not to blame for a process that stood still."""
    began = time.monotonic()
    over = done.wait(seconds)
    if time.monotonic() - began > seconds + STOOD_STILL_S:
        progress.stood_still()
    return over


@contextmanager
def kept_alive(store: Store, claim: Claim, stop: StopRequest, progress: Progress, lease_s: float = LEASE_S) -> Iterator[None]:
    """Extend the lease, and ask for a stop when device time runs out, until the block ends or the lease is lost.

    A training that hangs ends the whole process: a thread that extends a lease proves nothing of the one that trains.
    """
    done = threading.Event()
    stop.allow(claim.device_left_s)

    def extend() -> None:
        while not waited(done, lease_s / EXTENSIONS, progress):
            if progress.hung:
                end_hung(f"trial {claim.trial_id if claim.number is None else claim.number}", progress)
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
