"""Which attempt owns a trial: every write of an attempt checks it in the same transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, update

from spaces.errors import LeaseLostError
from storage.repositories.device_time import charge_until_now, lock_budget, settle_charge
from storage.rows import ACTIVE_STATES, FINAL_STATES, Claim
from storage.tables.models import Trial


def check_lease(lease_s: float) -> None:
    """Check the length of a lease; one of NaN seconds would never end.

    Raises:
        ValueError: when it is not positive.
    """
    if not lease_s > 0:
        raise ValueError(f"a lease lasts more than 0 seconds, not {lease_s!r}")


def update_owned(connection: Connection, claim: Claim, **values: Any) -> None:
    """Write to the trial of a claim, and lock it until the transaction ends.

    Raises:
        LeaseLostError: when another attempt owns the trial, or it ended.
    """
    written = connection.execute(update(Trial).where(is_owned(claim)).values(**values))
    if written.rowcount != 1:
        raise make_lost_error(connection, claim)


def make_lost_error(connection: Connection, claim: Claim) -> LeaseLostError:
    """Make the error for a claim that is no longer valid: it names the current owner."""
    row = connection.execute(
        select(Trial.attempt, Trial.state, Trial.worker).where(Trial.id == claim.trial_id)
    ).one_or_none()
    trial = f"trial {claim.trial_id if claim.number is None else claim.number}"
    refusal = f"attempt {claim.attempt} can no longer write to it"
    if row is None:
        return LeaseLostError(f"{trial} is no longer in the store; {refusal}")
    if row.state in FINAL_STATES:
        return LeaseLostError(f"{trial} is {row.state}; {refusal}")
    if row.attempt == claim.attempt:
        return LeaseLostError(f"{trial} was released and is now {row.state}; {refusal}")
    owner = f"attempt {row.attempt} on worker {row.worker!r}"
    return LeaseLostError(f"{trial} is now {row.state} as {owner}; {refusal}")


def end_attempt(connection: Connection, claim: Claim, **values: Any) -> None:
    """Make the last write of an attempt, and charge its device time.

    Raises:
        LeaseLostError: when another attempt owns the trial, or it ended.
    """
    budget = lock_budget(connection, claim.study_id)
    charge = charge_until_now(has_ended=True) if budget is None else {}
    update_owned(connection, claim, lease_until=None, **values, **charge)
    if budget is not None:
        settle_charge(connection, claim.trial_id, budget)


def is_owned(claim: Claim) -> ColumnElement[bool]:
    """Whether a row is the claim's trial, and its attempt still owns it."""
    return and_(
        Trial.id == claim.trial_id,
        Trial.attempt == claim.attempt,
        Trial.state.in_(ACTIVE_STATES),
    )
