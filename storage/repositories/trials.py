"""Reading how the trials of a study stand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Row, Select, case, func, null, select

from spaces.thresholds import rename_former_signals
from storage.database.engine import now
from storage.repositories.base import Repository
from storage.rows import HELD_STATES, OPEN_STATES, Claim, Progress, StoredTrial, TrialState
from storage.tables.models import Epoch, Trial


class TrialRepository(Repository):
    """The trials of a study, one by one or summed up."""

    def list_trials(self, study_id: int) -> list[StoredTrial]:
        """Every trial of a study, in the order in which they were claimed first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                _trials().where(Trial.study_id == study_id).order_by(Trial.id)
            ).all()
        return [_stored(row) for row in rows]

    def find_trial(self, study_id: int, number: int) -> StoredTrial | None:
        """The trial of that number, None when there is none."""
        with self._database.reading() as connection:
            row = connection.execute(
                _trials().where(Trial.study_id == study_id, Trial.number == number)
            ).one_or_none()
        return None if row is None else _stored(row)

    def find_state(self, claim: Claim) -> TrialState | None:
        """The state of a trial as this attempt left it; None when another attempt has it, or it is gone."""
        mine = select(Trial.state).where(Trial.id == claim.trial_id, Trial.attempt == claim.attempt)
        with self._database.reading() as connection:
            return connection.execute(mine).scalar()

    def list_progress(self, study_id: int) -> list[Progress]:
        """How far every trial is, cheaply enough to ask every second: one query that touches the last epoch of each trial only."""
        last = (
            select(func.max(Epoch.epoch))
            .where(Epoch.trial_id == Trial.id)
            .correlate(Trial)
            .scalar_subquery()
        )
        told = (
            func.coalesce(Epoch.epoch, 0),
            Epoch.metric,
            Trial.score,
            Trial.worker,
            Trial.preset,
            Trial.lease_until - now(),
        )
        silent_s = case((Trial.state.in_(HELD_STATES), now() - Trial.seen_at), else_=null())
        columns: tuple[Any, ...] = (
            Trial.id,
            Trial.number,
            Trial.state,
            Trial.attempt,
            *told,
            Trial.lost,
            Trial.host,
            Trial.device,
            silent_s,
        )
        with_last = select(*columns).outerjoin(
            Epoch, (Epoch.trial_id == Trial.id) & (Epoch.epoch == last)
        )
        with self._database.reading() as connection:
            rows = connection.execute(
                with_last.where(Trial.study_id == study_id).order_by(Trial.id)
            ).all()
        return [Progress(*row) for row in rows]

    def count_by_state(self, study_id: int) -> dict[TrialState, int]:
        """How many trials of a study are in each state; states that no trial is in are left out."""
        counted = (
            select(Trial.state, func.count())
            .where(Trial.study_id == study_id)
            .group_by(Trial.state)
        )
        with self._database.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(counted)}

    def count_completed(self, study_id: int) -> int:
        """How many trials of a study are complete; cheap enough to ask after every epoch."""
        complete = (
            select(func.count())
            .select_from(Trial)
            .where(Trial.study_id == study_id, Trial.state == "complete")
        )
        with self._database.reading() as connection:
            return connection.execute(complete).scalar_one()

    def count_open(self, study_id: int) -> int:
        """How many trials of a study have begun and not ended."""
        tally = self.count_by_state(study_id)
        return sum(tally.get(state, 0) for state in OPEN_STATES)


_Row = Row[*tuple[Any, ...]]
_COLUMNS = tuple(Trial.__table__.columns[name] for name in StoredTrial.__dataclass_fields__)


def _trials() -> Select[*tuple[Any, ...]]:
    return select(*_COLUMNS)


def _stored(row: _Row) -> StoredTrial:
    trial = StoredTrial(*row)
    return replace(trial, reason=rename_former_signals(trial.reason))
