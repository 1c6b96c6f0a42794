"""A worker: one long-lived process for one device slot. Data are decoded and classes counted once, trials come and go."""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from search.epoch_log import STORE_PATIENCE_S, Answer, Backoff, asked
from search.history import History
from search.lease import LEASE_S, worker_name
from search.plan import Plan, make_plan
from search.pruners.median import Peers
from search.report import find_study
from search.run import Bench, class_counts, run_trial
from search.stop import StopNow, StopRequest
from search.study import WorkerStudy, open_trials
from search.track import WandbMode, make_tracker
from search.trial_checkpoints import checkpoint_every_s
from spaces.errors import LeaseLostError, StoreError, StoreUnreachableError, TrialFailedError, WorkerSpentError
from spaces.loader import check
from spaces.study import StudySpec
from storage.address import safe_url
from storage.rows import Claim, StoredStudy
from storage.store import Store, open_files, open_store

IDLE_POLL_S = 0.5
"""How often a worker without work looks whether another left a trial behind."""

FAILURES_IN_A_ROW = 3
"""So many failed trials, one after the other, are the objective's fault and not the configuration's."""

REFUSED_PATIENCE_S = 60.0
"""How long a worker goes on with a store that answers, and refuses what it is asked: a full disk may be emptied, a missing right stays missing."""

SPENT = "the study's device time is spent; a larger `search run --device-hours` goes on"


@dataclass(frozen=True)
class WorkerSettings:
    """Where a worker runs, and on what."""

    store_url: str
    study: str
    device: str
    threads: int
    wandb: WandbMode = "off"
    timeout_s: float | None = None
    parent: int | None = None


def work(settings: WorkerSettings) -> bool:
    """Train trials until the study's budget is spent, a stop is asked for, or the time is over. True when it was asked for.

    Raises:
        SearchError: when the study, the data or the device cannot be used, or every trial fails.
    """
    warnings.showwarning = _tell
    stop, where = StopRequest(settings.timeout_s), safe_url(settings.store_url)
    stop.listen()
    if settings.parent is not None:
        stop.follow_parent(settings.parent)
    try:
        with patiently(where, stop, settings.parent is not None, lambda: open_store(settings.store_url, create=False)) as store:
            stored = patiently(where, stop, True, lambda: find_study(store, settings.study))
            with stop.nothing_at_hand():
                bench = patiently(where, stop, True, lambda: _bench(settings, store, stored, stop))
            try:
                _loop(bench, stored)
            except StopNow:
                with suppress(StoreError):  # what may just have been claimed, before anybody could note it; else its lease ends by itself
                    bench.store.let_go(stored.id, worker_name(os.getpid()))
                raise
            finally:
                gc.unfreeze()  # or libraries complain at the end of the process that something of theirs is left
                bench.tracker.close()
                gc.unfreeze()  # what is still frozen at the end, triton's bindings report as leaked, a page of it
    except StopNow:
        print("stopped at once; a trial at hand went back to the study", flush=True)
    return stop.interrupted


def patiently(where: str, stop: StopRequest, seen: bool, question: Callable[[], Answer]) -> Answer:
    """An answer of the store that a worker needs to begin.

    A database that has been seen at its address is waited for while it restarts, be it by this worker or by the supervisor
    that started it. A person is told at once that an address does not answer.

    Raises:
        StoreError: when there is none, for long enough.
    """
    began, backoff = time.monotonic(), Backoff()
    while True:
        try:
            return asked(where, question)
        except StoreUnreachableError as problem:
            if not seen or stop.requested or time.monotonic() - began > STORE_PATIENCE_S:
                raise
            print(f"warning: {problem.what}; asking again", flush=True)
            stop.wait(backoff.failed(problem))


def _tell(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: object = None, line: str | None = None) -> None:
    """Warnings meant for people go to the log in words, where the supervisor finds them; those meant for programmers do not."""
    if category is UserWarning and "site-packages" not in filename:
        print(f"warning: {message}", flush=True)


def stored_plan(stored: StoredStudy) -> Plan:
    """The plan of a stored study."""
    return make_plan(check(StudySpec, stored.definition, f"study {stored.name} in the store"))


def _bench(settings: WorkerSettings, store: Store, stored: StoredStudy, stop: StopRequest) -> Bench:
    """Everything that is paid once: imports, device, data, class counts."""
    from objectives.device import use_device  # torch: a command that only looks must not pay for it

    checkpoint_s = checkpoint_every_s()
    use_device(settings.device, settings.threads)
    plan = stored_plan(stored)
    trainer = plan.objective.load()
    config = plan.first_config()
    prepared, counts = trainer.prepare(config, settings.device), class_counts(store, trainer, config)
    files = open_files(settings.store_url)
    try:
        study = open_worker_study(settings.store_url, store, stored, plan)
    except KeyError:
        raise StoreError(
            "the study's trials are gone from the database", where=store.where, found="the store was deleted or replaced while the study ran",
            next_step="run the same command again; it starts the study anew",
        ) from None  # fmt: skip
    return Bench(
        store=store, stored=stored, files=files, study=study, plan=plan, trainer=trainer, prepared=prepared, counts=counts,
        device=settings.device, stop=stop, tracker=make_tracker(settings.wandb, stored.name, Path(os.environ.get("WANDB_DIR", "."))),
        checkpoint_s=checkpoint_s, data_key=plan.objective.data_key(config),
    )  # fmt: skip


def open_worker_study(url: str, store: Store, stored: StoredStudy, plan: Plan) -> WorkerStudy:
    """Optuna's side of a stored study, which reads its past through the store where that knows Optuna's tables.

    Raises:
        KeyError: when Optuna knows no such study.
    """
    peers, history = None, None
    if store.knows_optuna():
        peers, history = Peers(store, stored.id), History(partial(store.past, stored.optuna_study_id))
    return WorkerStudy(open_trials(url), plan, stored.name, lambda: store.completed(stored.id), peers, history)


class Trouble:
    """What a worker has had of late with its store between two trials, and how long it bears that."""

    def __init__(self) -> None:
        self._silent_since: float | None = None
        self._refused_since: float | None = None
        self._backoff = Backoff()

    @property
    def at_hand(self) -> bool:
        """Whether the last question failed; what became of it nobody knows."""
        return self._silent_since is not None

    def answered(self) -> None:
        """The store is there again. That it takes what it refused shows in the end of a trial."""
        self._silent_since = None
        self._backoff.answered()

    def over(self) -> None:
        """A trial came to its end."""
        self._refused_since = None

    def met(self, problem: StoreError) -> float:
        """Seconds after which to ask again.

        Raises:
            StoreError: the problem, when that has gone on for too long.
        """
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        since, patience_s = self._silent_since, STORE_PATIENCE_S
        if not isinstance(problem, StoreUnreachableError):
            since = self._refused_since = self._refused_since or now
            patience_s = REFUSED_PATIENCE_S
        if now - since > patience_s:
            raise problem
        wait_s = self._backoff.failed(problem)
        if wait_s:
            print(f"warning: {problem.what}; asking again", flush=True)
        return wait_s


def _loop(bench: Bench, stored: StoredStudy) -> None:
    """Claim and train until nothing is left. A database that does not answer is asked again, for a while."""
    gc.collect()
    gc.freeze()  # what a worker keeps is never garbage; looking at all of torch after every trial takes 0.3 s
    worker, failures, trouble = worker_name(os.getpid()), 0, Trouble()
    while not bench.stop.requested:
        try:
            if trouble.at_hand:
                bench.store.let_go(stored.id, worker)  # a claim may have been granted whose answer was lost
            claim = bench.store.claim(stored.id, budget=_budget(bench.store, stored), worker=worker, lease_s=LEASE_S, device=bench.device)
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
            raise WorkerSpentError("a trial failed on the device; a fresh process goes on, as its memory may be in no good state")
        if failures >= FAILURES_IN_A_ROW:
            raise TrialFailedError(f"{failures} trials failed one after the other; `search show --study {stored.name}` says how")
    if bench.stop.spent:
        print(SPENT, flush=True)


def _next_trial(bench: Bench, stored: StoredStudy, claim: Claim | None) -> str:
    """Train what was claimed; how it ended, or where nothing was: `waiting`, or `nothing left`."""
    if claim is not None:
        return run_trial(bench, claim)
    if bench.store.open_count(stored.id) == 0:
        return "nothing left"
    if bench.store.device_time_spent(stored.id):
        print(SPENT, flush=True)
        return "nothing left"
    bench.stop.wait(IDLE_POLL_S)  # others still train; one of them may die and leave its trial
    return "waiting"


def _budget(store: Store, stored: StoredStudy) -> int:
    """Trials in all. Read again each time: a second `search run --trials` may have raised it."""
    fresh = store.study(stored.name)
    return int((fresh or stored).definition["trials"])
