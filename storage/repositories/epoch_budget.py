"""The budget in epochs of a study: how many the trials may be trained for in all.

Every open trial counts with all the epochs that it was granted, and every other one with those that
it was trained for. So the sum stays within the budget with any number of workers.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select

from storage.rows import ACTIVE_STATES, EpochBudget
from storage.tables.models import Epoch, Trial


def grant_epochs(
    connection: Connection,
    study_id: int,
    budget: EpochBudget,
    until_epoch: int | None,
    counted: int,
) -> int | None:
    """Return the epoch to which a trial may be trained; the caller has locked the study.

    Args:
        connection: of the transaction.
        study_id: of the study.
        budget: of the study.
        until_epoch: the epoch to which it is wanted; None: the last one.
        counted: epochs of the trial that count against the budget already.

    Returns:
        None when the budget has no further epoch for the trial.
    """
    granted = connection.execute(_sum_granted(study_id, budget.epochs_per_trial)).scalar() or 0
    most = counted + budget.epochs - int(granted)
    return min(until_epoch or budget.epochs_per_trial, most) if most > counted else None


def count_epochs_of(connection: Connection, study_id: int, number: int) -> int:
    """Count the epochs of one trial."""
    trial = select(Trial.id).where(Trial.study_id == study_id, Trial.number == number)
    counted = select(func.max(Epoch.epoch)).where(Epoch.trial_id == trial.scalar_subquery())
    return connection.execute(counted).scalar() or 0


def _sum_granted(study_id: int, epochs_per_trial: int) -> Any:
    trained = (
        select(func.max(Epoch.epoch))
        .where(Epoch.trial_id == Trial.id)
        .correlate(Trial)
        .scalar_subquery()
    )
    is_owned: ColumnElement[bool] = or_(
        Trial.state.in_(ACTIVE_STATES), and_(Trial.state == "paused", Trial.awaits_promotion == 0)
    )
    granted = func.coalesce(Trial.until_epoch, epochs_per_trial)
    counted = case((is_owned, granted), else_=func.coalesce(trained, 0))
    return select(func.sum(counted)).where(Trial.study_id == study_id)
