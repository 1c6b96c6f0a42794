"""Trainings that confirm: enqueued once, again only after a failure, and counted on every database."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest

from search.sampling.connection import close_trials, open_trials
from storage.location import StoreLocation
from storage.rows import ConfirmingTrial, EnqueuedTrial, OptunaEnd, Outcome
from storage.store import Store


def make_training(of: int, seed_number: int) -> EnqueuedTrial:
    """A trial that trains a configuration again."""
    attribute = {"of": of, "seed_number": seed_number, "seed": 11, "patch": {}}
    return EnqueuedTrial({"rate": 0.5}, {"confirm": attribute})


@pytest.fixture
def study(store_url: str) -> Iterator[tuple[Store, int]]:
    """A store with one study, and its id."""
    location = StoreLocation.parse(store_url)
    with location.open() as store:
        trials = open_trials(location)
        optuna_id = optuna.create_study(storage=trials, study_name="demo")._study_id
        close_trials(trials)
        yield store, store.studies.register_study(optuna_id, "demo", {}).id


class TestEnqueueTrainings:
    def test_once(self, study: tuple[Store, int]) -> None:
        """What waits, or was trained, is not enqueued a second time; the count is of all trials."""
        store, study_id = study
        first = [make_training(7, 1), make_training(3, 1)]
        assert store.confirmations.enqueue_trainings(study_id, first) == 2
        assert store.leases.claim_trial(study_id, 9, "w", 600) is not None
        assert store.confirmations.enqueue_trainings(study_id, [*first, make_training(7, 2)]) == 3
        assert store.confirmations.list_trainings(study_id) == [
            ConfirmingTrial(0, 7, 1),
            ConfirmingTrial(1, 3, 1),
            ConfirmingTrial(2, 7, 2),
        ]

    def test_failed(self, study: tuple[Store, int]) -> None:
        """A training that failed is enqueued again."""
        store, study_id = study
        store.confirmations.enqueue_trainings(study_id, [make_training(7, 1)])
        claim = store.leases.claim_trial(study_id, 9, "w", 600)
        assert claim is not None
        store.leases.finish_trial(claim, Outcome("failed"), OptunaEnd("FAIL"))
        assert store.confirmations.enqueue_trainings(study_id, [make_training(7, 1)]) == 2
        assert store.confirmations.list_trainings(study_id) == [
            ConfirmingTrial(0, 7, 1, is_failed=True),
            ConfirmingTrial(1, 7, 1),
        ]


class TestCountCompletedSince:
    def test_counted(self, study: tuple[Store, int]) -> None:
        """Trials count that completed after the latest training began; before any, none does."""
        store, study_id = study
        other = store.studies.register_study(99, "demo.confirm", {}).id
        first = store.leases.claim_trial(study_id, 9, "w", 600)
        second = store.leases.claim_trial(study_id, 9, "w", 600)
        assert first is not None
        assert second is not None
        store.leases.finish_trial(first, Outcome("complete", 0.5), OptunaEnd("COMPLETE", 0.5))
        assert store.confirmations.count_completed_since(study_id, other) == 0
        assert store.confirmations.count_completed_since(study_id, study_id) == 1
