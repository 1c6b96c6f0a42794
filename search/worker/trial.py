"""One trial, from its configuration to its end: where objective, store, signals and Optuna meet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from search.pruners.verdict import judge
from search.sampling.optuna_trial import OptunaTrial
from search.worker import batch_halving
from search.worker.attempt import STARTS, Attempt, start_attempt
from search.worker.context import WorkerContext
from search.worker.ending import (
    Ending,
    end_out_of_memory,
    fail_trial,
    finish_trial,
    pause_for_promotion,
    pause_trial,
)
from search.worker.epoch_writer import EpochWriter
from search.worker.lease import Lease
from search.worker.readback import check_used
from search.worker.registration import register_trial
from search.worker.stop import StopNow, StopTraining
from search.worker.store_retry import translating_store_errors
from search.worker.watchdog import Watchdog
from spaces.config import TrialConfig
from spaces.errors import (
    EpochOrderError,
    InputError,
    LeaseLostError,
    OutOfMemoryError,
    StoreError,
    TrialFailedError,
    UnusedHyperparameterError,
    WorkerRestartRequired,
)
from spaces.records import CONTINUE, EpochRecord, Verdict
from storage.rows import Claim

logger = logging.getLogger(__name__)


def run_trial(context: WorkerContext, claim: Claim) -> Ending:
    """Train a claimed trial to its end, or release it when a stop was requested.

    Returns:
        How it ended.

    Raises:
        LeaseLostError: when another worker owns the trial.
        StoreError: when the database failed; the trial stays as it is, to be resumed.
        InputError: when the data or the configuration cannot be used; the trial is failed.
        UnusedHyperparameterError: when a sampled value never reached the training; the trial is
            failed.
        WorkerRestartRequired: when the device ran out of memory; the trial was released with half
            the batch, or ended.
    """
    return TrialRun(context, claim).run()


class TrialRun:
    """Runs one claimed trial under a lease that is renewed meanwhile."""

    def __init__(self, context: WorkerContext, claim: Claim) -> None:
        self._context = context
        self._claim = claim
        self._watchdog = Watchdog(context.plan.spec.hang_after_s)
        self._writer: EpochWriter | None = None

    def run(self) -> Ending:
        """Train the trial; see `run_trial`."""
        context = self._context
        lease = Lease(context.store, self._claim, context.stop, self._watchdog, self._flush_epochs)
        with lease:
            try:
                self._claim, trial = register_trial(context, self._claim)
                return self._train_attempts(trial)
            except (LeaseLostError, StoreError):
                reason = "the lease was lost, or the store did not answer"
                context.tracker.finish_trial("left", reason)
                raise
            except StopNow:  # the second Ctrl-C: release the trial as of its last checkpoint
                with suppress(StoreError):  # its lease expires anyway
                    context.store.leases.release_trial(self._claim)
                raise

    def _train_attempts(self, trial: OptunaTrial) -> Ending:
        """Train, and start again when the store has other epochs than the attempt resumed from."""
        for start in STARTS:
            attempt = start_attempt(self._context, self._claim, trial, self._watchdog, start)
            self._writer = attempt.writer
            try:
                return _train_guarded(attempt, is_last_start=start is STARTS[-1])
            except EpochOrderError as problem:
                self._context.tracker.finish_trial("left", str(problem))
                logger.warning(
                    "%s; restarting from the last epoch on which store and checkpoint agree",
                    problem,
                )
        raise AssertionError("the last start ends the trial")

    def _flush_epochs(self) -> None:
        """Write pending epochs, once the training has started; the lease thread calls it."""
        if self._writer is not None:
            self._writer.flush_pending()


def _train_guarded(attempt: Attempt, *, is_last_start: bool) -> Ending:
    """Train; an exception of the objective ends this trial, and the search continues.

    Raises:
        EpochOrderError: when the store has other epochs than the attempt resumed from, unless this
            was the last start.
    """
    try:
        with translating_store_errors(attempt.context.store.where):
            return _train_trial(attempt)
    except (LeaseLostError, StoreError):
        raise
    except EpochOrderError as problem:
        if not is_last_start:
            raise
        fail_trial(attempt, problem)
        return "failed"
    except OutOfMemoryError as problem:
        end_out_of_memory(attempt, problem)
        raise WorkerRestartRequired(
            f"trial {attempt.claim.number}: {problem}; a fresh process continues, "
            "because memory is in an unknown state after that"
        ) from None
    except Exception as problem:
        fail_trial(attempt, problem)
        if isinstance(problem, (InputError, UnusedHyperparameterError)):
            raise
        return "failed"


def _train_trial(attempt: Attempt) -> Ending:
    """Train until the objective ends, a verdict ends the trial, or a stop is requested."""
    context = attempt.context
    claim = attempt.claim
    config: TrialConfig = context.plan.objective.config.model_validate(claim.config)
    context.load_data(config)
    context.tracker.start_trial(claim.number or 0, config, claim.preset)
    for record in attempt.checkpoints.resume_point.missing:
        _report_record(attempt, record)
    training = context.trainer.train(
        config, context.prepared, context.counts, context.device, attempt.checkpoints
    )
    try:
        for record in attempt.checkpoints.watchdog.watch_training(training):
            verdict = _judge_epoch(attempt, record)
            _report_warning(attempt, verdict)
            if verdict.action != "continue":
                return finish_trial(attempt, verdict)
            if _should_pause(attempt, record, config.epochs):
                return pause_trial(attempt)
            if _has_reached_pause(attempt, record, config.epochs):
                reason = _continue_or_explain(attempt, record.epoch)
                if reason:
                    return pause_for_promotion(attempt, reason)
    except StopTraining:  # within an epoch
        return pause_trial(attempt)
    finally:
        training.close()  # type: ignore[attr-defined]
    return finish_trial(attempt, CONTINUE)


def _judge_epoch(attempt: Attempt, record: EpochRecord) -> Verdict:
    """Check and report the record of an epoch; the verdict on the trial so far.

    Raises:
        TrialFailedError: when the epoch is not the next one.
        UnusedHyperparameterError: when a sampled value never reached the training.
    """
    claim = attempt.claim
    _check_order(attempt, record)
    sampled = batch_halving.expected_values(
        attempt.trial.params, claim.config or {}, claim.halvings
    )
    check_used(sampled, record.used)
    attempt.add_record(record)
    _report_record(attempt, record)
    compare = partial(_compare_with_peers, attempt, record.epoch)
    return judge(
        attempt.records, attempt.context.plan.spec, compare, partial(_read_peers_at, attempt)
    )


def _report_warning(attempt: Attempt, verdict: Verdict) -> None:
    """Log and store the first warning of each signal that spared the trial."""
    warning = verdict.evidence
    if verdict.action != "continue" or warning is None or warning.signal in attempt.warned:
        return
    attempt.warned.add(warning.signal)
    logger.warning("trial %s, epoch %d: %s", attempt.claim.number, warning.epoch, verdict.reason)
    attempt.writer.append_warning(warning)


def _report_record(attempt: Attempt, record: EpochRecord) -> None:
    attempt.writer.append_record(record)
    attempt.context.tracker.log_epoch(record, attempt.context.counts.names)


def _should_pause(attempt: Attempt, record: EpochRecord, epochs: int) -> bool:
    """Whether to stop after this epoch: on request, if its state is written and it is not the last.

    When the request came too late for this epoch's state, the state of the next one is written.
    """
    is_written = attempt.checkpoints.declined_epoch != record.epoch
    is_last = record.test is not None or record.epoch >= epochs
    return attempt.context.stop.is_requested and is_written and not is_last


def _has_reached_pause(attempt: Attempt, record: EpochRecord, epochs: int) -> bool:
    """Whether the trial may only continue after this epoch if the search or the budget lets it."""
    until = attempt.claim.until_epoch
    return until is not None and until <= record.epoch < epochs and record.test is None


def _continue_or_explain(attempt: Attempt, epoch: int) -> str:
    """Let the trial continue to a later epoch, or return why it pauses.

    A trial without a state of this epoch could not be resumed, so it continues while the budget
    lasts.

    Raises:
        StoreError: when the database fails; the trial is resumed from this epoch later.
    """
    attempt.writer.write_all()
    extended, reason = attempt.context.promotions.extend_claim(
        attempt.claim, can_pause=attempt.checkpoints.has_state_of(epoch)
    )
    if extended is None:
        return reason
    attempt.claim = extended
    attempt.checkpoints.pause_epoch = extended.until_epoch
    return ""


def _check_order(attempt: Attempt, record: EpochRecord) -> None:
    """Check that a training starts at the first epoch or its resumed state, and skips none.

    Raises:
        TrialFailedError: when the objective skips an epoch, or yields one twice.
    """
    last = attempt.last_epoch
    if last is None:
        allowed = range(1, attempt.checkpoints.resume_point.epoch + 2)
    else:
        allowed = range(last + 1, last + 2)
    if record.epoch not in allowed:
        span = f"{allowed[0]}" if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
        objective = attempt.context.plan.spec.objective
        raise TrialFailedError(
            f"trial {attempt.claim.number}: the objective {objective!r} yielded epoch "
            f"{record.epoch}; the next one is {span}"
        )
    attempt.last_epoch = record.epoch


def _compare_with_peers(attempt: Attempt, epoch: int) -> str | None:
    plan = attempt.context.plan
    return attempt.writer.ask_peers(lambda: attempt.trial.worse_than_peers(plan, epoch))


def _read_peers_at(attempt: Attempt, epoch: int) -> Sequence[float] | None:
    """The metrics of the complete trials at an epoch; None while the store is unavailable."""
    return attempt.writer.ask_peers(lambda: attempt.trial.study.read_peers_at(epoch))
