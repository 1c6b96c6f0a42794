"""The epoch log: what every epoch of every trial recorded.

The epochs of a trial are 1, 2, … without a gap, and attempts only grow along them. A new attempt goes on after the last
one, or, when its checkpoint is older, from an earlier epoch, whereupon the epochs of the older attempts from there on go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    ScalarSelect,
    Update,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from spaces.errors import EpochOrderError
from spaces.records import EpochRecord
from storage.database.engine import now
from storage.repositories.base import Repository
from storage.repositories.leases import end_attempt, hold, lost, until
from storage.rows import HELD_STATES, Claim
from storage.tables.columns import Json
from storage.tables.models import Epoch, Trial


class EpochRepository(Repository):
    """Appending epoch records, and reading them."""

    def append_epoch(self, claim: Claim, record: EpochRecord, lease_s: float) -> None:
        """Keeps one epoch, holds the trial for `lease_s` seconds more, and notes what was used: one transaction.

        Where the store knows Optuna's tables the metric is reported there in it, too, unless it is no number: a broken epoch
        has none. A newer attempt's epoch takes the place of what older ones wrote and reported from there on.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
            EpochOrderError: when the epoch is not the one that comes next.
            TypeError: when the record holds what is no JSON value.
            ValueError: when the lease is not positive.
        """
        until(lease_s)
        mine = {"b_trial": claim.trial_id, "b_attempt": claim.attempt, "b_lease_s": lease_s}
        epoch = {
            "trial_id": claim.trial_id,
            "epoch": record.epoch,
            "attempt": claim.attempt,
            "metric": record.metric,
        }
        with self._database.writing() as connection:
            last = (
                _hold(connection, {**mine, "b_used": record.used}, _HOLD_AND_NOTE)
                if record.used
                else _hold(connection, mine, _HOLD)
            )
            if last is None:
                raise lost(connection, claim)
            if _overwrites(last, claim, record.epoch):
                self._forget(connection, claim, record.epoch - 1)
            connection.execute(_INSERT, {**epoch, "record": record.as_dict()})
            if (
                claim.optuna_trial_id is not None
                and record.metric == record.metric
                and self._optuna.known(connection)
            ):
                self._optuna.report(connection, claim.optuna_trial_id, record.epoch, record.metric)

    def forget_epochs_after(self, claim: Claim, epoch: int) -> None:
        """Drops the later epochs, because the checkpoint that the attempt starts from knows nothing of them; 0 drops all.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
        """
        with self._database.writing() as connection:
            hold(connection, claim, attempt=claim.attempt)
            self._forget(connection, claim, epoch)

    def restart_trial(self, claim: Claim, config: Mapping[str, Any]) -> None:
        """Pauses the trial, for the next claim to begin it anew with half the batch: its epochs go.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
        """
        with self._database.writing() as connection:
            end_attempt(
                connection, claim, state="paused", config=config, halvings=Trial.halvings + 1
            )
            self._forget(connection, claim, 0)

    def _forget(self, connection: Connection, claim: Claim, epoch: int) -> None:
        connection.execute(_DELETE, {"b_trial": claim.trial_id, "b_after": epoch})
        if claim.optuna_trial_id is not None and self._optuna.known(connection):
            self._optuna.forget_reports_after(connection, claim.optuna_trial_id, epoch)

    def last_written(self, claim: Claim) -> int:
        """The last epoch that this attempt wrote, 0 for none: after a cut connection nobody knows whether it was in time."""
        mine = select(func.max(Epoch.epoch)).where(
            Epoch.trial_id == claim.trial_id, Epoch.attempt == claim.attempt
        )
        with self._database.reading() as connection:
            return connection.execute(mine).scalar() or 0

    def trial_records(self, trial_id: int) -> list[EpochRecord]:
        """The epochs of one trial, in order."""
        with self._database.reading() as connection:
            rows = (
                connection.execute(
                    select(Epoch.record).where(Epoch.trial_id == trial_id).order_by(Epoch.epoch)
                )
                .scalars()
                .all()
            )
        return [EpochRecord.from_dict(row) for row in rows]

    def optuna_trial_records(self, optuna_trial_id: int) -> list[EpochRecord]:
        """The epochs of one trial by Optuna's id of it, in order; none for a trial that no worker of ours trained."""
        wanted = (
            select(Epoch.record)
            .join(Trial, Trial.id == Epoch.trial_id)
            .where(Trial.optuna_trial_id == optuna_trial_id)
        )
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(Epoch.epoch)).scalars().all()
        return [EpochRecord.from_dict(row) for row in rows]

    def study_records(self, study_id: int) -> dict[int, list[EpochRecord]]:
        """The epochs of every trial of a study, in order, by the trial's id; a trial without an epoch is left out."""
        wanted = (
            select(Epoch.trial_id, Epoch.record)
            .join(Trial, Trial.id == Epoch.trial_id)
            .where(Trial.study_id == study_id)
        )
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(Epoch.trial_id, Epoch.epoch)).all()
        found: dict[int, list[EpochRecord]] = defaultdict(list)
        for trial_id, record in rows:
            found[trial_id].append(EpochRecord.from_dict(record))
        return dict(found)

    def last_epochs(self, study_id: int) -> dict[int, int]:
        """The last epoch of every trial of a study, by the trial's id; a trial without an epoch is left out."""
        last = (
            select(Epoch.trial_id, func.max(Epoch.epoch))
            .join(Trial, Trial.id == Epoch.trial_id)
            .where(Trial.study_id == study_id)
        )
        with self._database.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(last.group_by(Epoch.trial_id))}


def _hold(
    connection: Connection, mine: dict[str, Any], statement: Update
) -> Row[*tuple[Any, ...]] | None:
    """Extends the lease; the last epoch of the trial, None when it is not held by this attempt any more."""
    if connection.dialect.update_returning:
        return connection.execute(statement.returning(*_LAST), mine).one_or_none()
    if connection.execute(statement, mine).rowcount != 1:  # MySQL
        return None
    return connection.execute(_SELECT_LAST, {"b_trial": mine["b_trial"]}).one()


def _overwrites(last: Row[*tuple[Any, ...]], claim: Claim, epoch: int) -> bool:
    """Whether the epoch replaces what older attempts wrote, rather than following it.

    Raises:
        EpochOrderError: when it does neither.
    """
    if epoch == (last.epoch or 0) + 1:
        return False
    starts = last.epoch is not None and last.attempt < claim.attempt
    if starts and 1 <= epoch <= last.epoch:
        return True
    allowed = f"{'1 to ' if starts else ''}{(last.epoch or 0) + 1}"
    raise EpochOrderError(
        f"trial {claim.number}: epoch {epoch} is out of order; the next one is {allowed}"
    )


def _last(column: Any) -> ScalarSelect[Any]:
    return (
        select(column)
        .where(Epoch.trial_id == bindparam("b_trial"))
        .order_by(Epoch.epoch.desc())
        .limit(1)
        .scalar_subquery()
    )


# The statements of `append` are built once, for building one takes as long as running it. One round trip checks the
# claim, extends the lease, and fetches the last epoch. Nobody else writes epochs of a trial that is held.
_LAST = (_last(Epoch.epoch).label("epoch"), _last(Epoch.attempt).label("attempt"))
_SELECT_LAST = select(*_LAST)
_HOLD = (
    update(Trial)
    .where(
        Trial.id == bindparam("b_trial"),
        Trial.attempt == bindparam("b_attempt"),
        Trial.state.in_(HELD_STATES),
    )
    .values(lease_until=now() + bindparam("b_lease_s"), seen_at=now())
)
_HOLD_AND_NOTE = _HOLD.values(used=bindparam("b_used", type_=Json))
_DELETE = delete(Epoch).where(
    Epoch.trial_id == bindparam("b_trial"), Epoch.epoch > bindparam("b_after")
)
_INSERT = insert(Epoch).values(at=now())
