"""One worker's attempt at a trial: what it resumes from earlier attempts, and what it writes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from search.sampling.optuna_trial import OptunaTrial
from search.worker.checkpoints import ResumePoint, TrialCheckpoints, find_resume_point
from search.worker.context import WorkerContext
from search.worker.epoch_writer import EpochWriter
from search.worker.lease import LEASE_S
from search.worker.watchdog import Watchdog
from spaces.errors import StoreError
from spaces.records import EpochRecord, score
from storage.files.best_weights import BestWeights
from storage.files.checkpoints import StoredCheckpoints
from storage.rows import Claim

Start = Literal["resumed", "resumed again", "from the first epoch"]

STARTS: tuple[Start, ...] = ("resumed", "resumed again", "from the first epoch")
"""How an attempt starts, and starts again when the store refuses an epoch as out of order."""


@dataclass
class Attempt:
    """One worker's work on one trial.

    Attributes:
        records: the epochs of the trial so far, in order.
        last_epoch: the epoch that the objective yielded last; None before the first one.
        warned: signals that warned about this trial.
    """

    context: WorkerContext
    claim: Claim
    trial: OptunaTrial
    checkpoints: TrialCheckpoints
    records: list[EpochRecord]
    writer: EpochWriter
    last_epoch: int | None = None
    warned: set[str] = field(default_factory=set)

    def add_record(self, record: EpochRecord) -> None:
        """Add the record of an epoch in place of earlier ones of that epoch and later epochs."""
        self.records[:] = [*_records_before(self.records, record.epoch), record]


def start_attempt(
    context: WorkerContext,
    claim: Claim,
    trial: OptunaTrial,
    watchdog: Watchdog,
    start: Start = "resumed",
) -> Attempt:
    """Start an attempt with the epochs and the checkpoint of earlier attempts.

    The checkpoint is chosen here, once. Without one the epochs are removed from the store; the
    files of earlier attempts stay until this one has written its own.
    """
    is_first = start == "resumed" and not claim.resume
    stored = [] if is_first else context.store.epochs.trial_records(claim.trial_id)
    owner = _identify_owner(context, claim)
    states = open_states(context, claim)
    resume_point = ResumePoint()
    if start != "from the first epoch":
        resume_point = find_resume_point(states, claim.attempt, owner, len(stored))
    records = _resume_records(context, claim, stored, resume_point, again=start != "resumed")
    writer = EpochWriter(context.store, claim, trial, context.stop, LEASE_S)
    checkpoints = TrialCheckpoints(
        states=states,
        attempt=claim.attempt,
        owner=owner,
        resume_point=resume_point,
        stop=context.stop,
        watchdog=watchdog,
        is_promising=partial(_is_promising, context, claim, records),
        unconfirmed_records=writer.unconfirmed_records,
        confirm_lease=partial(_confirm_lease, context, claim),
        at_least_s=context.checkpoint_s,
        pause_epoch=claim.until_epoch,
    )
    # Warnings about epochs that are trained again are deleted with them.
    kept = min(len(records), max(resume_point.epoch - 1, 0))
    warned = set() if is_first else _find_warned(context, claim, kept)
    return Attempt(context, claim, trial, checkpoints, records, writer, warned=warned)


def _find_warned(context: WorkerContext, claim: Claim, epochs: int) -> set[str]:
    """The signals that warned in the epochs that this attempt does not repeat."""
    findings = context.store.findings.trial_evidence(claim.trial_id)
    return {
        evidence.signal
        for evidence, _ in findings
        if evidence.is_warning and evidence.epoch <= epochs
    }


def open_states(context: WorkerContext, claim: Claim) -> StoredCheckpoints:
    """The checkpoint files of a trial."""
    path = context.files.trial_stem(context.stored.name, claim.number or 0)
    return StoredCheckpoints(context.files, path)


def open_artifacts(context: WorkerContext) -> BestWeights:
    """The best weights of the study."""
    return BestWeights(context.files, context.stored.name, context.stored.created_at)


def _identify_owner(context: WorkerContext, claim: Claim) -> Mapping[str, Any]:
    """What distinguishes this trial from all others that may have files of the same name."""
    return {
        "study": context.stored.name,
        "since": context.stored.created_at,
        "trial": claim.trial_id,
        "seed": (claim.config or {}).get("seed"),
        "halvings": claim.halvings,
    }


def _resume_records(
    context: WorkerContext,
    claim: Claim,
    stored: Sequence[EpochRecord],
    resume_point: ResumePoint,
    *,
    again: bool,
) -> list[EpochRecord]:
    """The records that the training continues; the store forgets those that it repeats."""
    if resume_point.state is None:
        if stored:
            context.store.epochs.forget_epochs_after(claim, 0)
        return list(resume_point.missing)
    kept = len(stored)
    if again:  # this attempt wrote some of them, and writes the state's own epoch again
        kept = max(resume_point.epoch - 1, 0)
        context.store.epochs.forget_epochs_after(claim, kept)
    return [*stored[:kept], *resume_point.missing]


def _confirm_lease(context: WorkerContext, claim: Claim) -> None:
    """Check that the attempt still owns the trial.

    While the database is unavailable this is assumed: a state harms no later attempt.

    Raises:
        LeaseLostError: when another attempt owns it.
    """
    with suppress(StoreError):
        context.store.leases.confirm_lease(claim)


def _is_promising(
    context: WorkerContext, claim: Claim, records: Sequence[EpochRecord], record: EpochRecord
) -> bool:
    """Whether a trial that ends with this record may be the best so far."""
    metric = context.plan.spec.metric
    reached = score([*_records_before(records, record.epoch), record], metric)
    return open_artifacts(context).is_better(claim.number or 0, reached, metric.direction)


def _records_before(records: Sequence[EpochRecord], epoch: int) -> list[EpochRecord]:
    return [record for record in records if record.epoch < epoch]
