"""Reaping: release the trials of workers that died or stopped responding, or fail those trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from storage.database.database import Database, now
from storage.repositories.base import Repository
from storage.repositories.device_time import (
    Budget,
    charge_until_now,
    lock_budget,
    settle_charge,
)
from storage.rows import ACTIVE_STATES, FINAL_STATES, OPEN_STATES, Claim, Death, Reaped
from storage.tables.models import Epoch, Study, Trial
from storage.tables.optuna_tables import OptunaTables

MAX_LOST_WORKERS = 3
"""A trial that lost this many workers is failed. Workers that respond again do not count."""

ABANDONED = "abandoned"
"""Signal of a trial that ended for that."""

GRACE_S = 10.0
"""Every lease has expired after an outage of the database; workers have this long to renew it."""

MAX_ERROR_CHARACTERS = 10_000
"""How many characters of the end of a worker's log are stored."""


class ReapingRepository(Repository):
    """Find and release the trials that a worker abandoned."""

    def reap_trials(
        self, study_id: int, death: Death | None = None, max_lost: int = MAX_LOST_WORKERS
    ) -> list[Reaped]:
        """Release the trials whose lease has expired, or fail those that lost too many workers.

        Args:
            study_id: of the trials.
            death: of a worker that is known to be dead: only its trials are released, and
                immediately.
            max_lost: a trial that lost this many workers is failed.
        """
        with self._database.writing() as connection:
            connection.execute(select(Study.id).where(Study.id == study_id).with_for_update())
            return reap_lost(self._database, connection, self._optuna, study_id, death, max_lost)

    def retract_loss(self, claim: Claim) -> None:
        """Count one lost worker less, because it lost the trial and responds again.

        It was suspended, or its network was away. A trial is failed because it kills its workers,
        and a machine that is suspended again and again must not look like that.
        """
        lost_and_open = and_(
            Trial.id == claim.trial_id,
            Trial.attempt >= claim.attempt,
            Trial.lost > 0,
            Trial.state.in_(OPEN_STATES),
        )
        with self._database.writing() as connection:
            connection.execute(update(Trial).where(lost_and_open).values(lost=Trial.lost - 1))

    def release_worker(self, study_id: int, worker: str) -> int:
        """Pause the trials that a worker owns according to the store, but does not work on.

        A worker whose connection was cut does not know whether its last transaction was committed.

        Returns:
            How many trials were paused.
        """
        owned = and_(
            Trial.study_id == study_id, Trial.worker == worker, Trial.state.in_(ACTIVE_STATES)
        )
        paused = {"state": "paused", "lease_until": None}
        with self._database.writing() as connection:
            budget = lock_budget(connection, study_id)
            query = select(Trial.id).where(owned).with_for_update()
            trial_ids = connection.execute(query).scalars().all()
            for trial_id in trial_ids:
                connection.execute(update(Trial).where(Trial.id == trial_id).values(paused))
                _charge_lost(connection, trial_id, budget, is_known=True)
        return len(trial_ids)

    def last_progress(self, study_id: int) -> float:
        """Return when a study last made progress, on the database's clock; 0.0 for never.

        That is an epoch of an open trial, or the end of a trial that did not fail.
        """
        successful = [state for state in FINAL_STATES if state != "failed"]
        last_end = select(func.max(Trial.finished_at)).where(
            Trial.study_id == study_id, Trial.state.in_(successful)
        )
        newest = (
            select(func.max(Epoch.epoch))
            .where(Epoch.trial_id == Trial.id)
            .correlate(Trial)
            .scalar_subquery()
        )
        last_epoch = (
            select(func.max(Epoch.at))
            .join(Trial, and_(Trial.id == Epoch.trial_id, Epoch.epoch == newest))
            .where(Trial.study_id == study_id, Trial.state.in_(OPEN_STATES))
        )
        with self._database.reading() as connection:
            times = [connection.execute(query).scalar() for query in (last_end, last_epoch)]
        return max(time or 0.0 for time in times)


def reap_lost(
    database: Database,
    connection: Connection,
    optuna: OptunaTables,
    study_id: int,
    death: Death | None,
    max_lost: int,
) -> list[Reaped]:
    """Do what `reap_trials` does, within a transaction that has locked the study.

    A trial whose row is locked is skipped: its owner is renewing the lease right now.
    """
    if death is None and not database.was_available(GRACE_S):
        return []
    columns = (Trial.id, Trial.number, Trial.worker, Trial.lost, Trial.optuna_trial_id)
    query = select(*columns).where(Trial.study_id == study_id, _is_lost(death))
    rows = connection.execute(query.with_for_update(skip_locked=True)).all()
    if not rows:
        return []
    budget = lock_budget(connection, study_id)
    reaped = []
    failed = []
    for row in rows:
        lost = row.lost + 1
        each = Reaped(row.number, row.worker, lost, lost >= max_lost)
        values = _make_values(each, death)
        connection.execute(update(Trial).where(Trial.id == row.id).values(values))
        _charge_lost(connection, row.id, budget, is_known=death is not None)
        reaped.append(each)
        if each.ended and row.optuna_trial_id is not None:
            failed.append(row.optuna_trial_id)
    _fail_in_optuna(connection, optuna, failed, max_lost)
    return reaped


def _is_lost(death: Death | None) -> ColumnElement[bool]:
    """Whether a trial's lease has expired, or its owner is the worker known to be dead."""
    if death is None:
        return and_(Trial.state.in_(ACTIVE_STATES), Trial.lease_until < now())
    return and_(Trial.state.in_(ACTIVE_STATES), Trial.worker == death.worker)


def _make_values(reaped: Reaped, death: Death | None) -> dict[str, Any]:
    """The values to write to a trial that lost its worker."""
    values: dict[str, Any] = {"lost": reaped.lost, "lease_until": None, "state": "paused"}
    if death is not None:
        values["error"] = death.last_words[-MAX_ERROR_CHARACTERS:]
    if reaped.ended:
        reason = _make_reason(reaped.lost)
        if death is not None and death.how:
            reason += f"; the last one, {death.worker}, {death.how}"
        values |= {"state": "failed", "reason": reason, "signal": ABANDONED, "finished_at": now()}
    return values


def _charge_lost(
    connection: Connection, trial_id: int, budget: Budget | None, *, is_known: bool
) -> None:
    """Charge a trial for the time of its lost worker.

    Args:
        is_known: whether the worker stopped just now. Otherwise its whole lease counts as used.
    """
    if is_known and budget is not None:
        settle_charge(connection, trial_id, budget)
        return
    values = charge_until_now(has_ended=True) if is_known else {"charged_until": None}
    connection.execute(update(Trial).where(Trial.id == trial_id).values(values))


def _make_reason(lost: int) -> str:
    return f"{ABANDONED}: {lost} workers died or stopped responding while training it"


def _fail_in_optuna(
    connection: Connection, optuna: OptunaTables, trial_ids: Sequence[int], lost: int
) -> None:
    if trial_ids and optuna.check_version(connection):
        optuna.fail_trials(connection, trial_ids, _make_reason(lost))
