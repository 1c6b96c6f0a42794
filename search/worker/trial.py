"""One trial, from its configuration to its end: the one place where objective, store, signals and Optuna meet."""

from __future__ import annotations

import math
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from search.diagnosis import diagnose
from search.pruners.verdict import judge
from search.sampling.sampler import start_of, suggest
from search.sampling.trial import OptunaTrial, end_of
from search.worker import out_of_memory
from search.worker.checkpoints import TrialCheckpoints
from search.worker.context import Bench
from search.worker.epoch_writer import EpochLog
from search.worker.lease import LEASE_S, Lease
from search.worker.readback import check_used
from search.worker.retry import asked
from search.worker.stop import StopNow, StopTraining
from search.worker.watchdog import Progress
from spaces.config import TrialConfig
from spaces.errors import (
    EpochOrderError,
    InputError,
    LeaseLostError,
    OutOfMemoryError,
    SearchError,
    StoreError,
    TrialFailedError,
    UnusedHyperparameterError,
    WorkerRestartRequired,
)
from spaces.records import Diagnosis, EpochRecord, Evidence, Verdict, score
from storage.files.best_weights import Artifacts
from storage.files.checkpoints import TrialStates
from storage.rows import Claim, FinalState

Ending = FinalState | Literal["paused"]

Start = Literal["resumed", "resumed again", "from the first epoch"]

STARTS: tuple[Start, ...] = ("resumed", "resumed again", "from the first epoch")
"""How an attempt begins, and begins again when the store refuses an epoch as out of order."""

ENDS: dict[str, FinalState] = {"go_on": "complete", "prune": "pruned", "diverged": "diverged"}
"""The state in which a trial ends, by its last verdict."""


@dataclass
class Attempt:
    """One worker's hold on one trial."""

    bench: Bench
    claim: Claim
    trial: OptunaTrial
    checkpoints: TrialCheckpoints
    records: list[EpochRecord]
    log: EpochLog
    last_epoch: int | None = None


def run_trial(bench: Bench, claim: Claim) -> Ending:
    """Train the claimed trial to its end, or give it back when a stop was asked for. Returns how it ended.

    Raises:
        LeaseLostError: when another worker owns the trial now.
        StoreError: when the database failed; the trial stays as it is, to be taken up again.
        InputError: when the data or the configuration turn out to be unusable; the trial is failed.
        UnusedHyperparameterError: when a sampled value never reached the training; the trial is failed.
        WorkerRestartRequired: when there was no memory for it; the trial was given back with half the batch, or ended.
    """
    progress = Progress(bench.plan.spec.hang_after_s)
    with Lease(bench.store, claim, bench.stop, progress) as lease:
        try:
            claim, trial = _bind(bench, claim)
            for start in STARTS:
                attempt = _attempt(bench, claim, trial, progress, start)
                lease.log = attempt.log
                try:
                    return _guarded(attempt, last=start is STARTS[-1])
                except EpochOrderError as problem:
                    bench.tracker.finish("left", str(problem))
                    print(
                        f"warning: {problem}; the trial starts over from what the store and the files agree on",
                        flush=True,
                    )
            raise AssertionError("the last start ends the trial")
        except (LeaseLostError, StoreError):
            bench.tracker.finish("left", "the lease was lost, or the store did not answer")
            raise
        except StopNow:  # the second Ctrl-C: the trial goes back as it was last checkpointed
            with suppress(StoreError):  # else it does when its lease is over
                bench.store.leases.release_trial(claim)
            raise


def _guarded(attempt: Attempt, *, last: bool) -> Ending:
    """Train; whatever an objective raises ends this trial, and the search continues.

    Raises:
        EpochOrderError: when the store has other epochs than the attempt resumed from, unless this was the last start.
    """
    try:
        return asked(attempt.bench.store.where, lambda: _train(attempt))
    except (LeaseLostError, StoreError):
        raise
    except EpochOrderError as problem:
        if not last:
            raise
        _fail(attempt, problem)
        return "failed"
    except OutOfMemoryError as problem:
        _make_room(attempt, problem)
        raise WorkerRestartRequired(
            f"trial {attempt.claim.number}: {problem}; a fresh process goes on, with memory that is whole"
        ) from None
    except Exception as problem:
        _fail(attempt, problem)
        if isinstance(problem, (InputError, UnusedHyperparameterError)):
            raise
        return "failed"


def _bind(bench: Bench, claim: Claim) -> tuple[Claim, OptunaTrial]:
    """The trial in both books; when it cannot be sampled it goes back, for the study is at fault and not the trial."""
    try:
        return asked(bench.store.where, lambda: _ask(bench, claim))
    except (LeaseLostError, StoreError):
        raise
    except Exception:
        bench.store.leases.release_trial(claim)
        raise


def _ask(bench: Bench, claim: Claim) -> tuple[Claim, OptunaTrial]:
    """Sample the configuration of a new trial, or take up an old one where it was left.

    Optuna's trial is noted before anything is sampled: a worker that dies here leaves it to the next one, with the
    preset that was meant for it.
    """
    if claim.optuna_trial_id is None:  # the store does not know these tables of Optuna's
        trial = bench.study.ask()
        claim = bench.store.leases.record_optuna_trial(claim, trial.number, trial._trial_id)  # noqa: SLF001
    else:
        trial = bench.study.take(claim.optuna_trial_id)
    asked_for = OptunaTrial(bench.study, trial, by_store=bench.store.knows_optuna())
    if claim.config is None:
        claim = _sample(bench, claim, asked_for)
    bench.study.rest()
    return claim, asked_for


def _sample(bench: Bench, claim: Claim, asked_for: OptunaTrial) -> Claim:
    """The claim with a configuration, which is written together with what Optuna keeps of it, where the store knows how."""
    trial = asked_for.trial
    if asked_for.by_store:
        params, sampled = bench.study.sample(trial, bench.plan)
    else:
        params, sampled = suggest(trial, bench.plan), None
    start = start_of(trial.user_attrs)
    config = bench.plan.config(params, trial.number, start.preset, start.patch).model_dump(
        mode="json"
    )
    return bench.store.leases.bind_trial(
        claim, trial.number, asked_for.id, config, start.label, sampled
    )


def _attempt(
    bench: Bench, claim: Claim, trial: OptunaTrial, progress: Progress, start: Start = "resumed"
) -> Attempt:
    """The trial with what is left of earlier attempts: the epochs, if there is a checkpoint that continues them.

    Which state that is, is decided here and never again. Without one the epochs go, and the files of earlier attempts
    stay until this one has written its own.
    """
    records = (
        bench.store.epochs.trial_records(claim.trial_id)
        if claim.resume or start != "resumed"
        else []
    )
    owner = {
        "study": bench.stored.name,
        "since": bench.stored.created_at,
        "trial": claim.trial_id,
        "seed": (claim.config or {}).get("seed"),
        "halvings": claim.halvings,
    }
    states = TrialStates(bench.files, bench.files.path(bench.stored.name, claim.number or 0))
    checkpoints = TrialCheckpoints(
        states,
        claim.attempt,
        owner,
        len(records),
        bench.stop,
        progress,
        at_least_s=bench.checkpoint_s,
        resume=start != "from the first epoch",
        confirm=lambda: _confirm(bench, claim),
    )
    if checkpoints.resumed_from is None:
        if records:
            bench.store.epochs.forget_epochs_after(claim, 0)
        records = []
    elif (
        start != "resumed"
    ):  # this attempt wrote some of them, and writes the state's own epoch once more
        kept = max(checkpoints.resumed_epoch - 1, 0)
        bench.store.epochs.forget_epochs_after(claim, kept)
        records = records[:kept]
    records += checkpoints.carried
    log = EpochLog(bench.store, claim, trial, bench.stop, LEASE_S)
    attempt = Attempt(bench, claim, trial, checkpoints, records, log)
    checkpoints.unheard = log.unheard
    checkpoints.promising = lambda record: _promising(attempt, record)
    return attempt


def _confirm(bench: Bench, claim: Claim) -> None:
    """Check that the attempt still has the trial; taken for granted while the database is unavailable, as a state harms no later attempt.

    Raises:
        LeaseLostError: when another attempt has it.
    """
    with suppress(StoreError):
        bench.store.leases.confirm_lease(claim)


def _promising(attempt: Attempt, record: EpochRecord) -> bool:
    """Whether a trial that ends with this record may be the best so far."""
    metric = attempt.bench.plan.spec.metric
    reached = score(
        [*(held for held in attempt.records if held.epoch < record.epoch), record], metric
    )
    return _artifacts(attempt.bench).beats(attempt.claim.number or 0, reached, metric.direction)


def _artifacts(bench: Bench) -> Artifacts:
    return Artifacts(bench.files, bench.stored.name, bench.stored.created_at)


def _train(attempt: Attempt) -> Ending:
    """The loop over the epochs. Returns how the trial ended, or `paused`."""
    bench, claim, trial = attempt.bench, attempt.claim, attempt.trial
    config: TrialConfig = bench.plan.objective.config.model_validate(claim.config)
    bench.prepare(config)
    bench.tracker.start(claim.number or 0, config, claim.preset)
    for record in attempt.checkpoints.carried:
        attempt.log.append(record)
        bench.tracker.epoch(record, bench.counts.names)
    training = bench.trainer.train(
        config, bench.prepared, bench.counts, bench.device, attempt.checkpoints
    )
    try:
        for record in attempt.checkpoints.progress.watched(training):
            _check_order(attempt, record)
            check_used(
                out_of_memory.asked_for(trial.params, claim.config or {}, claim.halvings),
                record.used,
            )
            attempt.records = [
                *(held for held in attempt.records if held.epoch < record.epoch),
                record,
            ]
            attempt.log.append(record)
            bench.tracker.epoch(record, bench.counts.names)
            worse_than_peers = partial(_worse_than_peers, attempt, record.epoch)
            verdict = judge(attempt.records, bench.plan.spec, worse_than_peers)
            if verdict.action != "go_on":
                return _end(attempt, verdict)
            kept = (
                attempt.checkpoints.declined != record.epoch
            )  # asked for a moment too late, the next epoch's state is kept
            if (
                bench.stop.requested
                and kept
                and record.test is None
                and record.epoch < config.epochs
            ):
                return _pause(attempt)
    except StopTraining:  # in the midst of an epoch
        return _pause(attempt)
    finally:
        training.close()  # type: ignore[attr-defined]
    return _end(attempt, Verdict("go_on"))


def _check_order(attempt: Attempt, record: EpochRecord) -> None:
    """A training begins at the first epoch, or with what its state has, and continues one by one.

    Raises:
        TrialFailedError: when the objective skips an epoch, or yields one twice.
    """
    before = attempt.last_epoch
    allowed = (
        range(1, attempt.checkpoints.resumed_epoch + 2)
        if before is None
        else range(before + 1, before + 2)
    )
    if record.epoch not in allowed:
        span = f"{allowed[0]}" if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
        objective = attempt.bench.plan.spec.objective
        raise TrialFailedError(
            f"trial {attempt.claim.number}: the objective {objective!r} yielded epoch {record.epoch}; the next one is {span}"
        )
    attempt.last_epoch = record.epoch


def _worse_than_peers(attempt: Attempt, epoch: int) -> str | None:
    return attempt.log.peers(lambda: attempt.trial.worse_than_peers(attempt.bench.plan, epoch))


def _pause(attempt: Attempt) -> Ending:
    """Give the trial back as it was last checkpointed."""
    attempt.log.end("paused", lambda: attempt.bench.store.leases.release_trial(attempt.claim))
    attempt.bench.tracker.finish("paused", "")
    return "paused"


def _make_room(attempt: Attempt, problem: OutOfMemoryError) -> None:
    """Give the trial back with half the batch, once and where the study allows it; else it is infeasible, so that the sampler learns."""
    bench, claim, spec = attempt.bench, attempt.claim, attempt.bench.plan.spec
    config = claim.config or {}
    smaller = (
        out_of_memory.halved(config)
        if spec.on_out_of_memory == "halve_batch" and claim.halvings == 0
        else None
    )
    if smaller is not None:
        attempt.log.end("paused", lambda: bench.store.epochs.restart_trial(claim, smaller))
        print(
            f"trial {claim.number}: {problem}; it is tried once more with half the batch",
            flush=True,
        )
        bench.tracker.finish("paused", str(problem))
    else:
        evidence = out_of_memory.evidence(
            problem, config, attempt.records, claim.halvings, spec.epochs
        )
        why = f"{evidence.signal}: {evidence.statement}"
        final = score(attempt.records, spec.metric) if attempt.records else None
        _finish(
            attempt,
            "diverged",
            final,
            why,
            evidence,
            out_of_memory.diagnosis(problem, config, claim.halvings),
        )
        bench.tracker.finish("diverged", why)
    attempt.checkpoints.remove()


def _end(attempt: Attempt, verdict: Verdict) -> FinalState:
    """Write the end of a trial to Optuna and to the store, with the evidence where it was killed."""
    bench, claim, records = attempt.bench, attempt.claim, attempt.records
    if not records:
        raise TrialFailedError(
            f"trial {claim.number}: the objective {bench.plan.spec.objective!r} yielded no epoch record"
        )
    final, state = score(records, bench.plan.spec.metric), ENDS[verdict.action]
    if state == "complete" and not math.isfinite(final):
        raise TrialFailedError(
            f"trial {claim.number}: the metric {bench.plan.spec.metric.name} was {'never a number' if final != final else 'infinite'}"
        )
    evidence = verdict.evidence
    diagnosis = diagnose(evidence, records, claim.config or {}, bench.counts) if evidence else None
    _finish(attempt, state, final, verdict.reason, evidence, diagnosis)
    bench.tracker.finish(state, verdict.reason)
    if state == "complete":
        attempt.checkpoints.keep(
            _artifacts(bench), claim.number or 0, final, bench.plan.spec.metric.direction
        )
    attempt.checkpoints.remove()
    return state


def _fail(attempt: Attempt, problem: Exception) -> None:
    bench = attempt.bench
    words = (
        str(problem)
        if isinstance(problem, SearchError)
        else "".join(traceback.format_exception(problem))
    )
    short = f"{type(problem).__name__}: {problem}".splitlines()[0]
    _finish(attempt, "failed", None, short[:500], error=words[-10_000:])
    bench.tracker.finish("failed", short)
    attempt.checkpoints.remove()


def _finish(
    attempt: Attempt,
    state: FinalState,
    final: float | None,
    why: str,
    evidence: Evidence | None = None,
    diagnosis: Diagnosis | None = None,
    error: str = "",
) -> None:
    """The end in both books: in one transaction, where the store knows Optuna's tables."""
    told, store, claim = (
        end_of(state, final, why, evidence, diagnosis),
        attempt.bench.store,
        attempt.claim,
    )

    def write() -> None:
        if not attempt.trial.by_store:
            store.leases.renew_lease(
                claim, LEASE_S
            )  # Optuna asks for no lease, so make sure of ours first
            attempt.trial.end(told)
        store.leases.finish_trial(
            claim,
            state,
            score=final,
            reason=why,
            evidence=evidence,
            diagnosis=diagnosis,
            error=error,
            told=told,
        )

    attempt.log.end(state, write)
