"""The records of every epoch of every trial.

The epochs of a trial are 1, 2, … without a gap, and the numbers of their attempts never decrease. A
new attempt continues after the last epoch or, if its checkpoint is older, from an earlier epoch;
the older attempts' epochs from there on are deleted.
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
from spaces.records import EpochRecord, Evidence
from storage.database.database import now
from storage.repositories.base import Repository
from storage.repositories.findings import forget_warnings_after, save_finding
from storage.repositories.ownership import (
    check_lease,
    end_attempt,
    make_lost_error,
    update_owned,
)
from storage.rows import ACTIVE_STATES, Claim
from storage.tables.columns import Json
from storage.tables.models import Epoch, Trial


class EpochRepository(Repository):
    """Append and read epoch records, and append the warnings about them."""

    def append_epoch(self, claim: Claim, record: EpochRecord, lease_s: float) -> None:
        """Store an epoch and the values that were used, and renew the lease for `lease_s` seconds.

        It is one transaction, which also reports the metric in Optuna's tables if the store knows
        them, unless the metric is NaN. A newer attempt's epoch replaces what older attempts wrote
        and reported from this epoch on.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
            EpochOrderError: when the epoch is not the next one.
            TypeError: when the record has a value that is not JSON.
            ValueError: when the lease is not positive.
        """
        check_lease(lease_s)
        mine = {"b_trial": claim.trial_id, "b_attempt": claim.attempt, "b_lease_s": lease_s}
        epoch = {
            "trial_id": claim.trial_id,
            "epoch": record.epoch,
            "attempt": claim.attempt,
            "metric": record.metric,
        }
        with self._database.writing() as connection:
            if record.used:
                last = _renew_lease(
                    connection, {**mine, "b_used": record.used}, _RENEW_AND_SAVE_USED
                )
            else:
                last = _renew_lease(connection, mine, _RENEW)
            if last is None:
                raise make_lost_error(connection, claim)
            if _is_overwriting(last, claim, record.epoch):
                self._delete_after(connection, claim, record.epoch - 1)
            connection.execute(_INSERT, {**epoch, "record": record.as_dict()})
            if (
                claim.optuna_trial_id is not None
                and record.metric == record.metric
                and self._optuna.check_version(connection)
            ):
                self._optuna.report_value(
                    connection, claim.optuna_trial_id, record.epoch, record.metric
                )

    def append_warning(self, claim: Claim, warning: Evidence) -> None:
        """Store that a signal fired and spared the trial.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
        """
        with self._database.writing() as connection:
            update_owned(connection, claim, attempt=claim.attempt)
            save_finding(connection, claim.trial_id, warning, None)

    def forget_epochs_after(self, claim: Claim, epoch: int) -> None:
        """Delete the epochs after the checkpoint from which an attempt resumes; 0 deletes all.

        The warnings about them are deleted, too.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
        """
        with self._database.writing() as connection:
            update_owned(connection, claim, attempt=claim.attempt)
            self._delete_after(connection, claim, epoch)

    def restart_trial(self, claim: Claim, config: Mapping[str, Any]) -> None:
        """Pause a trial so that the next attempt starts it again from epoch 1 with half the batch.

        Its epochs are deleted.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
        """
        with self._database.writing() as connection:
            end_attempt(
                connection, claim, state="paused", config=config, halvings=Trial.halvings + 1
            )
            self._delete_after(connection, claim, 0)

    def _delete_after(self, connection: Connection, claim: Claim, epoch: int) -> None:
        connection.execute(_DELETE, {"b_trial": claim.trial_id, "b_after": epoch})
        forget_warnings_after(connection, claim.trial_id, epoch)
        if claim.optuna_trial_id is not None and self._optuna.check_version(connection):
            self._optuna.delete_reports_after(connection, claim.optuna_trial_id, epoch)

    def last_written(self, claim: Claim) -> int:
        """Return the last epoch that an attempt wrote, 0 for none.

        After a cut connection a worker does not know whether its last transaction was committed.
        """
        mine = select(func.max(Epoch.epoch)).where(
            Epoch.trial_id == claim.trial_id, Epoch.attempt == claim.attempt
        )
        with self._database.reading() as connection:
            return connection.execute(mine).scalar() or 0

    def trial_records(self, trial_id: int) -> list[EpochRecord]:
        """Return the epochs of a trial, in order."""
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
        """Return the epochs of a trial, in order, by its id in Optuna's tables.

        There are none for a trial of another program.
        """
        wanted = (
            select(Epoch.record)
            .join(Trial, Trial.id == Epoch.trial_id)
            .where(Trial.optuna_trial_id == optuna_trial_id)
        )
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(Epoch.epoch)).scalars().all()
        return [EpochRecord.from_dict(row) for row in rows]

    def study_records(self, study_id: int) -> dict[int, list[EpochRecord]]:
        """Return the epochs of every trial of a study, in order, by id of the trial.

        A trial without an epoch is left out.
        """
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
        """Return the number of the last epoch of every trial of a study, by id of the trial.

        A trial without an epoch is left out.
        """
        last = (
            select(Epoch.trial_id, func.max(Epoch.epoch))
            .join(Trial, Trial.id == Epoch.trial_id)
            .where(Trial.study_id == study_id)
        )
        with self._database.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(last.group_by(Epoch.trial_id))}


def _renew_lease(
    connection: Connection, mine: dict[str, Any], statement: Update
) -> Row[*tuple[Any, ...]] | None:
    """Renew the lease. Return the trial's last epoch, None if the attempt no longer owns it."""
    if connection.dialect.update_returning:
        return connection.execute(statement.returning(*_LAST), mine).one_or_none()
    if connection.execute(statement, mine).rowcount != 1:  # MySQL
        return None
    return connection.execute(_SELECT_LAST, {"b_trial": mine["b_trial"]}).one()


def _is_overwriting(last: Row[*tuple[Any, ...]], claim: Claim, epoch: int) -> bool:
    """Whether an epoch replaces older attempts' epochs, rather than following them.

    Raises:
        EpochOrderError: when it does neither.
    """
    if epoch == (last.epoch or 0) + 1:
        return False
    starts = last.epoch is not None and last.attempt < claim.attempt
    if starts and 1 <= epoch <= last.epoch:
        return True
    first = "1 to " if starts else ""
    allowed = f"{first}{(last.epoch or 0) + 1}"
    raise EpochOrderError(
        f"trial {claim.number}: epoch {epoch} is out of order; the next one is {allowed}"
    )


def _select_last(column: Any) -> ScalarSelect[Any]:
    return (
        select(column)
        .where(Epoch.trial_id == bindparam("b_trial"))
        .order_by(Epoch.epoch.desc())
        .limit(1)
        .scalar_subquery()
    )


# The statements of `append_epoch` are built once, because building one takes as long as running it.
# One round trip checks the claim, renews the lease and fetches the last epoch. No other attempt
# writes epochs while this one owns the trial.
_LAST = (_select_last(Epoch.epoch).label("epoch"), _select_last(Epoch.attempt).label("attempt"))
_SELECT_LAST = select(*_LAST)
_RENEW = (
    update(Trial)
    .where(
        Trial.id == bindparam("b_trial"),
        Trial.attempt == bindparam("b_attempt"),
        Trial.state.in_(ACTIVE_STATES),
    )
    .values(lease_until=now() + bindparam("b_lease_s"), seen_at=now())
)
_RENEW_AND_SAVE_USED = _RENEW.values(used=bindparam("b_used", type_=Json))
_DELETE = delete(Epoch).where(
    Epoch.trial_id == bindparam("b_trial"), Epoch.epoch > bindparam("b_after")
)
_INSERT = insert(Epoch).values(at=now())
