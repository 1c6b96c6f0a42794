"""What a supervisor does for the trials of its workers: it gives back what dead ones left, and notices whether the study gets on."""

from __future__ import annotations

import signal
import time
from collections import deque
from contextlib import suppress

from spaces.errors import StoreError
from storage.rows import Death
from storage.store import Store

REAP_EVERY_S = 2.0
"""How often it looks for leases that are over; those of its own workers it gives back at once."""

LAST_LINES = 40
"""Of a dead worker's log, kept with the trial that it worked on."""


class TrialCare:
    """The trials of one study. A store that does not answer is asked again at the next look.

    Args:
        store: where the trials are.
        study_id: of the study.
    """

    def __init__(self, store: Store, study_id: int) -> None:
        self._store, self._study_id = store, study_id
        self._deaths: deque[Death] = deque()
        self._next_look = 0.0
        self._got_on = 0.0

    def died(self, worker: str, exit_code: int, last_lines: list[str]) -> None:
        """A worker, by its name in the store, is dead: its trial goes back at once."""
        self._deaths.append(Death(worker, ended_by(exit_code), "\n".join(last_lines[-LAST_LINES:])))
        self._next_look = 0.0
        self.look()

    def stopped(self, worker: str) -> None:
        """A worker was ended without mercy because somebody asked for it: its trial goes back, and no death is counted."""
        with suppress(StoreError):  # the lease ends by itself
            self._store.reaping.release_worker(self._study_id, worker)

    def look(self) -> None:
        """Give back what was left behind, now and then."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + REAP_EVERY_S
        with suppress(StoreError):
            while self._deaths:
                self._store.reaping.reap_trials(self._study_id, self._deaths[0])
                self._deaths.popleft()
            self._store.reaping.reap_trials(self._study_id)

    def got_on(self) -> bool:
        """Whether an epoch was stored or a trial ended since this was last asked; also when nobody can tell."""
        try:
            before, self._got_on = self._got_on, self._store.reaping.last_progress(self._study_id)
        except StoreError:
            return True
        return self._got_on > before


def ended_by(exit_code: int) -> str:
    """`was ended by signal 9 (SIGKILL)`, or `ended with exit code 1`."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        name = f" ({signal.Signals(-exit_code).name})"
    except ValueError:
        name = ""
    return f"was ended by signal {-exit_code}{name}"
