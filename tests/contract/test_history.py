"""The sampler's history: the same suggestions as from Optuna's class, on each database."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from search.planning.plan import Params, Plan, make_plan
from search.sampling.connection import close_trials, open_trials
from search.sampling.optuna_study import make_study
from search.sampling.sampler import to_distribution
from search.sampling.worker_study import WorkerStudy
from search.worker.context import open_worker_study
from spaces.loader import load_study
from spaces.parameters import Choice
from storage.location import StoreLocation
from storage.rows import SampledTrial, StoredStudy
from storage.store import Store

ENDED = (
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.COMPLETE,
    TrialState.FAIL,
    TrialState.PRUNED,
)


@pytest.fixture
def plan() -> Plan:
    """A study with conditional dimensions."""
    return make_plan(
        load_study("combined", {"sampler.kind": "tpe", "sampler.startup_trials": 5, "presets": []})
    )


@pytest.fixture
def trials(store_url: str) -> Iterator[RDBStorage]:
    """Optuna's class on the store's database."""
    storage = open_trials(StoreLocation.parse(store_url))
    yield storage
    close_trials(storage)


@pytest.fixture
def study(trials: RDBStorage, plan: Plan) -> Study:
    """An empty study of Optuna's."""
    return make_study(trials, plan, "demo")


@pytest.fixture
def stored(store: Store, study: Study) -> StoredStudy:
    """The same study in the store."""
    return store.studies.register_study(study._study_id, "demo", {})


def add(study: Study, plan: Plan, rng: random.Random, count: int) -> None:
    """Ended trials: ties, infinite and infeasible ones, pruned ones with and without reports."""
    for number in range(count):
        params: Params = {}
        for path, dimension in plan.active_dimensions(plan.starting_tree(None), params):
            params[path] = (
                rng.choice(dimension.choices) if isinstance(dimension, Choice) else dimension.low
            )
        state = ENDED[number % len(ENDED)]
        reports = {
            step: rng.choice([0.25, 0.5, rng.random(), math.nan])
            for step in range(1, rng.randint(1, 4))
        }
        study.add_trial(
            create_trial(
                state=state,
                value=rng.choice([0.5, rng.random(), math.inf, -math.inf])
                if state == TrialState.COMPLETE
                else None,
                params=params,
                distributions={path: to_distribution(plan.spec.space[path]) for path in params},
                intermediate_values=reports,
                constraints={"diverged": rng.random()} if rng.random() < 0.2 else None,
                user_attrs={"cause": "é"},
            )
        )


def sampled(worker: WorkerStudy, plan: Plan, trial_id: int) -> tuple[Params, SampledTrial]:
    """Sample a trial without writing it."""
    return worker.sample_params(worker.resume_trial(trial_id), plan)


class TestSameSuggestions:
    def test_as_they_come(
        self,
        store: Store,
        stored: StoredStudy,
        study: Study,
        trials: RDBStorage,
        plan: Plan,
        store_url: str,
    ) -> None:
        """Suggestions agree for past trials of every kind, read at once or one by one."""
        rng = random.Random(1)
        worker, plain = (
            open_worker_study(StoreLocation.parse(store_url), store, stored, plan),
            WorkerStudy(trials, plan, "demo", lambda: 0),
        )
        add(study, plan, rng, 3)
        study.enqueue_trial({"loss.gamma": 2.0})
        given: list[SampledTrial] = []
        for more in (0, 12, 25):
            add(study, plan, rng, more)
            running = [trials.create_new_trial(study._study_id) for _ in range(3)]
            for trial_id in running:
                params, drawn = sampled(worker, plan, trial_id)
                assert (params, drawn) == sampled(plain, plan, trial_id)
                newcomer = open_worker_study(StoreLocation.parse(store_url), store, stored, plan)
                assert (params, drawn) == sampled(newcomer, plan, trial_id)
                given.append(drawn)
                with store._database.writing() as connection:
                    store._optuna.write_sampled(connection, trial_id, drawn)
            trials.set_trial_state_values(running[0], TrialState.COMPLETE, [0.75])
            trials.set_trial_state_values(running[1], TrialState.FAIL)
        assert len({str(drawn.params) for drawn in given}) == len(given)
        assert any(drawn.system_attrs for drawn in given)  # by TPE, not at random

    def test_only_looked_at(
        self, store: Store, stored: StoredStudy, study: Study, plan: Plan
    ) -> None:
        """Ended trials are not read a second time; those that had not ended are."""
        add(study, plan, random.Random(1), 5)
        asked = study.ask()
        first = store.sampler_history.past_trials(stored.optuna_study_id)
        assert [trial.number for trial in first] == [0, 1, 2, 3, 4, 5]
        study.tell(asked, 0.5)
        (again,) = store.sampler_history.past_trials(
            stored.optuna_study_id, first[-1].trial_id, [first[-1].trial_id]
        )
        assert (again.number, again.state, again.value) == (5, "COMPLETE", 0.5)
