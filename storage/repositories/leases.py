"""Leases: which worker owns which trial, and how an attempt ends.

    reserved ──bind──▶ running ──finish──▶ complete · pruned · diverged · failed
                       ▲     │
                 claim └─paused◀─release

A reserved or running trial is also paused once its lease has expired. A lease is the time for which
a worker owns a trial, on the database's clock. Every write names its attempt, so a worker that
slept through its lease and lost the trial cannot write to it. A worker whose lease expired
unnoticed may continue.
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

from spaces.errors import StoreError
from storage.database.database import inserted_id, now
from storage.repositories.base import Repository
from storage.repositories.device_time import charge_lease, charge_until_now, lock_budget, lock_study
from storage.repositories.epoch_budget import TrainedEpochs, count_epochs_of, grant_epochs
from storage.repositories.findings import save_finding
from storage.repositories.ownership import (
    check_lease,
    end_attempt,
    is_owned,
    make_lost_error,
    update_owned,
)
from storage.repositories.reaping import MAX_LOST_WORKERS, reap_lost
from storage.repositories.remedies import enqueue_suggested
from storage.rows import (
    FINAL_STATES,
    Claim,
    EpochBudget,
    NextStep,
    OptunaEnd,
    Outcome,
    SampledTrial,
    SuggestedRemedies,
)
from storage.tables.models import Trial

NEW_TRIAL = NextStep()
"""A new trial that is trained to its end."""

_CLAIMED = (
    Trial.id,
    Trial.attempt,
    Trial.number,
    Trial.optuna_trial_id,
    Trial.config,
    Trial.preset,
    Trial.halvings,
    Trial.until_epoch,
)


class LeaseRepository(Repository):
    """Claim trials, renew their leases, release them and end them."""

    def claim_trial(
        self,
        study_id: int,
        budget: int,
        worker: str,
        lease_s: float,
        max_lost: int = MAX_LOST_WORKERS,
        device: str | None = None,
        remedies: SuggestedRemedies | None = None,
        step: NextStep | None = NEW_TRIAL,
        epoch_budget: EpochBudget | None = None,
    ) -> Claim | None:
        """Claim a trial for `lease_s` seconds; exact with any number of processes.

        A trial that was released, or whose worker stopped responding, comes first. Then what `step`
        names: a trial that awaits its promotion or, while the study has fewer than `budget` trials,
        a new one; it also runs in Optuna's tables if the store knows them, and tries the first of
        `remedies` that no trial has tried, if nothing else is enqueued. A trial that lost
        `max_lost` workers is failed instead.

        Args:
            study_id: of the study in the store.
            budget: number of trials in all.
            worker: name of the worker.
            lease_s: seconds.
            max_lost: see above.
            device: where the trial will run.
            remedies: see above.
            step: None: only a trial that was released.
            epoch_budget: limits the epochs of all trials together; None: no limit.

        Returns:
            None when there is nothing left to do, the study's device time or its epochs are
            exhausted, or another worker has promoted the trial of `step`.

        Raises:
            StoreError: when there is no such study, or the database fails.
            ValueError: when the lease is not positive.
        """
        owner = {
            "worker": worker,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": device,
            "lease_until": _lease_end(lease_s),
            "seen_at": now(),
        }
        with self._assigning_number() as connection:
            optuna_study_id, device_time = lock_study(connection, study_id, self._database.where)
            reap_lost(self._database, connection, self._optuna, study_id, None, max_lost)
            if device_time is not None and device_time.spent:
                return None
            owner["charged_until"] = now() if device_time is None else null()
            claim = self._claim_paused(connection, study_id, owner, Trial.awaits_promotion == 0)
            if claim is None and step is not None:
                claim = self._claim_step(
                    connection,
                    study_id,
                    optuna_study_id,
                    owner,
                    step,
                    epoch_budget,
                    budget,
                    remedies,
                )
            if claim is None or device_time is None:
                return claim
            left_s = charge_lease(connection, claim.trial_id, device_time, lease_s)
            return replace(claim, device_left_s=left_s)

    def record_optuna_trial(self, claim: Claim, number: int, optuna_trial_id: int) -> Claim:
        """Record Optuna's trial of a claim, so that a later attempt resumes it.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
            StoreError: when another trial of the study has that number.
        """
        with self._assigning_number() as connection:
            update_owned(connection, claim, number=number, optuna_trial_id=optuna_trial_id)
        return replace(claim, number=number, optuna_trial_id=optuna_trial_id)

    def bind_trial(
        self,
        claim: Claim,
        number: int,
        optuna_trial_id: int,
        config: Mapping[str, Any],
        preset: str | None = None,
        sampled: SampledTrial | None = None,
    ) -> Claim:
        """Bind a claim to Optuna's trial, with the configuration that was sampled for it.

        Args:
            sampled: written to Optuna's tables; None if Optuna's class has written it already.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
            StoreError: when another trial of the study has that number.
        """
        bound: dict[str, Any] = {
            "number": number,
            "optuna_trial_id": optuna_trial_id,
            "config": config,
            "preset": preset,
        }
        started_at = func.coalesce(Trial.started_at, now())
        with self._assigning_number() as connection:
            update_owned(connection, claim, state="running", started_at=started_at, **bound)
            if sampled is not None:
                self._optuna.write_sampled(connection, optuna_trial_id, sampled)
        return replace(claim, **bound)

    def renew_lease(self, claim: Claim, lease_s: float) -> float:
        """Renew a lease for `lease_s` seconds from now.

        Returns:
            How many seconds the trial may still run if the study's device time ends with them;
            infinity while the budget lasts, or without one.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
            ValueError: when the lease is not positive.
        """
        with self._database.writing() as connection:
            budget = lock_budget(connection, claim.study_id)
            charge = charge_until_now() if budget is None else {}
            lease = {"lease_until": _lease_end(lease_s), "seen_at": now()}
            update_owned(connection, claim, **lease, **charge)
            if budget is None:
                return math.inf
            return charge_lease(connection, claim.trial_id, budget, lease_s)

    def confirm_lease(self, claim: Claim) -> None:
        """Check that an attempt still owns its trial, without writing.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
        """
        with self._database.reading() as connection:
            if connection.execute(select(Trial.id).where(is_owned(claim))).scalar() is None:
                raise make_lost_error(connection, claim)

    def release_trial(self, claim: Claim) -> None:
        """Pause a trial, so that the next claim resumes it.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
        """
        with self._database.writing() as connection:
            end_attempt(connection, claim, state="paused")

    def finish_trial(
        self, claim: Claim, outcome: Outcome, optuna_end: OptunaEnd | None = None
    ) -> None:
        """End a trial and store why, also in Optuna's tables if `optuna_end` is given.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
            ValueError: when the outcome's state is not a final state.
        """
        if outcome.state not in FINAL_STATES:
            allowed = ", ".join(FINAL_STATES)
            raise ValueError(f"a trial ends as one of {allowed}, not {outcome.state!r}")
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
                save_finding(connection, claim.trial_id, outcome.evidence, outcome.diagnosis)
            optuna_trial_id = claim.optuna_trial_id
            if optuna_end is None or optuna_trial_id is None:
                return
            if self._optuna.check_version(connection):
                self._optuna.end_trial(connection, optuna_trial_id, optuna_end)

    def _claim_step(
        self,
        connection: Connection,
        study_id: int,
        optuna_study_id: int,
        owner: Mapping[str, Any],
        step: NextStep,
        epoch_budget: EpochBudget | None,
        budget: int,
        remedies: SuggestedRemedies | None,
    ) -> Claim | None:
        """Claim the trial that a search chose, or create one; None where that is not possible."""
        trained = TrainedEpochs(0, 0)
        if step.number is not None:
            trained = count_epochs_of(connection, study_id, step.number)
        granted = step.until_epoch
        if epoch_budget is not None:
            granted = grant_epochs(
                connection, study_id, epoch_budget, step.until_epoch, trained.kept
            )
            if granted is None:
                return None
        limited = {**owner, "until_epoch": granted, "awaits_promotion": 0}
        if step.number is not None:
            chosen = and_(Trial.awaits_promotion == 1, Trial.number == step.number)
            limited |= {
                "reason": "",
                "checkpoint_dropped": 0,
                "repeated_epochs": Trial.repeated_epochs + trained.repeated,
            }
            return self._claim_paused(connection, study_id, limited, chosen)
        if _count_trials(connection, study_id) >= budget:
            return None
        if remedies is not None:
            enqueue_suggested(connection, self._optuna, optuna_study_id, remedies)
        return self._create_trial(connection, study_id, optuna_study_id, limited)

    def _claim_paused(
        self,
        connection: Connection,
        study_id: int,
        owner: Mapping[str, Any],
        which: ColumnElement[bool],
    ) -> Claim | None:
        """Claim the oldest paused trial of a kind, None when there is none."""
        paused = (
            select(*_CLAIMED)
            .where(Trial.study_id == study_id, Trial.state == "paused", which)
            .order_by(Trial.id)
            .limit(1)
        )
        row = connection.execute(paused.with_for_update(skip_locked=True)).one_or_none()
        if row is None:
            return None
        is_bound = row.config is not None
        state = "running" if is_bound else "reserved"
        values = {"attempt": row.attempt + 1, "state": state, **owner}
        connection.execute(update(Trial).where(Trial.id == row.id).values(values))
        return Claim(
            trial_id=row.id,
            study_id=study_id,
            attempt=row.attempt + 1,
            resume=is_bound,
            number=row.number,
            optuna_trial_id=row.optuna_trial_id,
            config=row.config,
            preset=row.preset,
            halvings=row.halvings,
            until_epoch=owner.get("until_epoch", row.until_epoch),
        )

    def _create_trial(
        self,
        connection: Connection,
        study_id: int,
        optuna_study_id: int,
        owner: Mapping[str, Any],
    ) -> Claim:
        """Create a trial, which runs in Optuna's tables too if the store knows them."""
        started = self._optuna.start_trial(connection, optuna_study_id)
        optuna_trial_id, number = started or (None, None)
        values = {
            "study_id": study_id,
            "state": "reserved",
            "attempt": 1,
            "lost": 0,
            "reason": "",
            "error": "",
            "created_at": now(),
            "number": number,
            "optuna_trial_id": optuna_trial_id,
            **owner,
        }
        trial_id = inserted_id(connection.execute(insert(Trial).values(values)))
        return Claim(
            trial_id=trial_id,
            study_id=study_id,
            attempt=1,
            number=number,
            optuna_trial_id=optuna_trial_id,
            until_epoch=owner.get("until_epoch"),
        )

    @contextmanager
    def _assigning_number(self) -> Iterator[Connection]:
        """Run a transaction that may assign a number to a trial.

        Raises:
            StoreError: when another trial of the study has that number.
        """
        try:
            with self._database.writing() as connection:
                yield connection
        except IntegrityError as error:
            raise StoreError(
                "another trial of the study has that number",
                where=self._database.where,
                found=" ".join(str(error.orig).split()),
                next_step="use each Optuna study with one store only",
            ) from error


def _lease_end(lease_s: float) -> ColumnElement[float]:
    """The end of a lease that starts now."""
    check_lease(lease_s)
    return now() + lease_s


def _count_trials(connection: Connection, study_id: int) -> int:
    query = select(func.count()).select_from(Trial).where(Trial.study_id == study_id)
    return connection.execute(query).scalar_one()
