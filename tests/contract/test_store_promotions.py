"""The contract of pauses, promotions and the budget in epochs, on each kind of database."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from spaces.errors import LeaseLostError
from spaces.records import EpochRecord
from storage.location import StoreLocation
from storage.rows import Claim, EpochBudget, NextStep, Outcome
from storage.store import Store
from tests.contract.test_store import let_lapse

Make = Callable[..., EpochRecord]
FOREVER_S = 600.0
TRIALS = 100


@pytest.fixture
def study_id(store: Store) -> int:
    """A registered study."""
    return store.studies.register_study(11, "demo", {"space": {}}).id


def claim_step(
    store: Store,
    study_id: int,
    step: NextStep | None,
    worker: str = "a",
    budget: EpochBudget | None = None,
) -> Claim | None:
    """Claim what a search chose."""
    return store.leases.claim_trial(
        study_id, TRIALS, worker, FOREVER_S, step=step, epoch_budget=budget
    )


def start(
    store: Store,
    study_id: int,
    make: Make,
    number: int,
    until: int,
    budget: EpochBudget | None = None,
) -> Claim:
    """Train a new trial to the epoch of its pause, without pausing it."""
    claim = claim_step(store, study_id, NextStep(None, until), budget=budget)
    assert claim is not None
    assert claim.until_epoch is not None
    claim = store.leases.bind_trial(claim, number, 100 + number, {"loss": {"gamma": 2.0}})
    for epoch in range(1, claim.until_epoch + 1):
        store.epochs.append_epoch(claim, make(epoch), FOREVER_S)
    return claim


class TestPause:
    def test_only_a_promotion_resumes(self, store: Store, study_id: int, make_record: Make) -> None:
        """A paused trial is no open work: a claim that does not name it does not get it."""
        claim = start(store, study_id, make_record, 0, 3)
        store.promotions.pause_at_rung(claim, "after epoch 3 of 9: 2% chance")

        (trial,) = store.trials.list_trials(study_id)
        assert (trial.state, trial.awaits_promotion, trial.reason) == (
            "paused",
            1,
            "after epoch 3 of 9: 2% chance",
        )
        assert store.promotions.count_open(study_id) == 0
        assert store.promotions.list_awaiting(study_id) == {0: 1}
        assert claim_step(store, study_id, None) is None

        promoted = claim_step(store, study_id, NextStep(0, 6), "b")
        assert promoted is not None
        assert (promoted.number, promoted.resume, promoted.until_epoch) == (0, True, 6)
        assert store.promotions.count_open(study_id) == 1
        (trial,) = store.trials.list_trials(study_id)
        assert (trial.state, trial.awaits_promotion, trial.reason) == ("running", 0, "")

    def test_the_paused_attempt_cannot_write(
        self, store: Store, study_id: int, make_record: Make
    ) -> None:
        """After the pause, the attempt has lost its right to write."""
        claim = start(store, study_id, make_record, 0, 2)
        store.promotions.pause_at_rung(claim, "")
        with pytest.raises(LeaseLostError):
            store.epochs.append_epoch(claim, make_record(3), FOREVER_S)
        with pytest.raises(LeaseLostError):
            store.promotions.extend_trial(claim, 4, None)

    def test_lost_after_a_promotion(self, store: Store, study_id: int, make_record: Make) -> None:
        """A promoted trial whose worker dies is resumed by any claim, to the same epoch."""
        claim = start(store, study_id, make_record, 0, 3)
        store.promotions.pause_at_rung(claim, "")
        promoted = claim_step(store, study_id, NextStep(0, 6))
        assert promoted is not None
        let_lapse(store, promoted)

        again = claim_step(store, study_id, None, "b")
        assert again is not None
        assert (again.number, again.until_epoch, again.attempt) == (0, 6, 3)

    def test_one_of_two_workers_promotes(
        self, store: Store, study_id: int, make_record: Make
    ) -> None:
        """Of two workers that choose the same trial, one gets it and the other one nothing."""
        claim = start(store, study_id, make_record, 0, 3)
        store.promotions.pause_at_rung(claim, "")
        assert claim_step(store, study_id, NextStep(0, 6), "a") is not None
        assert claim_step(store, study_id, NextStep(0, 6), "b") is None

    def test_released_trials_come_first(
        self, store: Store, study_id: int, make_record: Make
    ) -> None:
        """A trial that a worker had to release is resumed before what the search chose."""
        paused = start(store, study_id, make_record, 0, 2)
        store.promotions.pause_at_rung(paused, "")
        released = start(store, study_id, make_record, 1, 2)
        store.leases.release_trial(released)
        claim = claim_step(store, study_id, NextStep(0, 4))
        assert claim is not None
        assert claim.number == 1


class TestEpochBudget:
    def test_exact(self, store: Store, study_id: int, make_record: Make) -> None:
        """Running trials count with all that they were granted, others with what they trained."""
        budget = EpochBudget(epochs=10, epochs_per_trial=9)
        first = start(store, study_id, make_record, 0, 3, budget)
        store.promotions.pause_at_rung(first, "")
        second = start(store, study_id, make_record, 1, 5, budget)  # 8 of 10 granted
        third = claim_step(store, study_id, NextStep(None, 3), "c", budget)
        assert third is not None
        assert third.until_epoch == 2
        assert claim_step(store, study_id, NextStep(0, 9), "d", budget) is None
        store.leases.finish_trial(second, Outcome("pruned", 0.1, "median: worse"))
        assert claim_step(store, study_id, NextStep(0, 9), "d", budget) is None

        raised = EpochBudget(epochs=12, epochs_per_trial=9)
        promoted = claim_step(store, study_id, NextStep(0, 9), "d", raised)
        assert promoted is not None
        assert promoted.until_epoch == 5

    def test_unused_epochs_return(self, store: Store, study_id: int, make_record: Make) -> None:
        """What a trial that ended early was granted and did not use is granted to another one."""
        budget = EpochBudget(epochs=6, epochs_per_trial=6)
        claim = claim_step(store, study_id, NextStep(None, 6), budget=budget)
        assert claim is not None
        claim = store.leases.bind_trial(claim, 0, 100, {})
        store.epochs.append_epoch(claim, make_record(1), FOREVER_S)
        assert claim_step(store, study_id, NextStep(None, 6), "b", budget) is None
        store.leases.finish_trial(claim, Outcome("diverged", 0.0, "nonfinite_loss: NaN"))
        another = claim_step(store, study_id, NextStep(None, 6), "b", budget)
        assert another is not None
        assert another.until_epoch == 5

    def test_extension(self, store: Store, study_id: int, make_record: Make) -> None:
        """A running trial is extended as far as the budget allows, and not at all beyond it."""
        budget = EpochBudget(epochs=5, epochs_per_trial=9)
        claim = start(store, study_id, make_record, 0, 3, budget)
        extended = store.promotions.extend_trial(claim, 6, budget)
        assert extended is not None
        assert extended.until_epoch == 5
        assert store.promotions.extend_trial(extended, 9, budget) is None

    def test_many_workers(self, store: Store, study_id: int, store_url: str) -> None:
        """Workers that claim at once are never granted more than the budget together."""
        budget = EpochBudget(epochs=25, epochs_per_trial=4)

        def claim(worker: int) -> int:
            with StoreLocation.parse(store_url).open(create=False) as own:
                found = claim_step(own, study_id, NextStep(None, 4), f"w{worker}", budget)
                return 0 if found is None else found.until_epoch or 0

        with ThreadPoolExecutor(8) as pool:
            granted = list(pool.map(claim, range(10)))
        assert sum(granted) == 25
        assert sorted(granted) == [0, 0, 0, 1, 4, 4, 4, 4, 4, 4]


class TestCurves:
    def test_all_that_a_search_decides_by(
        self, store: Store, study_id: int, make_record: Make
    ) -> None:
        """Trials come with configuration and metrics; those that are known are left out."""
        ended = start(store, study_id, make_record, 0, 2)
        store.leases.finish_trial(ended, Outcome("complete", 0.5))
        paused = start(store, study_id, make_record, 1, 3)
        store.promotions.pause_at_rung(paused, "")

        first, second = store.promotions.list_curves(study_id)
        assert (first.state, sorted(first.metrics), first.awaits_promotion) == (
            "complete",
            [1, 2],
            False,
        )
        assert (second.number, second.until_epoch, second.awaits_promotion) == (1, 3, True)
        assert second.config == {"loss": {"gamma": 2.0}}
        assert second.metrics[3] == make_record(3).metric
        (left,) = store.promotions.list_curves(study_id, {first.trial_id})
        assert left == second
        assert store.promotions.count_epochs(study_id) == 5


class TestDroppedCheckpoint:
    def test_repeated_epochs_count(self, store: Store, study_id: int, make_record: Make) -> None:
        """A trial without its checkpoint starts again, and what it repeats counts as well."""
        budget = EpochBudget(epochs=10, epochs_per_trial=9)
        claim = start(store, study_id, make_record, 0, 3, budget)
        store.promotions.pause_at_rung(claim, "")
        assert store.promotions.drop_checkpoint(study_id, 0, claim.attempt)
        (curve,) = store.promotions.list_curves(study_id)
        assert curve.checkpoint_dropped

        promoted = claim_step(store, study_id, NextStep(0, 9), "b", budget)
        assert promoted is not None
        assert promoted.until_epoch == 7
        store.epochs.forget_epochs_after(promoted, 0)
        for epoch in range(1, 8):
            store.epochs.append_epoch(promoted, make_record(epoch), FOREVER_S)
        assert store.promotions.count_epochs(study_id) == 10
        assert store.promotions.extend_trial(promoted, 9, budget) is None
        (curve,) = store.promotions.list_curves(study_id)
        assert not curve.checkpoint_dropped

    def test_promoted_meanwhile(self, store: Store, study_id: int, make_record: Make) -> None:
        """The checkpoint of a trial that another worker has just promoted stays."""
        claim = start(store, study_id, make_record, 0, 3)
        store.promotions.pause_at_rung(claim, "")
        assert claim_step(store, study_id, NextStep(0, 6), "b") is not None
        assert not store.promotions.drop_checkpoint(study_id, 0, claim.attempt)

    def test_paused_without_one(self, store: Store, study_id: int, make_record: Make) -> None:
        """A trial whose objective wrote no checkpoint starts again when it is promoted."""
        claim = start(store, study_id, make_record, 0, 3)
        store.promotions.pause_at_rung(claim, "", has_checkpoint=False)
        (curve,) = store.promotions.list_curves(study_id)
        assert curve.checkpoint_dropped
