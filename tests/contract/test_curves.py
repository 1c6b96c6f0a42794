"""Curves of complete trials: the same read at once or one by one, on each database."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy import text

from search.pruners.median import Peers
from search.sampling.connection import close_trials, open_trials
from spaces.records import EpochRecord
from storage.location import StoreLocation
from storage.repositories.peer_curves import OVERLAP_S, Complete
from storage.rows import FinalState, OptunaEnd, Outcome, SampledTrial
from storage.store import Store

MakeRecord = Callable[..., EpochRecord]


@pytest.fixture
def trials(store_url: str) -> Iterator[RDBStorage]:
    """Optuna's class on the store's database."""
    storage = open_trials(StoreLocation.parse(store_url))
    yield storage
    close_trials(storage)


@pytest.fixture
def study_id(store: Store, trials: RDBStorage) -> int:
    """A study; its id in the store."""
    return store.studies.register_study(
        trials.create_new_study([StudyDirection.MAXIMIZE], "demo"), "demo", {}
    ).id


@pytest.fixture
def end(store: Store, study_id: int, make_record: MakeRecord) -> Callable[..., int]:
    """Run a trial with these metrics to an end; return its id."""

    def run(*metrics: float, state: FinalState = "complete") -> int:
        claim = store.leases.claim_trial(study_id, 1000, "a", 600)
        assert claim is not None
        assert claim.number is not None
        assert claim.optuna_trial_id is not None
        claim = store.leases.bind_trial(
            claim, claim.number, claim.optuna_trial_id, {}, None, SampledTrial()
        )
        for epoch, metric in enumerate(metrics, 1):
            store.epochs.append_epoch(claim, make_record(epoch, metric=metric), 600)
        store.leases.finish_trial(
            claim,
            Outcome(state),
            OptunaEnd("COMPLETE", 0.5) if state == "complete" else OptunaEnd("PRUNED"),
        )
        return claim.trial_id

    return run


def counted(peers: Peers) -> tuple[int, dict[int, list[float]]]:
    """The number of peers, and their metrics at every epoch."""
    return len(peers), {epoch: list(peers.metrics_at(epoch)) for epoch in range(1, 5)}


class TestPeers:
    def test_as_they_come(self, store: Store, study_id: int, end: Callable[..., int]) -> None:
        """A late reader gets the same curves as an early one; each complete trial counts once."""
        peers = Peers(store, study_id)
        for metrics, state in (
            ((0.5, 0.25), "complete"),
            ((0.9,), "pruned"),
            ((0.125, math.nan, math.inf), "complete"),
            ((), "complete"),
            ((0.75,), "complete"),
        ):
            peers.refresh()
            end(*metrics, state=state)
        peers.refresh()
        peers.refresh()
        newcomer = Peers(store, study_id)
        newcomer.refresh()
        assert (
            counted(peers)
            == counted(newcomer)
            == (4, {1: [0.125, 0.5, 0.75], 2: [0.25], 3: [math.inf], 4: []})
        )

    def test_many(self, store: Store, study_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sorted at once or one by one, the curves are the same."""
        points = [
            (epoch, metric) for epoch in (1, 2) for metric in (0.5, math.nan, -math.inf, 0.25, 0.75)
        ]
        one_by_one, at_once = Peers(store, study_id), Peers(store, study_id)
        one_by_one.add_curves(Complete(frozenset({1}), points, 1.0))
        monkeypatch.setattr("search.pruners.median.MANY", 0)
        at_once.add_curves(Complete(frozenset({1}), points, 1.0))
        assert (
            counted(one_by_one)
            == counted(at_once)
            == (1, {1: [-math.inf, 0.25, 0.5, 0.75], 2: [-math.inf, 0.25, 0.5, 0.75], 3: [], 4: []})
        )

    def test_seen_late(
        self, store: Store, study_id: int, end: Callable[..., int], store_url: str
    ) -> None:
        """A trial whose end became visible after a later one is found too."""
        peers = Peers(store, study_id)
        late = end(0.5)
        end(0.25)
        with closing(StoreLocation.parse(store_url).open_database(create=True)) as database:
            set_state = text(
                "UPDATE search_trials SET state = :state, finished_at = finished_at - :back"
                " WHERE id = :id"
            )
            with database.writing() as connection:
                connection.execute(
                    set_state, {"state": "running", "back": OVERLAP_S / 2, "id": late}
                )
            peers.refresh()
            assert list(peers.metrics_at(1)) == [0.25]
            with database.writing() as connection:
                connection.execute(set_state, {"state": "complete", "back": 0, "id": late})
        peers.refresh()
        assert list(peers.metrics_at(1)) == [0.25, 0.5]
