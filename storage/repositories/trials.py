"""Read the states of a study's trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, Select, case, func, null, select

from spaces.thresholds import rename_former_signals
from storage.database.database import now
from storage.repositories.base import Repository
from storage.rows import ACTIVE_STATES, OPEN_STATES, Claim, Progress, StoredTrial, TrialState
from storage.tables.models import Epoch, Trial


class TrialRepository(Repository):
    """Read the trials of a study, one by one or counted."""

    def list_trials(self, study_id: int) -> list[StoredTrial]:
        """Return every trial of a study, in the order in which they were first claimed."""
        with self._database.reading() as connection:
            rows = connection.execute(
                _select_trials().where(Trial.study_id == study_id).order_by(Trial.id)
            ).all()
        return [_make_trial(row) for row in rows]

    def list_ended(
        self, study_id: int, states: Sequence[TrialState], since: float | None = None
    ) -> list[StoredTrial]:
        """Return the trials in some final states, in the order of their ids.

        Args:
            study_id: of the study in the store.
            states: that count.
            since: if given, only those that ended at that time or later; the cost does not depend
                on how many ended before.
        """
        ended = _select_trials().where(Trial.study_id == study_id, Trial.state.in_(states))
        if since is not None:
            ended = ended.where(Trial.finished_at >= since)
        with self._database.reading() as connection:
            rows = connection.execute(ended.order_by(Trial.id)).all()
        return [_make_trial(row) for row in rows]

    def find_trial(self, study_id: int, number: int) -> StoredTrial | None:
        """Find a trial by its number, None when there is none."""
        with self._database.reading() as connection:
            row = connection.execute(
                _select_trials().where(Trial.study_id == study_id, Trial.number == number)
            ).one_or_none()
        return None if row is None else _make_trial(row)

    def find_state(self, claim: Claim) -> TrialState | None:
        """Read the state in which an attempt left its trial.

        None when another attempt owns the trial, or it was deleted.
        """
        mine = select(Trial.state).where(Trial.id == claim.trial_id, Trial.attempt == claim.attempt)
        with self._database.reading() as connection:
            return connection.execute(mine).scalar()

    def list_progress(self, study_id: int) -> list[Progress]:
        """Return the progress of every trial. One query, cheap enough for every second."""
        last = (
            select(func.max(Epoch.epoch))
            .where(Epoch.trial_id == Trial.id)
            .correlate(Trial)
            .scalar_subquery()
        )
        shown = (
            func.coalesce(Epoch.epoch, 0),
            Epoch.metric,
            Trial.score,
            Trial.worker,
            Trial.preset,
            Trial.lease_until - now(),
        )
        silent_s = case((Trial.state.in_(ACTIVE_STATES), now() - Trial.seen_at), else_=null())
        columns: tuple[Any, ...] = (
            Trial.id,
            Trial.number,
            Trial.state,
            Trial.attempt,
            *shown,
            Trial.lost,
            Trial.host,
            Trial.device,
            silent_s,
            Trial.awaits_promotion,
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
        """Count the trials of a study by state; states without a trial are left out."""
        counted = (
            select(Trial.state, func.count())
            .where(Trial.study_id == study_id)
            .group_by(Trial.state)
        )
        with self._database.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(counted)}

    def count_completed(self, study_id: int) -> int:
        """Count the complete trials of a study; cheap enough for every epoch."""
        complete = (
            select(func.count())
            .select_from(Trial)
            .where(Trial.study_id == study_id, Trial.state == "complete")
        )
        with self._database.reading() as connection:
            return connection.execute(complete).scalar_one()

    def count_open(self, study_id: int) -> int:
        """Count the trials of a study that have started and not ended."""
        tally = self.count_by_state(study_id)
        return sum(tally.get(state, 0) for state in OPEN_STATES)


_Row = Row[*tuple[Any, ...]]
_COLUMNS = tuple(Trial.__table__.columns[name] for name in StoredTrial.__dataclass_fields__)


def _select_trials() -> Select[*tuple[Any, ...]]:
    return select(*_COLUMNS)


def _make_trial(row: _Row) -> StoredTrial:
    trial = StoredTrial(*row)
    return replace(trial, reason=rename_former_signals(trial.reason))
