"""Ends an attempt: pauses, finishes or fails its trial, in Optuna's tables and in ours."""

from __future__ import annotations

import logging
import math
import traceback
from typing import Literal

from search.diagnosis.rank_causes import diagnose
from search.sampling.optuna_trial import optuna_end
from search.worker import batch_halving
from search.worker.attempt import Attempt, open_artifacts
from search.worker.lease import LEASE_S
from spaces.errors import OutOfMemoryError, SearchError, TrialFailedError
from spaces.records import Diagnosis, Evidence, Verdict, score
from storage.rows import FinalState, Outcome

logger = logging.getLogger(__name__)

Ending = FinalState | Literal["paused"]

FINAL_STATE_OF: dict[str, FinalState] = {
    "continue": "complete",
    "prune": "pruned",
    "diverged": "diverged",
}
"""The state in which a trial ends, by its last verdict."""

MAX_REASON = 500
MAX_ERROR = 10_000
"""Characters that are stored of an error: of its first line, and of the end of its text."""


def pause_trial(attempt: Attempt) -> Ending:
    """Release the trial as of its last checkpoint."""
    leases = attempt.context.store.leases
    attempt.writer.write_end("paused", lambda: leases.release_trial(attempt.claim))
    attempt.context.tracker.finish_trial("paused", "")
    return "paused"


def pause_for_promotion(attempt: Attempt, reason: str) -> Ending:
    """Pause the trial as of its last checkpoint, until the search promotes it.

    Args:
        reason: why it does not continue, for people.
    """
    context = attempt.context
    epochs = context.plan.spec.epochs
    text = f"after epoch {attempt.records[-1].epoch} of {epochs}: {reason}"
    promotions = context.store.promotions
    has_checkpoint = attempt.checkpoints.has_state_of(attempt.records[-1].epoch)
    attempt.writer.write_end(
        "paused",
        lambda: promotions.pause_at_rung(attempt.claim, text, has_checkpoint=has_checkpoint),
    )
    context.tracker.finish_trial("paused", text)
    context.promotions.drop_checkpoints()
    return "paused"


def finish_trial(attempt: Attempt, verdict: Verdict) -> FinalState:
    """Write the end of a trial to Optuna and to the store, with its evidence and its diagnosis.

    Raises:
        TrialFailedError: when the objective yielded no epoch, or a metric without a finite value.
    """
    outcome = _judge_outcome(attempt, verdict)
    write_outcome(attempt, outcome)
    context = attempt.context
    if outcome.state == "complete" and outcome.score is not None:
        attempt.checkpoints.keep_best(
            open_artifacts(context),
            attempt.claim.number or 0,
            outcome.score,
            context.plan.spec.metric.direction,
        )
    attempt.checkpoints.remove_states()
    return outcome.state


def _judge_outcome(attempt: Attempt, verdict: Verdict) -> Outcome:
    context = attempt.context
    spec = context.plan.spec
    name = f"trial {attempt.claim.number}"
    if not attempt.records:
        raise TrialFailedError(f"{name}: the objective {spec.objective!r} yielded no epoch record")
    reached = score(attempt.records, spec.metric)
    state = FINAL_STATE_OF[verdict.action]
    if state == "complete" and not math.isfinite(reached):
        found = "never a number" if math.isnan(reached) else "infinite"
        raise TrialFailedError(f"{name}: the metric {spec.metric.name} was {found}")
    if state == "complete":
        return Outcome(state, reached)
    evidence = verdict.evidence
    if evidence is None:
        evidence = _peer_evidence(spec.pruner.kind, verdict.reason, attempt.records[-1].epoch)
    diagnosis = _diagnose_end(attempt, evidence)
    return Outcome(state, reached, verdict.reason, evidence.signal, evidence, diagnosis)


def _diagnose_end(attempt: Attempt, evidence: Evidence) -> Diagnosis | None:
    """Diagnose what ended a trial; None where that fails, as the trial's end matters more."""
    claim = attempt.claim
    try:
        return diagnose(evidence, attempt.records, claim.config or {}, attempt.context.counts)
    except Exception:
        logger.exception("trial %s: the diagnosis failed, so none is stored", claim.number)
        return None


def _peer_evidence(pruner: str, reason: str, epoch: int) -> Evidence:
    """The evidence of a trial that the peer pruner ended: it did not diverge, so severity 0."""
    return Evidence(pruner, epoch, None, reason.removeprefix(f"{pruner}: "), {}, 0.0)


def end_out_of_memory(attempt: Attempt, problem: OutOfMemoryError) -> None:
    """Release the trial with half the batch, once and where the study allows it.

    Otherwise the trial ends as infeasible, so that the sampler learns to stay away.
    """
    context = attempt.context
    claim = attempt.claim
    smaller = None
    if context.plan.spec.on_out_of_memory == "halve_batch" and claim.halvings == 0:
        smaller = batch_halving.halve_batch(claim.config or {})
    if smaller is None:
        write_outcome(attempt, _infeasible_outcome(attempt, problem))
    else:
        epochs = context.store.epochs
        attempt.writer.write_end("paused", lambda: epochs.restart_trial(claim, smaller))
        logger.info(
            "trial %s: %s; it is tried once more with half the batch", claim.number, problem
        )
        context.tracker.finish_trial("paused", str(problem))
    attempt.checkpoints.remove_states()


def _infeasible_outcome(attempt: Attempt, problem: OutOfMemoryError) -> Outcome:
    spec = attempt.context.plan.spec
    config = attempt.claim.config or {}
    halvings = attempt.claim.halvings
    evidence = batch_halving.make_evidence(problem, config, attempt.records, halvings, spec.epochs)
    return Outcome(
        "diverged",
        score(attempt.records, spec.metric) if attempt.records else None,
        f"{evidence.signal}: {evidence.statement}",
        evidence.signal,
        evidence,
        batch_halving.make_diagnosis(problem, config, halvings),
    )


def fail_trial(attempt: Attempt, problem: Exception) -> None:
    """End the trial as failed, with the error's text."""
    kind = type(problem).__name__
    error = str(problem)
    if not isinstance(problem, SearchError):
        error = "".join(traceback.format_exception(problem))
    reason = f"{kind}: {problem}".splitlines()[0]
    write_outcome(
        attempt,
        Outcome("failed", None, reason[:MAX_REASON], signal=kind, error=error[-MAX_ERROR:]),
    )
    attempt.checkpoints.remove_states()


def write_outcome(attempt: Attempt, outcome: Outcome) -> None:
    """Write the end of a trial to Optuna and to the store, in one transaction if the store can."""
    store = attempt.context.store
    claim = attempt.claim
    end = optuna_end(outcome)

    def write() -> None:
        if not attempt.trial.is_written_by_store:
            # Optuna's class checks no lease, so make sure of ours first.
            store.leases.renew_lease(claim, LEASE_S)
            attempt.trial.finish_trial(end)
        store.leases.finish_trial(claim, outcome, end)

    attempt.writer.write_end(outcome.state, write)
    attempt.context.tracker.finish_trial(outcome.state, outcome.reason)
