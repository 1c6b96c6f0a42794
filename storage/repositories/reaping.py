"""Trials whose worker vanished: they go back to the study, or end when they cost too many workers their lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from storage.database.engine import Database, now
from storage.repositories.base import Repository
from storage.repositories.device_time import Budget, locked_budget, settle, used
from storage.rows import FINAL_STATES, HELD_STATES, OPEN_STATES, Death, Reaped
from storage.tables.models import Epoch, Study, Trial
from storage.tables.optuna import OptunaTables

MAX_ATTEMPTS = 3
"""A trial that cost so many workers their lives is failed."""

GIVEN_UP = "given up"
"""Signal of a trial that ended for that."""

GRACE_S = 10.0
"""After the database was away for a while every lease is over: for so long its workers have time to extend theirs."""

MAX_WORDS = 10_000
"""Of the last words of a worker, so many characters are kept."""


class ReapingRepository(Repository):
    """Finding the trials that a worker left behind, and how long ago a study got on."""

    def reap_trials(
        self, study_id: int, death: Death | None = None, max_attempts: int = MAX_ATTEMPTS
    ) -> list[Reaped]:
        """Gives the trials back whose lease is over, so that the next claim carries them on, or fails those that are worn out.

        Args:
            study_id: whose trials.
            death: of a worker that is known to be dead: its trials are given back at once, and only those.
            max_attempts: a trial that cost so many workers their lives is failed, with what is known of the last one.
        """
        with self._database.writing() as connection:
            connection.execute(select(Study.id).where(Study.id == study_id).with_for_update())
            return release(self._database, connection, self._optuna, study_id, death, max_attempts)

    def release_worker(self, study_id: int, worker: str) -> int:
        """Pauses what is still held in the name of a worker that works on nothing; how many trials that were.

        A worker whose connection was cut does not know what became of its last transaction.
        """
        mine = and_(
            Trial.study_id == study_id, Trial.worker == worker, Trial.state.in_(HELD_STATES)
        )
        with self._database.writing() as connection:
            budget = locked_budget(connection, study_id)
            held = (
                connection.execute(select(Trial.id).where(mine).with_for_update()).scalars().all()
            )
            for trial_id in held:
                connection.execute(
                    update(Trial)
                    .where(Trial.id == trial_id)
                    .values(state="paused", lease_until=None)
                )
                _charge_lost(connection, trial_id, budget, known=True)
        return len(held)

    def last_progress(self, study_id: int) -> float:
        """When the study last got on, on the database's clock: an epoch of an open trial, or the end of one; 0.0 for never.

        The end of a failed trial is no progress.
        """
        ended = select(func.max(Trial.finished_at)).where(
            Trial.study_id == study_id,
            Trial.state.in_([state for state in FINAL_STATES if state != "failed"]),
        )
        last = (
            select(func.max(Epoch.epoch))
            .where(Epoch.trial_id == Trial.id)
            .correlate(Trial)
            .scalar_subquery()
        )
        stored = (
            select(func.max(Epoch.at))
            .join(Trial, and_(Trial.id == Epoch.trial_id, Epoch.epoch == last))
            .where(Trial.study_id == study_id, Trial.state.in_(OPEN_STATES))
        )
        with self._database.reading() as connection:
            times = [connection.execute(query).scalar() for query in (ended, stored)]
        return max(time or 0.0 for time in times)


def silent() -> ColumnElement[bool]:
    """Whether a trial's lease is over."""
    return and_(Trial.state.in_(HELD_STATES), Trial.lease_until < now())


def release(
    database: Database,
    connection: Connection,
    optuna: OptunaTables,
    study_id: int,
    death: Death | None,
    max_attempts: int,
) -> list[Reaped]:
    """What `reap` does, within a transaction that locked the study. A trial whose row is locked has an owner who is extending the lease right now."""
    if death is None and not database.answered_for(GRACE_S):
        return []
    gone = (
        silent()
        if death is None
        else and_(Trial.state.in_(HELD_STATES), Trial.worker == death.worker)
    )
    columns = (Trial.id, Trial.number, Trial.worker, Trial.lost, Trial.optuna_trial_id)
    found = connection.execute(
        select(*columns).where(Trial.study_id == study_id, gone).with_for_update(skip_locked=True)
    ).all()
    if not found:
        return []
    budget = locked_budget(connection, study_id)
    reaped = [
        Reaped(row.number, row.worker, row.lost + 1, row.lost + 1 >= max_attempts) for row in found
    ]
    for row, each in zip(found, reaped, strict=True):
        connection.execute(update(Trial).where(Trial.id == row.id).values(_left(each, death)))
        _charge_lost(connection, row.id, budget, known=death is not None)
    given_up = [
        row.optuna_trial_id
        for row, each in zip(found, reaped, strict=True)
        if each.ended and row.optuna_trial_id is not None
    ]
    _tell_optuna(connection, optuna, given_up, max_attempts)
    return reaped


def _left(each: Reaped, death: Death | None) -> dict[str, Any]:
    values: dict[str, Any] = {"lost": each.lost, "lease_until": None, "state": "paused"}
    if death is not None:
        values["error"] = death.last_words[-MAX_WORDS:]
    if each.ended:
        how = (
            "" if death is None or not death.how else f"; the last one, {death.worker}, {death.how}"
        )
        values |= {
            "state": "failed",
            "reason": f"{_given_up(each.lost)}{how}",
            "signal": GIVEN_UP,
            "finished_at": now(),
        }
    return values


def _charge_lost(
    connection: Connection, trial_id: int, budget: Budget | None, *, known: bool
) -> None:
    """When it is not known when the worker stopped, the time that it was promised counts as used."""
    if not known:
        connection.execute(update(Trial).where(Trial.id == trial_id).values(charged_until=None))
    elif budget is not None:
        settle(connection, trial_id, budget)
    else:
        connection.execute(update(Trial).where(Trial.id == trial_id).values(used(over=True)))


def _given_up(lost: int) -> str:
    return f"{GIVEN_UP}: {lost} workers vanished while they worked on it"


def _tell_optuna(
    connection: Connection, optuna: OptunaTables, trial_ids: Sequence[int], lost: int
) -> None:
    if trial_ids and optuna.known(connection):
        optuna.give_up(connection, trial_ids, _given_up(lost))
