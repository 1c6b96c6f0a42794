"""The contract of leases and device time, on each kind of database."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import psycopg
import pytest

from spaces.errors import LeaseLostError, StoreUnreachableError
from spaces.records import EpochRecord
from storage.database import database as database_module
from storage.location import StoreLocation
from storage.rows import Claim, Death, Outcome
from storage.store import Store
from tests.contract.test_store import lease_left_s, let_lapse
from tests.waiting import until

Make = Callable[..., EpochRecord]
FOREVER_S = 600.0


@pytest.fixture
def study_id(store: Store) -> int:
    """A registered study."""
    return store.studies.register_study(11, "demo", {"space": {}}).id


def bound(store: Store, study_id: int, worker: str = "a", number: int = 0) -> Claim:
    """A trial, bound to a number."""
    claim = store.leases.claim_trial(study_id, 1000, worker, FOREVER_S, device="cuda:1")
    assert claim is not None
    return store.leases.bind_trial(claim, number, 100 + number, {"loss": {"gamma": 2.0}}, "safe")


class TestStartOver:
    def test_half_the_batch(self, store: Store, study_id: int, make_record: Make) -> None:
        """A trial that ran out of memory is paused with a new configuration and without epochs.

        The next claim has the number of halvings; the last one cannot write any more.
        """
        claim = bound(store, study_id)
        assert claim.halvings == 0
        store.epochs.append_epoch(claim, make_record(1), FOREVER_S)
        store.epochs.restart_trial(claim, {"batch_size": 4})

        (trial,) = store.trials.list_trials(study_id)
        assert (trial.state, trial.halvings, trial.config, trial.lease_until) == (
            "paused",
            1,
            {"batch_size": 4},
            None,
        )
        assert store.epochs.trial_records(trial.id) == []
        with pytest.raises(LeaseLostError, match="was released and is now paused"):
            store.epochs.append_epoch(claim, make_record(2), FOREVER_S)
        again = store.leases.claim_trial(study_id, 1, "b", FOREVER_S)
        assert again is not None
        assert (again.number, again.resume, again.halvings, again.config) == (
            0,
            True,
            1,
            {"batch_size": 4},
        )
        store.epochs.append_epoch(again, make_record(1), FOREVER_S)


class TestReap:
    def test_only_expired(self, store: Store, study_id: int) -> None:
        """Reaping releases the trials of a silent worker only; its next write is refused."""
        gone, kept = bound(store, study_id, "a", 0), bound(store, study_id, "b", 1)
        let_lapse(store, gone)

        (reaped,) = store.reaping.reap_trials(study_id)

        assert (reaped.number, reaped.worker, reaped.lost, reaped.ended) == (0, "a", 1, False)
        assert store.reaping.reap_trials(study_id) == []
        assert [(line.state, line.lost) for line in store.trials.list_progress(study_id)] == [
            ("paused", 1),
            ("running", 0),
        ]
        store.leases.renew_lease(kept, FOREVER_S)
        with pytest.raises(LeaseLostError, match="was released and is now paused"):
            store.leases.renew_lease(gone, FOREVER_S)

    def test_known_to_be_dead(self, store: Store, study_id: int) -> None:
        """The trial of a dead worker is released before its lease has expired; others' are not."""
        bound(store, study_id, "box:1", 0)
        bound(store, study_id, "box:11", 1)

        assert [each.number for each in store.reaping.reap_trials(study_id, Death("box:1"))] == [0]
        taken = store.leases.claim_trial(study_id, 2, "box:2", FOREVER_S)
        assert taken is not None
        assert (taken.number, taken.attempt, taken.resume) == (0, 2, True)

    def test_third_death(self, store: Store, study_id: int) -> None:
        """A trial that killed three workers is failed with the last one's end and log."""
        for worker in ("box:1", "box:2", "box:3"):
            assert store.leases.claim_trial(study_id, 1, worker, FOREVER_S)
            (reaped,) = store.reaping.reap_trials(
                study_id, Death(worker, "was ended by SIGSEGV", "loading\nFatal Python error")
            )

        assert (reaped.lost, reaped.ended) == (3, True)
        (trial,) = store.trials.list_trials(study_id)
        assert (trial.state, trial.attempt, trial.lease_until) == ("failed", 3, None)
        assert (
            trial.reason == "abandoned: 3 workers died or stopped responding while training it; "
            "the last one, box:3, was ended by SIGSEGV"
        )
        assert trial.error == "loading\nFatal Python error"
        assert store.leases.claim_trial(study_id, 1, "box:4", FOREVER_S) is None

    def test_responds_again(self, store: Store, study_id: int) -> None:
        """A lost worker that responds again is not counted, once; an ended trial stays as it is."""
        claims = []
        for worker in ("a", "b", "c"):
            claims.append(store.leases.claim_trial(study_id, 1, worker, FOREVER_S))
            assert claims[-1] is not None
            store.reaping.reap_trials(study_id, Death(worker), max_lost=10)
        store.reaping.retract_loss(claims[0])
        store.reaping.retract_loss(claims[1])
        assert [line.lost for line in store.trials.list_progress(study_id)] == [1]
        assert store.leases.claim_trial(study_id, 1, "d", FOREVER_S) is not None
        store.reaping.reap_trials(study_id, Death("d"), max_lost=2)
        store.reaping.retract_loss(claims[2])
        (trial,) = store.trials.list_trials(study_id)
        assert trial.state == "failed"
        assert [line.lost for line in store.trials.list_progress(study_id)] == [2]

    def test_let_go(self, store: Store, study_id: int) -> None:
        """Trials that a worker owns without knowing are released, and not counted as lost."""
        bound(store, study_id, "a", 0)
        bound(store, study_id, "b", 1)

        assert store.reaping.release_worker(study_id, "a") == 1

        assert [(line.state, line.lost) for line in store.trials.list_progress(study_id)] == [
            ("paused", 0),
            ("running", 0),
        ]
        assert store.reaping.release_worker(study_id, "a") == 0


class TestSignsOfLife:
    def test_worker(self, store: Store, study_id: int, make_record: Make) -> None:
        """Worker, host, device and last renewal of a trial are known only while it is running."""
        claim = bound(store, study_id, "box:1")
        store.epochs.append_epoch(claim, make_record(1), FOREVER_S)

        (line,) = store.trials.list_progress(study_id)
        assert (line.worker, line.device) == ("box:1", "cuda:1")
        assert line.silent_s is not None
        assert 0 <= line.silent_s < FOREVER_S
        store.leases.release_trial(claim)
        assert [line.silent_s for line in store.trials.list_progress(study_id)] == [None]

    def test_last_progress(self, store: Store, study_id: int, make_record: Make) -> None:
        """A study makes progress with every epoch and every end, but not with a failed trial."""
        assert store.reaping.last_progress(study_id) == 0
        claim = bound(store, study_id)
        store.leases.finish_trial(bound(store, study_id, number=1), Outcome("failed"))
        assert store.reaping.last_progress(study_id) == 0

        store.epochs.append_epoch(claim, make_record(1), FOREVER_S)
        epoch = store.reaping.last_progress(study_id)
        store.leases.finish_trial(claim, Outcome("complete", 0.5))

        assert 0 < epoch <= store.reaping.last_progress(study_id)


class TestDeviceTime:
    def test_charged(self, store: Store, study_id: int) -> None:
        """A trial is charged for the time of its attempts, with and without a budget."""
        for budget_s in (None, FOREVER_S):
            if budget_s is not None:
                store.budget.set_device_budget(study_id, budget_s)
            before = store.budget.find_device_time(study_id).charged_s
            claim = store.leases.claim_trial(study_id, 1, "a", 1.0)
            assert claim is not None
            assert claim.device_left_s == math.inf
            assert store.leases.renew_lease(claim, 1.0) == math.inf
            store.leases.release_trial(claim)
            assert before < store.budget.find_device_time(study_id).charged_s
        assert store.budget.find_device_time(study_id).budget_s == FOREVER_S
        assert store.budget.find_device_time(study_id).charged_s == pytest.approx(
            store.trials.list_trials(study_id)[0].device_s
        )

    def test_spent(self, store: Store, study_id: int) -> None:
        """No trial can be claimed without device time left, until the budget is raised."""
        store.budget.set_device_budget(study_id, 100.0)
        first = bound(store, study_id)  # for 100 of its 600 s

        assert store.leases.renew_lease(first, FOREVER_S) <= 100
        assert store.budget.find_device_time(study_id).spent
        assert store.leases.claim_trial(study_id, 9, "b", FOREVER_S) is None

        store.budget.set_device_budget(study_id, 2000.0)
        assert store.leases.claim_trial(study_id, 9, "b", FOREVER_S) is not None
        assert store.leases.renew_lease(first, FOREVER_S) == math.inf

    def test_unused(self, store: Store, study_id: int) -> None:
        """Unused device time is refunded when an attempt ends, or its worker has died."""
        store.budget.set_device_budget(study_id, 100.0)
        for end in (
            store.leases.release_trial,
            lambda claim: store.leases.finish_trial(claim, Outcome("failed")),
            lambda _: store.reaping.reap_trials(study_id, Death("a")),
        ):
            claim = store.leases.claim_trial(study_id, 9, "a", FOREVER_S)
            assert claim is not None
            assert store.budget.find_device_time(study_id).spent
            end(claim)
            assert not store.budget.find_device_time(study_id).spent

    def test_silent(self, store: Store, study_id: int) -> None:
        """A silent worker's whole lease counts as used, because its end is unknown."""
        store.budget.set_device_budget(study_id, 100.0)
        claim = bound(store, study_id)
        let_lapse(store, claim)
        promised = store.budget.find_device_time(study_id).charged_s
        until(lambda: lease_left_s(store, claim) < -0.1, "time passes for the database")
        store.reaping.reap_trials(study_id)

        assert store.budget.find_device_time(study_id).charged_s == promised

    def test_overrun(self, store: Store, study_id: int) -> None:
        """A step that runs longer than the time left is charged completely."""
        store.budget.set_device_budget(study_id, 0.01)
        claim = store.leases.claim_trial(study_id, 9, "a", FOREVER_S)
        assert claim is not None

        def has_run_long() -> bool:
            (line,) = store.trials.list_progress(study_id)
            return line.silent_s is not None and line.silent_s > 0.05

        until(has_run_long, "the step is longer than the time left")
        store.leases.release_trial(claim)

        taken = store.budget.find_device_time(study_id)
        assert taken.charged_s > 0.04
        assert taken.spent

    @pytest.mark.parametrize("budget_s", [0, -1, math.nan])
    def test_no_budget(self, store: Store, study_id: int, budget_s: float) -> None:
        """A budget must be positive."""
        with pytest.raises(ValueError, match="more than 0 seconds"):
            store.budget.set_device_budget(study_id, budget_s)


class TestIsolation:
    def test_of_a_writer(self, postgresql_url: str) -> None:
        """A count after a wait for a lock sees the other transaction, at any isolation level."""
        url = postgresql_url.replace(
            "options=-c", "options=-cdefault_transaction_isolation%3Dserializable%20-c"
        )
        assert url != postgresql_url
        with StoreLocation.parse(url).open() as store, store._database.writing() as connection:
            assert (
                connection.exec_driver_sql("SHOW default_transaction_isolation").scalar()
                == "serializable"
            )
            assert (
                connection.exec_driver_sql("SHOW transaction_isolation").scalar()
                == "read committed"
            )


class TestStoodStill:
    def test_slept(self, store: Store, study_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a machine slept, workers have time to renew leases before trials are reaped."""
        claim = bound(store, study_id)
        let_lapse(store, claim)
        slept = time.clock_gettime(time.CLOCK_BOOTTIME) + 3600
        monkeypatch.setattr(database_module, "_monotonic_s", lambda: slept)
        store.trials.count_by_state(study_id)  # the first answer after it
        assert store.reaping.reap_trials(study_id) == []
        store.leases.renew_lease(claim, FOREVER_S)

        let_lapse(store, claim)
        monkeypatch.setattr(database_module, "_monotonic_s", lambda: slept + 4)
        store.trials.count_by_state(study_id)
        assert store.reaping.reap_trials(study_id) == []
        for later in (8, 10.5):
            monkeypatch.setattr(database_module, "_monotonic_s", lambda later=later: slept + later)
            store.trials.count_by_state(study_id)
        (reaped,) = store.reaping.reap_trials(study_id)
        assert (reaped.lost, reaped.ended) == (1, False)


class TestOutage:
    def read(self, store: Store, postgres_admin: psycopg.Connection, *, cut: bool) -> None:
        """Run a query, on a connection that the server cuts if asked for."""
        with store._database.reading() as connection:
            if cut:
                own = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
                postgres_admin.execute("SELECT pg_terminate_backend(%s, 5000)", (own,))
            connection.exec_driver_sql("SELECT 1")

    @pytest.mark.parametrize(("blip_s", "was_there"), [(60.0, True), (-1.0, False)])
    def test_cut_connection(
        self,
        postgresql_url: str,
        postgres_admin: psycopg.Connection,
        monkeypatch: pytest.MonkeyPatch,
        blip_s: float,
        was_there: bool,
    ) -> None:
        """A cut connection is no outage if it is immediately made again; a longer one is.

        So a bad network does not keep the trials of dead workers from being released.
        """
        monkeypatch.setattr(database_module, "SHORT_OUTAGE_S", blip_s)
        with StoreLocation.parse(postgresql_url).open() as store:
            with pytest.raises(StoreUnreachableError):
                self.read(store, postgres_admin, cut=True)
            assert not store._database.was_available(10)
            self.read(store, postgres_admin, cut=False)
            assert store._database.was_available(10) is was_there
