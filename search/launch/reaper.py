"""The supervisor's reaper: releases trials of dead workers and watches the study's progress."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from spaces.errors import StoreError
from storage.rows import Death
from storage.store import Store

REAP_EVERY_S = 2.0
"""How often expired leases are looked for. The trials of workers that this supervisor saw die are
released at once."""

LAST_LINES = 40
"""Lines of a dead worker's log that are stored with its trial."""


class TrialReaper:
    """Releases the trials of one study whose workers died.

    A store that does not answer is asked again later.

    Args:
        store: the store.
        study_id: id of the study.
    """

    def __init__(self, store: Store, study_id: int) -> None:
        self._store = store
        self._study_id = study_id
        self._deaths: deque[Death] = deque()
        self._next_reap = 0.0
        self._last_progress = 0.0

    def report_death(self, worker: str, exit_code: int, log_tail: Sequence[str]) -> None:
        """Release the trial of a dead worker at once, and count the death.

        Args:
            worker: name of the worker in the store.
            exit_code: of its process; negative for a signal.
            log_tail: the end of its log.
        """
        last_lines = "\n".join(log_tail[-LAST_LINES:])
        self._deaths.append(Death(worker, describe_exit(exit_code), last_lines))
        self._next_reap = 0.0
        self.reap_trials()

    def release_killed(self, worker: str) -> None:
        """Release the trial of a worker that was killed for a stop; no death is counted."""
        with suppress(StoreError):  # the lease expires anyway
            self._store.reaping.release_worker(self._study_id, worker)

    def reap_trials(self) -> None:
        """Release the trials of dead workers and of expired leases, every few seconds."""
        if time.monotonic() < self._next_reap:
            return
        self._next_reap = time.monotonic() + REAP_EVERY_S
        with suppress(StoreError):
            while self._deaths:
                self._store.reaping.reap_trials(self._study_id, self._deaths[0])
                self._deaths.popleft()
            self._store.reaping.reap_trials(self._study_id)

    def made_progress(self) -> bool:
        """Whether an epoch was stored or a trial ended since the last call.

        Also when the store does not answer, because that is unknown then.
        """
        before = self._last_progress
        try:
            self._last_progress = self._store.reaping.last_progress(self._study_id)
        except StoreError:
            return True
        return self._last_progress > before


def describe_exit(exit_code: int) -> str:
    """`was ended by signal 9 (SIGKILL)`, or `ended with exit code 1`."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        name = f" ({signal.Signals(-exit_code).name})"
    except ValueError:
        name = ""
    return f"was ended by signal {-exit_code}{name}"
