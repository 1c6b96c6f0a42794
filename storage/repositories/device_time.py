"""Device time: what the trials of a study take, and what they may take in all.

An attempt is charged for as long as it holds its trial, on the database's clock. Where the study has a budget, time is
charged before it is used, a lease at a time and never more than is left, and what was not used is returned at the end;
so the sum stays within the budget however many workers there are. Without one a trial is charged for what it used.
Whoever needs the study's row and a trial's locks the study first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from storage.database.engine import now
from storage.repositories.base import Repository
from storage.rows import DeviceTime
from storage.tables.models import Study, Trial

ROUNDING_S = 0.001


class DeviceTimeRepository(Repository):
    """The budget of device time of a study."""

    def set_device_budget(self, study_id: int, budget_s: float) -> None:
        """From now on the trials of the study, those of the past included, may take so many seconds of device time in all.

        Raises:
            ValueError: when it is not positive.
        """
        if not budget_s > 0:
            raise ValueError(f"a budget is more than 0 seconds, not {budget_s!r}")
        taken = (
            select(func.coalesce(func.sum(Trial.device_s), 0.0))
            .where(Trial.study_id == study_id)
            .scalar_subquery()
        )
        with self._database.writing() as connection:
            connection.execute(select(Study.id).where(Study.id == study_id).with_for_update())
            connection.execute(
                update(Study)
                .where(Study.id == study_id)
                .values(device_s=taken, device_budget_s=budget_s)
            )

    def find_device_time(self, study_id: int) -> DeviceTime:
        """What the trials of a study are charged with, and what they may take."""
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
        """Whether the study has a budget of device time, and nothing is left of it; cheap enough to ask twice a second."""
        left = select(Study.device_budget_s - Study.device_s).where(Study.id == study_id)
        with self._database.reading() as connection:
            left_s = connection.execute(left).scalar()
        return left_s is not None and left_s < ROUNDING_S


@dataclass(frozen=True, slots=True)
class Budget:
    """A study's budget, while its row is locked."""

    study_id: int
    left_s: float

    @property
    def spent(self) -> bool:
        """Whether nothing is left that is worth beginning with; sums of seconds since 1970 are exact to less than a microsecond."""
        return self.left_s < ROUNDING_S


def locked_budget(connection: Connection, study_id: int) -> Budget | None:
    """The budget of a study, whose row stays locked until the transaction ends; None, and no lock, where there is none."""
    if (
        connection.execute(select(Study.device_budget_s).where(Study.id == study_id)).scalar()
        is None
    ):
        return None
    left_s = connection.execute(
        select(Study.device_budget_s - Study.device_s).where(Study.id == study_id).with_for_update()
    ).scalar_one()
    return Budget(study_id, left_s or 0.0)


def reserve(connection: Connection, trial_id: int, budget: Budget, lease_s: float) -> float:
    """Charges a trial that is held for the next `lease_s` seconds, or for what is left.

    Returns how many seconds it may still run when that is all it gets, else infinity. Time that it took without having
    been charged for it is charged in any case.
    """
    at, charged_until = _charged(connection, trial_id)
    wanted_s = at + lease_s - charged_until
    granted_s = max(min(wanted_s, budget.left_s), at - charged_until)
    _charge(connection, trial_id, budget, granted_s, charged_until + granted_s)
    return math.inf if granted_s >= wanted_s else charged_until + granted_s - at


def settle(connection: Connection, trial_id: int, budget: Budget) -> None:
    """Returns what an attempt that is over was charged for and did not use, or charges what it used beyond that."""
    at, charged_until = _charged(connection, trial_id)
    _charge(connection, trial_id, budget, at - charged_until, None)


def used(*, over: bool = False) -> dict[str, Any]:
    """What to write to a trial, in a study without a budget, to charge it up to now."""
    taken = now() - func.coalesce(Trial.charged_until, now())
    return {"device_s": Trial.device_s + taken, "charged_until": None if over else now()}


def _charged(connection: Connection, trial_id: int) -> tuple[float, float]:
    """The time, and up to when the trial's attempt is charged."""
    row = connection.execute(select(now(), Trial.charged_until).where(Trial.id == trial_id)).one()
    return row[0], row[0] if row[1] is None else row[1]


def _charge(
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
