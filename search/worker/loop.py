"""A worker: one long-lived process for one device slot. Data are decoded and classes counted once, trials come and go."""

from __future__ import annotations

import gc
import os
import warnings
from contextlib import suppress

from search.stored_study import find_study
from search.worker.context import Bench, WorkerSettings, make_bench
from search.worker.identity import worker_name
from search.worker.lease import LEASE_S
from search.worker.retry import Trouble, patiently
from search.worker.stop import StopNow, StopRequest
from search.worker.trial import run_trial
from spaces.errors import LeaseLostError, StoreError, TrialFailedError, WorkerRestartRequired
from storage.rows import Claim, StoredStudy
from storage.store import Store

IDLE_POLL_S = 0.5
"""How often a worker without work looks whether another left a trial behind."""

FAILURES_IN_A_ROW = 3
"""So many failed trials, one after the other, are the objective's fault and not the configuration's."""

SPENT = "the study's device time is spent; a larger `search run --device-hours` goes on"


def work(settings: WorkerSettings) -> bool:
    """Train trials until the study's budget is spent, a stop is asked for, or the time is over. True when it was asked for.

    Raises:
        SearchError: when the study, the data or the device cannot be used, or every trial fails.
    """
    warnings.showwarning = _tell
    stop, where = StopRequest(settings.timeout_s), settings.location.safe_url
    stop.listen()
    if settings.parent is not None:
        stop.follow_parent(settings.parent)
    try:
        with patiently(
            where,
            stop,
            settings.parent is not None,
            lambda: settings.location.open(create=False),
        ) as store:
            stored = patiently(where, stop, True, lambda: find_study(store, settings.study))
            with stop.nothing_at_hand():
                bench = patiently(
                    where, stop, True, lambda: make_bench(settings, store, stored, stop)
                )
            try:
                _loop(bench, stored)
            except StopNow:
                with suppress(
                    StoreError
                ):  # what may just have been claimed, before anybody could note it; else its lease ends by itself
                    bench.store.reaping.release_worker(stored.id, worker_name(os.getpid()))
                raise
            finally:
                gc.unfreeze()  # or libraries complain at the end of the process that something of theirs is left
                bench.tracker.close()
                gc.unfreeze()  # what is still frozen at the end, triton's bindings report as leaked, a page of it
    except StopNow:
        print("stopped at once; a trial at hand went back to the study", flush=True)
    return stop.interrupted


def _tell(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Warnings meant for people go to the log in words, where the supervisor finds them; those meant for programmers do not."""
    if category is UserWarning and "site-packages" not in filename:
        print(f"warning: {message}", flush=True)


def _loop(bench: Bench, stored: StoredStudy) -> None:
    """Claim and train until nothing is left. A database that does not answer is asked again, for a while."""
    gc.collect()
    gc.freeze()  # what a worker keeps is never garbage; looking at all of torch after every trial takes 0.3 s
    worker, failures, trouble = worker_name(os.getpid()), 0, Trouble()
    while not bench.stop.requested:
        try:
            if trouble.at_hand:
                bench.store.reaping.release_worker(
                    stored.id, worker
                )  # a claim may have been granted whose answer was lost
            claim = bench.store.leases.claim_trial(
                stored.id,
                budget=_budget(bench.store, stored),
                worker=worker,
                lease_s=LEASE_S,
                device=bench.device,
            )
            trouble.answered()
            state = _next_trial(bench, stored, claim)
            trouble.over()
        except LeaseLostError as lost:
            print(f"{lost}; going on with other work", flush=True)
            state = "lost"
        except StoreError as problem:
            bench.stop.wait(trouble.met(problem))
            continue
        gc.collect()  # a finished training is full of cycles, and its memory is the next one's
        if state == "nothing left":
            return
        if state in ("lost", "waiting"):
            continue
        failures = failures + 1 if state == "failed" else 0
        if state == "failed" and bench.device != "cpu":
            raise WorkerRestartRequired(
                "a trial failed on the device; a fresh process goes on, as its memory may be in no good state"
            )
        if failures >= FAILURES_IN_A_ROW:
            raise TrialFailedError(
                f"{failures} trials failed one after the other; `search show --study {stored.name}` says how"
            )
    if bench.stop.spent:
        print(SPENT, flush=True)


def _next_trial(bench: Bench, stored: StoredStudy, claim: Claim | None) -> str:
    """Train what was claimed; how it ended, or where nothing was: `waiting`, or `nothing left`."""
    if claim is not None:
        return run_trial(bench, claim)
    if bench.store.trials.count_open(stored.id) == 0:
        return "nothing left"
    if bench.store.budget.is_spent(stored.id):
        print(SPENT, flush=True)
        return "nothing left"
    bench.stop.wait(IDLE_POLL_S)  # others still train; one of them may die and leave its trial
    return "waiting"


def _budget(store: Store, stored: StoredStudy) -> int:
    """Trials in all. Read again each time: a second `search run --trials` may have raised it."""
    fresh = store.studies.find_study(stored.name)
    return int((fresh or stored).definition["trials"])
