"""Device time: how much the trials of a study use, and how much they may use in all.

An attempt is charged for the time for which it owns its trial, on the database's clock. In a study
with a budget, time is charged before it is used, one lease at a time and never more than is left;
what was not used is refunded at the end. So the sum stays within the budget with any number of
workers. In a study without a budget, a trial is charged for what it used.

A transaction that needs both the study's row and a trial's locks the study first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from spaces.errors import StoreError
from storage.database.database import now
from storage.repositories.base import Repository
from storage.rows import DeviceTime
from storage.tables.models import Study, Trial

ROUNDING_S = 0.001


class DeviceTimeRepository(Repository):
    """Read and set the device time of a study."""

    def set_device_budget(self, study_id: int, budget_s: float) -> None:
        """Limit the device time of all trials of a study together, past ones included.

        Args:
            budget_s: seconds.

        Raises:
            ValueError: when it is not positive.
        """
        if not budget_s > 0:
            raise ValueError(f"a budget is more than 0 seconds, not {budget_s!r}")
        charged = (
            select(func.coalesce(func.sum(Trial.device_s), 0.0))
            .where(Trial.study_id == study_id)
            .scalar_subquery()
        )
        with self._database.writing() as connection:
            connection.execute(select(Study.id).where(Study.id == study_id).with_for_update())
            connection.execute(
                update(Study)
                .where(Study.id == study_id)
                .values(device_s=charged, device_budget_s=budget_s)
            )

    def find_device_time(self, study_id: int) -> DeviceTime:
        """Return the time charged for the trials of a study, and its budget."""
        charged = (
            select(func.coalesce(func.sum(Trial.device_s), 0.0))
            .where(Trial.study_id == study_id)
            .scalar_subquery()
        )
        with self._database.reading() as connection:
            row = connection.execute(
                select(charged, Study.device_budget_s).where(Study.id == study_id)
            ).one_or_none()
        return DeviceTime(0.0, None) if row is None else DeviceTime(*row)

    def is_spent(self, study_id: int) -> bool:
        """Whether a study's device time is exhausted; cheap enough to ask twice a second."""
        left = select(Study.device_budget_s - Study.device_s).where(Study.id == study_id)
        with self._database.reading() as connection:
            left_s = connection.execute(left).scalar()
        return left_s is not None and left_s < ROUNDING_S


@dataclass(frozen=True, slots=True)
class Budget:
    """A study's budget, while its row is locked.

    Attributes:
        left_s: seconds that are not charged yet.
    """

    study_id: int
    left_s: float

    @property
    def spent(self) -> bool:
        """Whether too little is left to start with.

        Sums of seconds since 1970 are exact to less than a microsecond.
        """
        return self.left_s < ROUNDING_S


def lock_study(connection: Connection, study_id: int, where: str) -> tuple[int, Budget | None]:
    """Lock a study, so that claims run one at a time.

    SQLite cannot lock a row, and ignores the lock: its writers run one at a time anyway.

    Returns:
        The study's id in Optuna's tables, and its budget of device time.
    """
    columns = (Study.optuna_study_id, Study.device_budget_s, Study.device_s)
    query = select(*columns).where(Study.id == study_id)
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise StoreError(
            f"there is no study with id {study_id}",
            where=where,
            next_step="register the study first",
        )
    optuna_study_id, budget_s, charged_s = row
    return optuna_study_id, None if budget_s is None else Budget(study_id, budget_s - charged_s)


def lock_budget(connection: Connection, study_id: int) -> Budget | None:
    """Lock a study's budget until the transaction ends; without one, return None without a lock."""
    budget = select(Study.device_budget_s).where(Study.id == study_id)
    if connection.execute(budget).scalar() is None:
        return None
    left = select(Study.device_budget_s - Study.device_s).where(Study.id == study_id)
    left_s = connection.execute(left.with_for_update()).scalar_one()
    return Budget(study_id, left_s or 0.0)


def charge_lease(connection: Connection, trial_id: int, budget: Budget, lease_s: float) -> float:
    """Charge a trial for the next `lease_s` seconds, or for what is left of the budget.

    Time that the trial has used without being charged is charged in any case.

    Returns:
        How many seconds the trial may still run if the budget ends with them, else infinity.
    """
    at, charged_until = _read_charge(connection, trial_id)
    wanted_s = at + lease_s - charged_until
    granted_s = max(min(wanted_s, budget.left_s), at - charged_until)
    _add_charge(connection, trial_id, budget, granted_s, charged_until + granted_s)
    return math.inf if granted_s >= wanted_s else charged_until + granted_s - at


def settle_charge(connection: Connection, trial_id: int, budget: Budget) -> None:
    """Refund what an ended attempt did not use, or charge what it used in addition."""
    at, charged_until = _read_charge(connection, trial_id)
    _add_charge(connection, trial_id, budget, at - charged_until, None)


def charge_until_now(*, has_ended: bool = False) -> dict[str, Any]:
    """Make the values that charge a trial up to now, in a study without a budget.

    Args:
        has_ended: whether the attempt ends with this charge.
    """
    used = now() - func.coalesce(Trial.charged_until, now())
    return {"device_s": Trial.device_s + used, "charged_until": None if has_ended else now()}


def _read_charge(connection: Connection, trial_id: int) -> tuple[float, float]:
    """The current time, and up to when the trial's attempt is charged."""
    row = connection.execute(select(now(), Trial.charged_until).where(Trial.id == trial_id)).one()
    return row[0], row[0] if row[1] is None else row[1]


def _add_charge(
    connection: Connection, trial_id: int, budget: Budget, seconds: float, until: float | None
) -> None:
    connection.execute(
        update(Study).where(Study.id == budget.study_id).values(device_s=Study.device_s + seconds)
    )
    connection.execute(
        update(Trial)
        .where(Trial.id == trial_id)
        .values(device_s=Trial.device_s + seconds, charged_until=until)
    )
