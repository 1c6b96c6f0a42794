"""Remedies that a sampler suggests: claimed once each, within their number and the budget."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest

from search.sampling.connection import close_trials, open_trials
from storage.location import StoreLocation
from storage.rows import EnqueuedTrial, SuggestedRemedies, TriedRemedy
from storage.store import Store
from tests.waiting import PATIENCE_S


def make_trial(of: int, choice: int | None = 1, by_sampler: bool = True) -> EnqueuedTrial:
    """A trial that tries a remedy."""
    remedy: dict[str, Any] = {"of": of, "preset": None, "patch": {}}
    if choice is not None:
        remedy |= {"choice": choice, "title": "slower", "cause": "rate", "by_sampler": by_sampler}
    return EnqueuedTrial({"rate": 0.5}, {"remedy": remedy})


@pytest.fixture
def study(store_url: str) -> Iterator[tuple[Store, int]]:
    """A store with one study, and its id."""
    location = StoreLocation.parse(store_url)
    with location.open() as store:
        trials = open_trials(location)
        optuna_id = optuna.create_study(storage=trials, study_name="demo")._study_id
        close_trials(trials)
        yield store, store.studies.register_study(optuna_id, "demo", {}).id


def claim_all(
    study: tuple[Store, int], given: Sequence[EnqueuedTrial], most: int, budget: int
) -> list[TriedRemedy]:
    """The remedies that are tried when every claim comes with the same suggestions."""
    store, study_id = study
    suggested = SuggestedRemedies(given, most)
    while store.leases.claim_trial(study_id, budget, "w", 600, remedies=suggested) is not None:
        pass
    return store.remedies.list_tried(study_id)


class TestClaim:
    def test_each_once(self, study: tuple[Store, int]) -> None:
        """Claims with the same suggestions try each remedy once, in order, and then something else."""
        tried = claim_all(study, [make_trial(7), make_trial(3)], most=9, budget=5)
        assert [(each.number, each.of) for each in tried] == [(0, 7), (1, 3)]
        assert tried[0] == TriedRemedy(0, 7, 1, "slower", "rate", by_sampler=True)
        store, study_id = study
        assert len(store.trials.list_trials(study_id)) == 5

    def test_most(self, study: tuple[Store, int]) -> None:
        """No more trials than the given number come from the sampler."""
        given = [make_trial(of) for of in (7, 3, 5)]
        assert [each.of for each in claim_all(study, given, most=2, budget=9)] == [7, 3]

    def test_budget(self, study: tuple[Store, int]) -> None:
        """A remedy counts in the budget of trials."""
        assert len(claim_all(study, [make_trial(7), make_trial(3)], most=9, budget=1)) == 1

    def test_several_workers(self, study: tuple[Store, int], store_url: str) -> None:
        """Workers that claim at the same time never try the same remedy."""
        suggested = SuggestedRemedies([make_trial(of) for of in range(5, 0, -1)], 4)
        barrier = threading.Barrier(4)

        def work() -> None:
            with StoreLocation.parse(store_url).open() as store:
                barrier.wait(PATIENCE_S)
                while store.leases.claim_trial(study[1], 12, "w", 600, remedies=suggested):
                    pass

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(work) for _ in range(4)]:
                done.result(timeout=PATIENCE_S)
        store, study_id = study
        assert [each.of for each in store.remedies.list_tried(study_id)] == [5, 4, 3, 2]
        assert len(store.trials.list_trials(study_id)) == 12

    def test_paused_first(self, study: tuple[Store, int]) -> None:
        """A paused trial is resumed before a remedy is tried."""
        store, study_id = study
        claim = store.leases.claim_trial(study_id, 9, "w", 600)
        assert claim is not None
        store.leases.release_trial(claim)
        suggested = SuggestedRemedies([make_trial(7)], 9)
        resumed = store.leases.claim_trial(study_id, 9, "w", 600, remedies=suggested)
        assert resumed is not None
        assert resumed.trial_id == claim.trial_id
        assert store.remedies.list_tried(study_id) == []


class TestEnqueuedByPeople:
    @pytest.fixture
    def enqueued(
        self, store_url: str, request: pytest.FixtureRequest
    ) -> Iterator[tuple[Store, int]]:
        """A study in which a trial waits that tries a remedy of trial 7."""
        location = StoreLocation.parse(store_url)
        with location.open() as store:
            trials = open_trials(location)
            optuna_id = optuna.create_study(storage=trials, study_name="demo")._study_id
            close_trials(trials)
            waiting = [make_trial(7, request.param, by_sampler=False)]
            yield store, store.studies.register_study(optuna_id, "demo", {}, waiting).id

    @pytest.mark.parametrize(
        ("enqueued", "tried"), [(1, [7, 3]), (2, [7, 7, 3]), (None, [7, 3])], indirect=["enqueued"]
    )
    def test_not_twice(self, enqueued: tuple[Store, int], tried: list[int]) -> None:
        """What a person enqueued comes first, is not suggested again, and leaves the number as it is.

        Version 0.1.0 did not record which remedy it was.
        """
        found = claim_all(enqueued, [make_trial(7), make_trial(3)], most=2, budget=9)
        assert [each.of for each in found] == tried
