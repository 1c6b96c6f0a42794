"""Who works on which trial: claims, leases, and the end of an attempt.

reserved ──bind──▶ running ──finish──▶ complete · pruned · diverged · failed
                   ▲     │
             claim └─paused◀─give_back          what is reserved or running is paused, too, once its lease is over
A lease is a promise to write again soon, judged on the database's clock. Every write names its attempt, so a worker
that slept through its lease and lost the trial cannot write; one whose lease ran out unnoticed may still go on.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, null, select, update
from sqlalchemy.exc import IntegrityError

from spaces.errors import LeaseLostError, StoreError
from storage.database.engine import inserted_id, now
from storage.repositories import findings
from storage.repositories.base import Repository
from storage.repositories.device_time import Budget, locked_budget, reserve, settle, used
from storage.repositories.reaping import MAX_ATTEMPTS, release
from storage.rows import FINAL_STATES, HELD_STATES, Claim, OptunaEnd, Outcome, Sampled
from storage.tables.models import Study, Trial


class LeaseRepository(Repository):
    """Claiming trials, holding them, and letting them go."""

    def claim_trial(
        self,
        study_id: int,
        budget: int,
        worker: str,
        lease_s: float,
        max_attempts: int = MAX_ATTEMPTS,
        device: str | None = None,
    ) -> Claim | None:
        """A trial to work on for `lease_s` seconds, None when nothing is left to do; exact under any number of processes.

        First comes what was paused, or what another worker left behind when it vanished; then, while the study has
        fewer than `budget` trials, a new one, which is running in Optuna's tables, too, where the store knows them. A
        trial that cost `max_attempts` workers their lives is failed instead. Nothing is handed out once the study's
        budget of device time is spent.

        Raises:
            StoreError: when there is no such study, or the database fails.
            ValueError: when the lease is not positive.
        """
        holder = {
            "worker": worker,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": device,
        }
        holder |= {"lease_until": until(lease_s), "seen_at": now()}
        with self._numbering() as connection:
            optuna_study_id, device_time = _lock_study(connection, study_id, self._database.where)
            release(self._database, connection, self._optuna, study_id, None, max_attempts)
            if device_time is not None and device_time.spent:
                return None
            holder["charged_until"] = now() if device_time is None else null()
            claim = self._take_over(connection, study_id, holder) or self._make(
                connection, study_id, optuna_study_id, budget, holder
            )
            if claim is None or device_time is None:
                return claim
            return replace(
                claim, device_left_s=reserve(connection, claim.trial_id, device_time, lease_s)
            )

    def _take_over(
        self, connection: Connection, study_id: int, holder: Mapping[str, Any]
    ) -> Claim | None:
        """The oldest trial that nobody works on, None when there is none."""
        columns = (
            Trial.id,
            Trial.study_id,
            Trial.attempt,
            Trial.number,
            Trial.optuna_trial_id,
            Trial.config,
            Trial.preset,
            Trial.halvings,
        )
        paused = (
            select(*columns)
            .where(Trial.study_id == study_id, Trial.state == "paused")
            .order_by(Trial.id)
            .limit(1)
        )
        free = connection.execute(paused.with_for_update(skip_locked=True)).one_or_none()
        if free is None:
            return None
        bound = free.config is not None
        taken = {"attempt": free.attempt + 1, "state": "running" if bound else "reserved", **holder}
        connection.execute(update(Trial).where(Trial.id == free.id).values(taken))
        seen = (free.number, free.optuna_trial_id, free.config, free.preset)
        return Claim(free.id, free.study_id, free.attempt + 1, bound, *seen, halvings=free.halvings)

    def _make(
        self,
        connection: Connection,
        study_id: int,
        optuna_study_id: int,
        budget: int,
        holder: Mapping[str, Any],
    ) -> Claim | None:
        """A new trial, None when the study has as many as its budget."""
        if _trials(connection, study_id) >= budget:
            return None
        optuna_trial_id, number = self._optuna.take(connection, optuna_study_id) or (None, None)
        new = {
            "study_id": study_id,
            "state": "reserved",
            "attempt": 1,
            "lost": 0,
            "reason": "",
            "error": "",
            "created_at": now(),
        }
        theirs = {"number": number, "optuna_trial_id": optuna_trial_id}
        trial_id = inserted_id(connection.execute(insert(Trial).values(**new, **theirs, **holder)))
        return Claim(
            trial_id=trial_id,
            study_id=study_id,
            attempt=1,
            number=number,
            optuna_trial_id=optuna_trial_id,
        )

    def record_optuna_trial(self, claim: Claim, number: int, optuna_trial_id: int) -> Claim:
        """The claim, with Optuna's trial that was asked for it; a later attempt then takes up that one.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
            StoreError: when another trial of the study has that number.
        """
        with self._numbering() as connection:
            hold(connection, claim, number=number, optuna_trial_id=optuna_trial_id)
        return replace(claim, number=number, optuna_trial_id=optuna_trial_id)

    def bind_trial(
        self,
        claim: Claim,
        number: int,
        optuna_trial_id: int,
        config: Mapping[str, Any],
        preset: str | None = None,
        sampled: Sampled | None = None,
    ) -> Claim:
        """The claim, now on Optuna's trial of that number, with the configuration that was sampled for it.

        Args:
            sampled: what Optuna is to be told of it; None when it was told already.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
            StoreError: when another trial of the study has that number.
        """
        bound: dict[str, Any] = {
            "number": number,
            "optuna_trial_id": optuna_trial_id,
            "config": config,
            "preset": preset,
        }
        with self._numbering() as connection:
            hold(
                connection,
                claim,
                state="running",
                started_at=func.coalesce(Trial.started_at, now()),
                **bound,
            )
            if sampled is not None:
                self._optuna.write(connection, optuna_trial_id, sampled)
        return replace(claim, **bound)

    def renew_lease(self, claim: Claim, lease_s: float) -> float:
        """Holds the trial for `lease_s` seconds from now; how many seconds it may still run if device time is all but spent.

        That is infinity as long as the budget of device time holds out, or when there is none.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
            ValueError: when the lease is not positive.
        """
        with self._database.writing() as connection:
            budget = locked_budget(connection, claim.study_id)
            hold(
                connection,
                claim,
                lease_until=until(lease_s),
                seen_at=now(),
                **(used() if budget is None else {}),
            )
            return (
                math.inf if budget is None else reserve(connection, claim.trial_id, budget, lease_s)
            )

    def confirm_lease(self, claim: Claim) -> None:
        """Checks that the attempt still has the trial, and writes nothing.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
        """
        mine = select(Trial.id).where(
            Trial.id == claim.trial_id, Trial.attempt == claim.attempt, Trial.state.in_(HELD_STATES)
        )
        with self._database.reading() as connection:
            if connection.execute(mine).scalar() is None:
                raise lost(connection, claim)

    def release_trial(self, claim: Claim) -> None:
        """Pauses the trial, so that the next claim carries it on.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
        """
        with self._database.writing() as connection:
            end_attempt(connection, claim, state="paused")

    def finish_trial(
        self,
        claim: Claim,
        outcome: Outcome,
        optuna_end: OptunaEnd | None = None,
    ) -> None:
        """Ends the trial, and keeps why; in Optuna's tables, too, where the store knows them and `optuna_end` is given.

        Raises:
            LeaseLostError: when another attempt took the trial over, or it ended.
            ValueError: when the outcome's state is not one that a trial can end in.
        """
        if outcome.state not in FINAL_STATES:
            raise ValueError(
                f"a trial ends as one of {', '.join(FINAL_STATES)}, not {outcome.state!r}"
            )
        with self._database.writing() as connection:
            end_attempt(
                connection,
                claim,
                state=outcome.state,
                score=outcome.score,
                reason=outcome.reason,
                signal=outcome.signal,
                error=outcome.error,
                finished_at=now(),
            )
            if outcome.evidence is not None:
                findings.keep(connection, claim.trial_id, outcome.evidence, outcome.diagnosis)
            if (
                optuna_end is not None
                and claim.optuna_trial_id is not None
                and self._optuna.known(connection)
            ):
                self._optuna.end(connection, claim.optuna_trial_id, optuna_end)

    @contextmanager
    def _numbering(self) -> Iterator[Connection]:
        """A transaction that writes, and may give a trial its number.

        Raises:
            StoreError: when another trial of the study has that number.
        """
        try:
            with self._database.writing() as connection:
                yield connection
        except IntegrityError as error:
            what, found = (
                "another trial of the study has that number",
                " ".join(str(error.orig).split()),
            )
            raise StoreError(
                what,
                where=self._database.where,
                found=found,
                next_step="use one store with one study of Optuna only",
            ) from error


def until(lease_s: float) -> ColumnElement[float]:
    """The end of a lease that starts now.

    Raises:
        ValueError: when it is not positive; one that is NaN would never end.
    """
    if not lease_s > 0:
        raise ValueError(f"a lease lasts more than 0 seconds, not {lease_s!r}")
    return now() + lease_s


def hold(connection: Connection, claim: Claim, **values: Any) -> None:
    """Writes to the claim's trial, which stays locked until the transaction ends.

    Raises:
        LeaseLostError: when another attempt took the trial over, or it ended.
    """
    mine = and_(
        Trial.id == claim.trial_id, Trial.attempt == claim.attempt, Trial.state.in_(HELD_STATES)
    )
    if connection.execute(update(Trial).where(mine).values(**values)).rowcount != 1:
        raise lost(connection, claim)


def lost(connection: Connection, claim: Claim) -> LeaseLostError:
    """The error for a claim that holds no longer, with who holds the trial now."""
    row = connection.execute(
        select(Trial.attempt, Trial.state, Trial.worker).where(Trial.id == claim.trial_id)
    ).one_or_none()
    trial = f"trial {claim.trial_id if claim.number is None else claim.number}"
    if row is None:
        return LeaseLostError(
            f"{trial} is not in the store any more; attempt {claim.attempt} may not write to it"
        )
    now_is = f"is {row.state} since attempt {row.attempt} of worker {row.worker!r}"
    return LeaseLostError(f"{trial} {now_is}; attempt {claim.attempt} may not write to it any more")


def end_attempt(connection: Connection, claim: Claim, **values: Any) -> None:
    """The last write of an attempt, which is charged for the time that it took.

    Raises:
        LeaseLostError: when another attempt took the trial over, or it ended.
    """
    budget = locked_budget(connection, claim.study_id)
    hold(
        connection, claim, lease_until=None, **values, **(used(over=True) if budget is None else {})
    )
    if budget is not None:
        settle(connection, claim.trial_id, budget)


def _lock_study(connection: Connection, study_id: int, where: str) -> tuple[int, Budget | None]:
    """One claim at a time; the study's id in Optuna, and its budget of device time.

    SQLite has no lock for a row and ignores this one: its writers come one at a time anyway.
    """
    columns = (Study.optuna_study_id, Study.device_budget_s, Study.device_s)
    row = connection.execute(
        select(*columns).where(Study.id == study_id).with_for_update()
    ).one_or_none()
    if row is None:
        raise StoreError(
            f"there is no study with id {study_id}",
            where=where,
            next_step="register the study first",
        )
    return row[0], None if row[1] is None else Budget(study_id, row[1] - row[2])


def _trials(connection: Connection, study_id: int) -> int:
    return connection.execute(
        select(func.count()).select_from(Trial).where(Trial.study_id == study_id)
    ).scalar_one()
