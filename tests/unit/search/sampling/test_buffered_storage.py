"""The writes of a sampler are buffered while a trial is sampled; all else is Optuna's storage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from unittest import mock

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from search.sampling.buffered_storage import BufferedStorage
from search.sampling.connection import open_trials
from storage.location import StoreLocation
from storage.rows import SampledParam, SampledTrial

RATE = FloatDistribution(1e-3, 1.0, log=True)
KIND = CategoricalDistribution(("ce", "focal"))


@pytest.fixture
def database(sqlite_url: str) -> Iterator[RDBStorage]:
    """Optuna's storage in an SQLite database."""
    storage = open_trials(StoreLocation.parse(sqlite_url))
    yield storage
    storage.remove_session()
    storage.engine.dispose()


@pytest.fixture
def study_id(database: RDBStorage) -> int:
    """An empty study."""
    return database.create_new_study([StudyDirection.MAXIMIZE], "demo")


class TestBuffered:
    def test_nothing_written(self, database: RDBStorage, study_id: int) -> None:
        """Parameters and attributes set in the block are returned in order, as Optuna would write them."""
        storage = BufferedStorage(database)
        trial_id = storage.create_new_trial(study_id)
        with storage.buffered() as pending:
            storage.set_trial_param(trial_id, "rate", 0.5, RATE)
            storage.set_trial_param(trial_id, "kind", 1, KIND)
            storage.set_trial_system_attr(trial_id, "shared", {"rate": 0.5})
        params = (
            SampledParam("rate", 0.5, distribution_to_json(RATE)),
            SampledParam("kind", 1, distribution_to_json(KIND)),
        )
        assert pending.to_sampled() == SampledTrial(params, {"shared": json.dumps({"rate": 0.5})})
        assert (database.get_trial(trial_id).params, database.get_trial(trial_id).system_attrs) == (
            {},
            {},
        )

    def test_outside(self, database: RDBStorage, study_id: int) -> None:
        """Outside of the block everything is written at once, also after a block that failed."""
        storage = BufferedStorage(database)
        trial_id = storage.create_new_trial(study_id)
        storage.set_trial_param(trial_id, "rate", 0.5, RATE)
        with pytest.raises(ValueError, match="not in"), storage.buffered():
            storage.set_trial_param(trial_id, "lost", KIND.to_internal_repr("hinge"), KIND)
        storage.set_trial_param(trial_id, "kind", 1, KIND)
        storage.set_trial_system_attr(trial_id, "shared", 3)
        written = database.get_trial(trial_id)
        assert (written.params, written.system_attrs) == (
            {"rate": 0.5, "kind": "focal"},
            {"shared": 3},
        )

    def test_history(self, database: RDBStorage, study_id: int) -> None:
        """The history is read once per block, whichever states are asked for."""
        storage = BufferedStorage(database)
        first = storage.create_new_trial(study_id)
        storage.create_new_trial(study_id)
        database.set_trial_state_values(first, TrialState.COMPLETE, [0.5])

        def numbers(*states: TrialState) -> list[int]:
            return [
                trial.number
                for trial in storage.get_all_trials(study_id, deepcopy=False, states=states or None)
            ]

        with (
            mock.patch.object(database, "_get_trials", wraps=database._get_trials) as read,
            storage.buffered(),
        ):
            assert [
                numbers(),
                numbers(TrialState.COMPLETE),
                numbers(TrialState.RUNNING),
                numbers(TrialState.FAIL),
            ] == [[0, 1], [0], [1], []]
            storage.create_new_trial(study_id)
            assert numbers() == [0, 1]
            assert (
                len(storage.get_all_trials(study_id)) == 3
            )  # copies are for users, who want the current trials
        assert read.call_count == 2
        with storage.buffered():
            assert numbers() == [0, 1, 2]
