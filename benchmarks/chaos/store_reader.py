"""Read a campaign's store by plain SQL on its own connection, independently of our own code."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import psycopg

from storage.tables.columns import loads

CLAIMED_STATES = ("reserved", "running")

_TRIALS = (
    "SELECT id, number, state, attempt, lost, pid, lease_until, optuna_trial_id, score "
    "FROM search_trials ORDER BY id"
)
_EPOCHS_SINCE = (
    "SELECT trial_id, epoch, attempt, at, record FROM search_epochs "
    "WHERE at >= {since!r} ORDER BY at"
)


@dataclass(frozen=True)
class TrialRow:
    """A trial as our table has it."""

    id: int
    number: int | None
    state: str
    attempt: int
    lost: int
    pid: int
    lease_until: float | None
    optuna_trial_id: int | None
    score: Any

    @property
    def running(self) -> bool:
        """Whether a worker works on it, or did when it vanished."""
        return self.state in CLAIMED_STATES


@dataclass(frozen=True)
class EpochRow:
    """An epoch of our table. `seconds` was measured by the worker, so a second training differs."""

    trial_id: int
    epoch: int
    attempt: int
    at: float
    seconds: float


class StoreReader:
    """Our tables and Optuna's of one store.

    Args:
        url: an SQLite file, or a PostgreSQL server that is asked directly, past whatever cuts the
            workers' connections.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: Any = None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query finds.

        Raises:
            ConnectionError: when the database does not answer.
        """
        try:
            if self._connection is None:
                self._connection = self._connect()
            return list(self._connection.execute(sql).fetchall())
        except (psycopg.Error, sqlite3.OperationalError) as problem:
            self.close()
            raise ConnectionError(str(problem)) from problem

    def trials(self) -> list[TrialRow]:
        """Our trials."""
        return [TrialRow(*row) for row in self.rows(_TRIALS)]

    def epochs_since(self, since: float) -> list[EpochRow]:
        """Our epochs that were written from then on, by the database's clock."""
        return [
            EpochRow(trial_id, epoch, attempt, at, float(loads(record)["seconds"]))
            for trial_id, epoch, attempt, at, record in self.rows(_EPOCHS_SINCE.format(since=since))
        ]

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _connect(self) -> Any:
        if self.url.startswith("sqlite:"):
            return sqlite3.connect(
                f"file:{self.url.removeprefix('sqlite:///')}?mode=ro",
                uri=True,
                timeout=30,
                isolation_level=None,
            )
        return psycopg.connect(self.url, autocommit=True, connect_timeout=4)
