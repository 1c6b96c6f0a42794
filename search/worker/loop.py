"""The loop of a worker: a process that claims and trains one trial after another on one device.

Data are decoded and classes counted once.
"""

from __future__ import annotations

import gc
import logging
import os
from contextlib import suppress
from typing import Literal

from search.stored_study import find_study
from search.worker.context import WorkerContext, make_context
from search.worker.ending import Ending
from search.worker.identity import worker_name
from search.worker.lease import LEASE_S
from search.worker.options import WorkerOptions
from search.worker.promotion import EPOCHS_SPENT, StudyBudget, read_budget
from search.worker.stop import StopNow, StopRequest
from search.worker.store_retry import OutageTracker, retry_until_available
from search.worker.trial import run_trial
from spaces.errors import LeaseLostError, StoreError, TrialFailedError, WorkerRestartRequired
from storage.location import StoreLocation
from storage.rows import Claim, NextStep, StoredStudy
from storage.store import Store

logger = logging.getLogger(__name__)

IDLE_POLL_S = 0.5
"""How often a worker without a trial checks whether another worker left one."""

MAX_FAILURES = 3
"""After this many failed trials in a row the objective is at fault, not the configurations."""

SPENT = "device-hour budget exhausted; raise --device-hours to continue"

Step = Ending | Literal["lost", "waiting", "nothing left"]
"""What one turn of the loop came to."""


def run_worker(location: StoreLocation, options: WorkerOptions) -> bool:
    """Train trials until the study's budget is spent, a stop is requested, or the time is over.

    Returns:
        Whether a stop was requested.

    Raises:
        SearchError: when the study, the data or the device cannot be used, or every trial fails.
    """
    stop = StopRequest(options.timeout_s)
    stop.handle_signals()
    if options.parent is not None:
        stop.watch_parent(options.parent)
    try:
        _run_in_store(location, options, stop)
    except StopNow:
        logger.info("stopped at once; the current trial, if any, was released")
    return stop.was_interrupted


def _run_in_store(location: StoreLocation, options: WorkerOptions, stop: StopRequest) -> None:
    where = location.safe_url
    has_parent = options.parent is not None
    store = retry_until_available(where, stop, has_parent, lambda: location.open(create=False))
    with store:
        stored = retry_until_available(where, stop, True, lambda: find_study(store, options.study))
        with stop.without_trial():
            context = retry_until_available(
                where, stop, True, lambda: make_context(location, options, store, stored, stop)
            )
        try:
            train_trials(context, stored)
        except StopNow:
            # A trial may have been claimed a moment ago, without the claim being known here. If the
            # store fails, its lease expires.
            with suppress(StoreError):
                store.reaping.release_worker(stored.id, worker_name(os.getpid()))
            raise
        finally:
            gc.unfreeze()  # otherwise libraries report leaks at the end of the process
            context.tracker.close()
            gc.unfreeze()  # Triton's bindings report objects that are still frozen as leaked


def train_trials(context: WorkerContext, stored: StoredStudy) -> None:
    """Claim and train trials until nothing is left; a database that does not answer is asked again.

    Raises:
        SearchError: when the data or the device cannot be used, or every trial fails.
    """
    gc.collect()
    # What a worker caches is never garbage. Scanning all of torch after each trial takes 0.3 s.
    gc.freeze()
    outage = OutageTracker()
    failures = 0
    while not context.stop.is_requested:
        try:
            step = _train_next(context, stored, outage)
        except StoreError as problem:
            context.stop.wait(outage.record_error(problem))
            continue
        gc.collect()  # a finished training has many reference cycles; the next one needs its memory
        if step == "nothing left":
            return
        if step in ("lost", "waiting"):
            continue
        failures = failures + 1 if step == "failed" else 0
        _check_failures(context, stored, failures)
    if context.stop.device_time_is_spent:
        logger.info(SPENT)


def _train_next(context: WorkerContext, stored: StoredStudy, outage: OutageTracker) -> Step:
    """Claim one trial and train it.

    Raises:
        StoreError: when the database failed.
    """
    worker = worker_name(os.getpid())
    claim = None
    try:
        if outage.last_request_failed:
            # A claim may have been granted whose answer was lost.
            context.store.reaping.release_worker(stored.id, worker)
        budget = read_budget(context.store, stored)
        step_wanted = context.promotions.choose_step(budget)
        claim = context.store.leases.claim_trial(
            stored.id,
            budget=budget.trials,
            worker=worker,
            lease_s=LEASE_S,
            device=context.device,
            remedies=context.remedies.suggest_remedies(),
            step=step_wanted,
            epoch_budget=budget.epochs,
        )
        outage.record_answer()
        step = _train_claimed(context, stored, claim, budget, step_wanted)
        outage.record_trial_end()
    except LeaseLostError as lost:
        logger.info("%s; continuing with other work", lost)
        if claim is not None:
            with suppress(StoreError):
                context.store.reaping.retract_loss(claim)
        return "lost"
    return step


def _train_claimed(
    context: WorkerContext,
    stored: StoredStudy,
    claim: Claim | None,
    budget: StudyBudget,
    wanted: NextStep | None,
) -> Step:
    """Train the claimed trial; without one, find out whether any may follow."""
    if claim is not None:
        return run_trial(context, claim)
    if context.store.budget.is_spent(stored.id):
        logger.info(SPENT)
        return "nothing left"
    if context.store.promotions.count_open(stored.id) == 0:
        if _is_spent(context.store, stored, budget):
            logger.info(EPOCHS_SPENT)
            return "nothing left"
        if wanted is None or wanted.number is None:
            return "nothing left"
        # Another worker has promoted the trial, and paused it again since.
    context.stop.wait(IDLE_POLL_S)  # another worker may die and leave its trial
    return "waiting"


def _check_failures(context: WorkerContext, stored: StoredStudy, failures: int) -> None:
    """End the worker after a failure on a GPU, or after too many in a row.

    Raises:
        WorkerRestartRequired: after any failure on a GPU.
        TrialFailedError: after too many failures.
    """
    if failures and context.device != "cpu":
        raise WorkerRestartRequired(
            "a trial failed on the device, whose memory is then in an unknown state, so the process"
            f" is replaced; `search show --study {stored.name}` shows why the trial failed"
        )
    if failures >= MAX_FAILURES:
        raise TrialFailedError(
            f"{failures} trials in a row failed; `search show --study {stored.name}` shows why"
        )


def _is_spent(store: Store, stored: StoredStudy, budget: StudyBudget) -> bool:
    """Whether the epochs of a study are exhausted."""
    limit = budget.epochs
    return limit is not None and store.promotions.count_epochs(stored.id) >= limit.epochs
