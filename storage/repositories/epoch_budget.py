"""The budget in epochs of a study: how many the trials may be trained for in all.

Every open trial counts with all the epochs that it was granted, and every other one with those that
it was trained for. So the sum stays within the budget with any number of workers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


class TrainedEpochs(NamedTuple):
    """The epochs of a paused trial.

    Attributes:
        kept: that it resumes after, and that count against the budget already.
        repeated: that it trains again, because its checkpoint was dropped.
    """

    kept: int
    repeated: int


def count_epochs_of(connection: Connection, study_id: int, number: int) -> TrainedEpochs:
    """Count the epochs of one trial."""
    counted = (
        select(func.coalesce(func.max(Epoch.epoch), 0), func.max(Trial.checkpoint_dropped))
        .select_from(Trial)
        .outerjoin(Epoch, Epoch.trial_id == Trial.id)
        .where(Trial.study_id == study_id, Trial.number == number)
    )
    trained, is_dropped = connection.execute(counted).one()
    return TrainedEpochs(0, int(trained)) if is_dropped else TrainedEpochs(int(trained), 0)


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
    return select(func.sum(counted + Trial.repeated_epochs)).where(Trial.study_id == study_id)
