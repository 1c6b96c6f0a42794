"""Watch a campaign which worker claimed which trial, and when epochs were written."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field

from benchmarks.chaos.store_reader import EpochRow, StoreReader, TrialRow

OVERLAP_S = 3.0
"""Seconds for which epochs are read again: one that is written later may have an earlier time."""


@dataclass(frozen=True)
class Kill:
    """A worker that was killed while it worked on a trial.

    Attributes:
        state_at: when the trial's last state had been written.
        supervised: whether its death is reported, as by `search run`; that of a machine is not.
        frozen: from when to when the worker had stood still before; that is time without work.
    """

    trial_id: int
    attempt: int
    at: float
    state_at: float | None = None
    supervised: bool = False
    frozen: tuple[tuple[float, float], ...] = ()

    def worked_s(self, since: float) -> float:
        """Seconds that it worked from then to its end."""
        return (
            self.at
            - since
            - sum(max(0.0, until - max(since, begun)) for begun, until in self.frozen)
        )


@dataclass
class Watch:
    """Looks into the store. The database runs on this machine, so that its clock and ours are one.

    Attributes:
        trials: as they were when last looked at.
        taken_at: (trial, attempt) → when that attempt was first seen.
        pids: of all workers that ever took a trial.
        away: from when to when the database did not answer.
        epochs: trial → every version of its epochs that was seen, in the order of time.
    """

    reader: StoreReader
    trials: dict[int, TrialRow] = field(default_factory=dict)
    taken_at: dict[tuple[int, int], float] = field(default_factory=dict)
    pids: set[int] = field(default_factory=set)
    epochs: dict[int, list[EpochRow]] = field(default_factory=lambda: defaultdict(list))
    kills: list[Kill] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    _away_since: float | None = None
    _since: float = 0.0
    _seen: set[tuple[int, int, int, float]] = field(default_factory=set)

    def look(self) -> bool:
        """See what is new; False when the database does not answer."""
        try:
            rows, epochs = self.reader.trials(), self.reader.epochs_since(self._since)
        except ConnectionError:
            self._away_since = self._away_since or time.time()
            return False
        now_s = time.time()
        if self._away_since is not None:
            self.away.append((self._away_since, now_s))
            self._away_since = None
        self.trials = {row.id: row for row in rows}
        self.pids |= {row.pid for row in rows}
        for row in rows:
            if row.running:
                self.taken_at.setdefault((row.id, row.attempt), now_s)
        for epoch in epochs:
            key = (epoch.trial_id, epoch.epoch, epoch.attempt, epoch.at)
            if key not in self._seen:
                self._seen.add(key)
                self.epochs[epoch.trial_id].append(epoch)
        self._since = max(self._since, max((epoch.at for epoch in epochs), default=0.0) - OVERLAP_S)
        return True

    def find_trial_of(self, pid: int) -> TrialRow | None:
        """The trial that a worker works on."""
        return next((row for row in self.trials.values() if row.running and row.pid == pid), None)

    def ended(self) -> int:
        """How many trials have ended."""
        return sum(not row.running and row.state != "paused" for row in self.trials.values())

    def epochs_written(self) -> int:
        """How many epochs were seen, each once however often it was written."""
        return sum(len({row.epoch for row in rows}) for rows in self.epochs.values())

    def recoveries(self, *, supervised: bool) -> list[float]:
        """Seconds from each kill until the next attempt was seen; infinite if there was none.

        Args:
            supervised: the kills that were reported, or the others.
        """
        seconds = []
        for kill in (kill for kill in self.kills if kill.supervised == supervised):
            later = [
                at
                for (trial_id, attempt), at in self.taken_at.items()
                if trial_id == kill.trial_id and attempt > kill.attempt
            ]
            if later:
                seconds.append(min(later) - kill.at)
            elif self.trials[kill.trial_id].running:
                seconds.append(float("inf"))
        return seconds

    def losses(self) -> list[float]:
        """Seconds of training that each kill cost: from the resumed checkpoint to the kill."""
        return [lost for kill in self.kills if (lost := self._lost(kill)) is not None]

    def larger_losses(self, bound_s: float) -> list[dict[str, float | None]]:
        """Facts about the kills that cost more: seconds before the kill of what may explain it."""
        return [
            {
                "lost_s": round(lost, 2),
                "trial": kill.trial_id,
                "attempt": kill.attempt,
                "taken_before_s": round(
                    kill.at - self.taken_at.get((kill.trial_id, kill.attempt), kill.at), 2
                ),
                "state_before_s": None
                if kill.state_at is None
                else round(kill.at - kill.state_at, 2),
                "last_epoch_before_s": round(
                    kill.at
                    - max(
                        (row.at for row in self.epochs.get(kill.trial_id, []) if row.at <= kill.at),
                        default=0.0,
                    ),
                    2,
                ),
                "database_away_s": round(
                    sum(
                        max(0.0, min(kill.at, until) - max(kill.at - lost, since))
                        for since, until in self.away
                    ),
                    2,
                ),
                "stood_still_s": round(sum(until - since for since, until in kill.frozen), 2),
            }
            for kill in self.kills
            if (lost := self._lost(kill)) is not None and lost > bound_s
        ]

    def _lost(self, kill: Kill) -> float | None:
        """None where the trial was not trained again.

        Epochs before the resumed checkpoint were not trained again, so their recorded seconds are
        the same as before.
        """
        rows, began = (
            self.epochs.get(kill.trial_id, []),
            self.taken_at.get((kill.trial_id, kill.attempt)),
        )
        after = [row for row in rows if row.attempt > kill.attempt]
        if began is None or not after:
            return None
        before = {
            row.epoch: row for row in rows if row.attempt <= kill.attempt and row.at <= kill.at
        }
        fresh = [
            row.epoch
            for row in after
            if row.attempt == after[0].attempt and not _same(row, before.get(row.epoch))
        ]
        first = min(fresh, default=after[0].epoch + 1)
        again = [row for row in before.values() if row.epoch >= first]
        if kill.state_at is not None and all(row.at > kill.state_at for row in again):
            return kill.worked_s(max(began, kill.state_at))
        own = [row.at for row in before.values() if row.attempt == kill.attempt]
        return kill.worked_s(max([began, *own])) + sum(self._worked(row, before) for row in again)

    def _worked(self, row: EpochRow, before: dict[int, EpochRow]) -> float:
        """Seconds from the previous epoch, or the start of its attempt, to the end of this one."""
        began, last = (
            self.taken_at.get((row.trial_id, row.attempt), row.at - row.seconds),
            before.get(row.epoch - 1),
        )
        return row.at - (max(began, last.at) if last is not None else began)


def _same(row: EpochRow, earlier: EpochRow | None) -> bool:
    return earlier is not None and row.seconds == earlier.seconds
