"""The contract of a store for many processes and threads at once.

Its functions run in spawned processes, so it imports little.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError

import pytest

from spaces.errors import LeaseLostError, SearchError
from spaces.records import ClassCounts, EpochRecord
from storage.location import StoreLocation
from storage.rows import Claim, Outcome
from storage.store import Store
from tests.waiting import PATIENCE_S

PROCESSES = 8
NEW, PAUSED = 40, 16
LEASE_S = 600.0
Claimed = tuple[str, int, int, bool]


_start: Barrier  # of a spawned process


def join(barrier: Barrier) -> None:
    """Initialize a process."""
    global _start
    _start = barrier


@pytest.fixture(scope="module")
def crew() -> Iterator[ProcessPoolExecutor]:
    """Processes that share only a barrier; starting them takes longer than their work."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        PROCESSES, spawn, initializer=join, initargs=(spawn.Barrier(PROCESSES),)
    ) as pool:
        yield pool


def compete(url: str, worker: int) -> list[Claimed]:
    """Open the store and register the study at the same time as the others, then claim trials."""
    try:
        return race(url, worker)
    except BaseException:
        _start.abort()  # the others do not have to wait
        raise


def race(url: str, worker: int) -> list[Claimed]:
    """Do what `compete` does."""
    _start.wait(PATIENCE_S)
    with StoreLocation.parse(url).open() as store:
        fresh = store.studies.register_study(1, "fresh", {}).id
        resumed = store.studies.register_study(2, "resumed", {}).id
        store.class_counts.save_counts("split", ClassCounts(("a",), (1,)))
        if worker == 0:
            leave_paused(store, resumed)
        _start.wait(PATIENCE_S)
        claimed = [
            ("fresh", *claim_row) for claim_row in claim_all(store, fresh, NEW, f"w{worker}")
        ]
        return claimed + [
            ("resumed", *claim_row) for claim_row in claim_all(store, resumed, PAUSED, f"w{worker}")
        ]


def leave_paused(store: Store, study_id: int) -> None:
    """Fill the study with paused trials."""
    claims = [store.leases.claim_trial(study_id, PAUSED, "first", 600) for _ in range(PAUSED)]
    for number, claim in enumerate(claims):
        assert claim is not None
        store.leases.release_trial(store.leases.bind_trial(claim, number, number, {}))


def claim_all(store: Store, study_id: int, budget: int, worker: str) -> list[tuple[int, int, bool]]:
    """Claim until nothing is left, and end every other trial."""
    claimed = []
    while (claim := store.leases.claim_trial(study_id, budget, worker, 600)) is not None:
        claimed.append((claim.trial_id, claim.attempt, claim.resume))
        if claim.trial_id % 2:
            store.leases.finish_trial(claim, Outcome("complete", 0.5))
    return claimed


class TestProcesses:
    def test_exact(self, store_url: str, crew: ProcessPoolExecutor) -> None:
        """Eight processes that create the store and claim at once get every trial exactly once."""
        answers = [crew.submit(compete, store_url, worker) for worker in range(PROCESSES)]

        errors = [answer.exception(timeout=PATIENCE_S) for answer in answers]
        assert [
            error
            for error in errors
            if error is not None and not isinstance(error, BrokenBarrierError)
        ] == []
        claimed = Counter(claim for answer in answers for claim in answer.result())
        with StoreLocation.parse(store_url).open(create=False) as store:
            ids = {
                study.name: [trial.id for trial in store.trials.list_trials(study.id)]
                for study in store.studies.list_studies()
            }
        assert (len(ids["fresh"]), len(ids["resumed"])) == (NEW, PAUSED)
        fresh = {("fresh", trial_id, 1, False): 1 for trial_id in ids["fresh"]}
        assert claimed == fresh | {("resumed", trial_id, 2, True): 1 for trial_id in ids["resumed"]}


def compete_for_device_time(url: str, worker: int) -> tuple[float, float] | None:
    """Claim a trial and renew its lease, each at the same time as the others.

    Returns the device time that was left each time.
    """
    _start.wait(PATIENCE_S)
    with StoreLocation.parse(url).open(create=False) as store:
        study_id = store.studies.list_studies()[0].id
        _start.wait(PATIENCE_S)
        claim = store.leases.claim_trial(study_id, 100, f"w{worker}", LEASE_S)
        _start.wait(PATIENCE_S)
        left_s = (
            (claim.device_left_s, store.leases.renew_lease(claim, LEASE_S))
            if claim is not None
            else None
        )
        _start.wait(PATIENCE_S)
        if claim is not None:
            store.leases.release_trial(claim)
        return left_s


class TestDeviceTime:
    def test_exact(self, store_url: str, crew: ProcessPoolExecutor) -> None:
        """As many of eight simultaneous claims succeed as there is device time for."""
        with StoreLocation.parse(store_url).open() as store:
            study_id = store.studies.register_study(1, "demo", {}).id
            store.budget.set_device_budget(study_id, 5.5 * LEASE_S)

        answers = [
            answer.result(timeout=PATIENCE_S)
            for answer in [
                crew.submit(compete_for_device_time, store_url, n) for n in range(PROCESSES)
            ]
        ]

        promised = [answer for answer in answers if answer is not None]
        assert len(promised) == 6
        assert sorted(left for left, _ in promised)[1:] == [float("inf")] * 5
        assert min(left for left, _ in promised) == pytest.approx(LEASE_S / 2)
        assert all(left <= LEASE_S for _, left in promised)  # no time is left to renew them with
        with StoreLocation.parse(store_url).open(create=False) as store:
            taken = store.budget.find_device_time(study_id)
            assert 0 < taken.charged_s < 5.5 * LEASE_S
            assert sum(
                trial.device_s for trial in store.trials.list_trials(study_id)
            ) == pytest.approx(taken.charged_s)
            claim = store.leases.claim_trial(
                study_id, 100, "late", LEASE_S
            )  # unused time was refunded
            assert claim is not None


class TestThreads:
    def test_lease_thread(self, store: Store, make_record: Callable[..., EpochRecord]) -> None:
        """One thread may renew the lease of a trial to which another one writes."""
        claim = store.leases.claim_trial(store.studies.register_study(1, "a", {}).id, 1, "a", 600)
        assert claim is not None
        failures: list[SearchError] = []
        thread = threading.Thread(target=extend_often, args=(store, claim, failures))
        thread.start()
        for epoch in range(1, 41):
            store.epochs.append_epoch(claim, make_record(epoch), 600)
        thread.join()

        assert failures == []
        assert len(store.epochs.trial_records(claim.trial_id)) == 40

    def test_owner_or_thief(self, store: Store, make_record: Callable[..., EpochRecord]) -> None:
        """Every epoch belongs to the owner of the trial, even when leases expire during writes."""
        study_id = store.studies.register_study(1, "a", {}).id
        first = store.leases.claim_trial(study_id, 1, "first", 0.001)
        assert first is not None
        claims, written = [store.leases.bind_trial(first, 0, 0, {})], []
        while len(claims) < 5:
            thief = threading.Thread(target=steal, args=(store, study_id, claims))
            thief.start()
            owner = claims[-1]
            for epoch in range(len(written) + 1, len(written) + 4):
                try:
                    store.epochs.append_epoch(
                        owner, make_record(epoch, metric=float(owner.attempt)), 0.001
                    )
                except LeaseLostError:
                    break
                written.append(owner.attempt)
            thief.join()

        assert [record.metric for record in store.epochs.trial_records(first.trial_id)] == [
            float(attempt) for attempt in written
        ]


def extend_often(store: Store, claim: Claim, failures: list[SearchError]) -> None:
    """Renew a lease in a loop, as a worker's thread does, but faster."""
    for _ in range(40):
        try:
            store.leases.renew_lease(claim, 600)
        except SearchError as error:
            failures.append(error)


def steal(store: Store, study_id: int, claims: list[Claim]) -> None:
    """Claim the trial if its lease has expired."""
    claim = store.leases.claim_trial(study_id, 1, "thief", 0.001, max_lost=1000)
    if claim is not None:
        claims.append(claim)
