"""The store writes the same rows to Optuna's tables as Optuna's class, on each database."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import inspect, text

from search.sampling.connection import open_trials
from search.sampling.optuna_trial import OptunaTrial, optuna_end
from spaces.errors import LeaseLostError, StoreError
from spaces.records import Diagnosis, EpochRecord, Evidence
from storage.database.database import Database
from storage.location import StoreLocation
from storage.rows import Claim, EnqueuedTrial, OptunaEnd, Outcome, SampledParam, SampledTrial
from storage.store import Store
from storage.tables.optuna_names import VERSION_TABLE
from storage.tables.optuna_tables import KILLED, SCHEMA, OptunaTables
from tests.contract.test_store import let_lapse

PARAMS: list[tuple[str, Any, BaseDistribution]] = [
    ("rate", 0.1 + 0.2, FloatDistribution(1e-3, 1.0, log=True)),
    ("smooth", 2.5, FloatDistribution(0, 5, step=0.5)),
    ("count", 3, IntDistribution(1, 9, step=2)),
    ("kind", None, CategoricalDistribution((None, True, 1.5, "é"))),
]
SHARED = json.dumps({"rate": 0.3})
FALLING = Evidence("metric_falling", 2, None, "it fell", {}, severity=1.25)
ENDS = {
    "complete": (optuna_end(Outcome("complete", 0.1 + 0.2, "")), [0.5]),
    "complete, infinite": (optuna_end(Outcome("complete", math.inf, "")), []),
    "pruned": (optuna_end(Outcome("pruned", 0.5, "worse than its peers")), [0.5, 0.25, math.nan]),
    "pruned, not finite": (
        optuna_end(Outcome("pruned", 0.5, "worse than its peers")),
        [0.5, -math.inf],
    ),
    "pruned, nothing reported": (
        optuna_end(Outcome("pruned", 0.5, "worse than its peers")),
        [math.nan],
    ),
    "diverged": (
        optuna_end(
            Outcome(
                "diverged", 0.5, "é", evidence=FALLING, diagnosis=Diagnosis("rate_too_high", (), ())
            )
        ),
        [0.25],
    ),
    "pruned, with a diagnosis": (
        optuna_end(
            Outcome("pruned", 0.5, "é", evidence=FALLING, diagnosis=Diagnosis("slow", (), ()))
        ),
        [0.25],
    ),
    "failed": (optuna_end(Outcome("failed", None, "ValueError: what")), [0.25]),
}
"""How a trial ends, and the metrics of its epochs."""

MakeRecord = Callable[..., EpochRecord]
PRESETS = [
    EnqueuedTrial({"rate": 0.25, "kind": None}, {"preset": "safe"}),
    EnqueuedTrial({"rate": 1.0}, {"preset": "bold", "note": "é"}),
]


@pytest.fixture
def trials(store_url: str) -> Iterator[RDBStorage]:
    """Optuna's class on the store's database."""
    storage = open_trials(StoreLocation.parse(store_url))
    yield storage
    storage.remove_session()
    storage.engine.dispose()


@pytest.fixture
def theirs(trials: RDBStorage) -> int:
    """A study to which only Optuna's class writes; its id in Optuna's tables."""
    return trials.create_new_study([StudyDirection.MAXIMIZE], "theirs")


@pytest.fixture
def ours(trials: RDBStorage) -> int:
    """A study to which the store writes; its id in Optuna's tables."""
    return trials.create_new_study([StudyDirection.MAXIMIZE], "ours")


@pytest.fixture
def study_id(store: Store, ours: int) -> int:
    """The store's id of that study."""
    return store.studies.register_study(ours, "ours", {}).id


def claimed(store: Store, study_id: int) -> Claim:
    """Claim the next trial."""
    claim = store.leases.claim_trial(study_id, 1000, "a", 600)
    assert claim is not None
    return claim


def bound(store: Store, claim: Claim, sampled: SampledTrial) -> Claim:
    """Bind a claim to a sampled trial."""
    assert claim.number is not None
    assert claim.optuna_trial_id is not None
    return store.leases.bind_trial(claim, claim.number, claim.optuna_trial_id, {}, None, sampled)


def params() -> SampledTrial:
    """One hyperparameter of every kind, and an attribute of the sampler."""
    sampled = (
        SampledParam(name, found.to_internal_repr(value), distribution_to_json(found))
        for name, value, found in PARAMS
    )
    return SampledTrial(tuple(sampled), {"tpe:relative_params:0": json.dumps(SHARED)})


def write_params(trials: RDBStorage, trial_id: int) -> None:
    """Write the same with Optuna's class."""
    for name, value, distribution in PARAMS:
        trials.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
    trials.set_trial_system_attr(trial_id, "tpe:relative_params:0", SHARED)


def rows(database: Database, optuna_study_id: int) -> dict[str, list[dict[str, Any]]]:
    """Every row of a study's trials, by table.

    Trials are given by number, times by whether there is one; ids of rows are left out.
    """
    with database.reading() as connection:
        listed = (
            connection.execute(
                text(f"SELECT * FROM trials WHERE study_id = {optuna_study_id} ORDER BY trial_id")
            )
            .mappings()
            .all()
        )
        numbers = {row["trial_id"]: row["number"] for row in listed}
        found = {
            "trials": [dict(row) | {"trial_id": row["number"], "study_id": 0} for row in listed]
        }
        for table in sorted(
            name for name in inspect(connection).get_table_names() if name.startswith("trial_")
        ):
            about = connection.execute(text(f"SELECT * FROM {table}")).mappings().all()
            found[table] = [
                dict(row) | {"trial_id": numbers[row["trial_id"]]}
                for row in about
                if row["trial_id"] in numbers
            ]
    return {table: [_comparable(table, row) for row in lines] for table, lines in found.items()}


def _comparable(table: str, row: dict[str, Any]) -> dict[str, Any]:
    own = {f"{table.removesuffix('s')}_id", "param_id"} - {"trial_id"}
    return {
        key: value is not None if key.startswith("datetime") else value
        for key, value in row.items()
        if key not in own
    }


def frozen(trials: RDBStorage, optuna_study_id: int) -> list[FrozenTrial]:
    """The trials of a study as Optuna reads them, without ids and times."""
    found = trials.get_all_trials(optuna_study_id)
    for trial in found:
        trial._trial_id = 0
        trial.datetime_start = trial.datetime_complete = None
    return found


class TestSameRows:
    def test_all(self, store: Store, trials: RDBStorage, theirs: int, store_url: str) -> None:
        """The rows of enqueued, running, sampled and lost trials are the same."""
        for each in PRESETS:
            waiting = create_trial(
                state=TrialState.WAITING,
                system_attrs={"fixed_params": each.params},
                user_attrs=dict(each.user_attrs),
            )
            trials.create_new_trial(theirs, waiting)
        first = trials.get_all_trials(theirs)[0]._trial_id
        trials.set_trial_state_values(first, TrialState.RUNNING)
        write_params(trials, first)
        trials.set_trial_state_values(
            trials.get_all_trials(theirs)[1]._trial_id, TrialState.RUNNING
        )
        write_params(trials, trials.create_new_trial(theirs))
        lost = trials.create_new_trial(theirs)
        trials.set_trial_user_attr(
            lost, KILLED, "abandoned: 1 workers died or stopped responding while training it"
        )
        trials.set_trial_state_values(lost, TrialState.FAIL)

        ours = trials.create_new_study([StudyDirection.MAXIMIZE], "ours")
        study_id = store.studies.register_study(ours, "ours", {}, PRESETS).id
        claims = [claimed(store, study_id) for _ in range(4)]
        bound(store, claims[0], params())
        bound(store, claims[2], params())
        let_lapse(store, claims[3])
        assert store.leases.claim_trial(study_id, 0, "b", 600, max_lost=1) is None

        with closing(StoreLocation.parse(store_url).open_database(create=True)) as database:
            assert rows(database, ours) == rows(database, theirs)
        assert frozen(trials, ours) == frozen(trials, theirs)

    def test_reports(
        self,
        store: Store,
        trials: RDBStorage,
        theirs: int,
        ours: int,
        study_id: int,
        make_record: MakeRecord,
        store_url: str,
    ) -> None:
        """Reports of every kind of float are the same; the store does not report NaN."""
        metrics = {1: 0.1 + 0.2, 2: math.nan, 3: math.inf, 4: -math.inf, 5: 5e-324}
        trial_id = trials.create_new_trial(theirs)
        for epoch, value in metrics.items():
            if not math.isnan(value):
                trials.set_trial_intermediate_value(trial_id, epoch, value)
        claim = bound(store, claimed(store, study_id), SampledTrial())
        for epoch, value in metrics.items():
            store.epochs.append_epoch(claim, make_record(epoch, metric=value), 600)

        with closing(StoreLocation.parse(store_url).open_database(create=True)) as database:
            assert rows(database, ours) == rows(database, theirs)
        assert frozen(trials, ours) == frozen(trials, theirs)

    def test_nan_reported(
        self,
        store: Store,
        trials: RDBStorage,
        theirs: int,
        ours: int,
        study_id: int,
        store_url: str,
    ) -> None:
        """The later of two reports counts, and NaN is stored as Optuna stores it."""
        mine, other = claimed(store, study_id).optuna_trial_id, trials.create_new_trial(theirs)
        assert mine is not None
        with closing(StoreLocation.parse(store_url).open_database(create=True)) as database:
            for step, value in ((1, 0.5), (2, math.nan), (1, math.inf), (1, 0.25), (3, math.nan)):
                trials.set_trial_intermediate_value(other, step, value)
                with database.writing() as connection:
                    OptunaTables().report_value(connection, mine, step, value)
            trials.set_trial_state_values(
                other, TrialState.PRUNED
            )  # without a value, because the last report is NaN
            with database.writing() as connection:
                OptunaTables().end_trial(connection, mine, OptunaEnd("PRUNED"))
            assert rows(database, ours) == rows(database, theirs)

    def test_ends(
        self,
        store: Store,
        trials: RDBStorage,
        theirs: int,
        ours: int,
        study_id: int,
        make_record: MakeRecord,
        store_url: str,
    ) -> None:
        """The end of a trial is what `Study.tell` writes: value, constraints, attributes."""
        study = optuna.load_study(study_name="theirs", storage=trials)
        for end, metrics in ENDS.values():
            asked, claim = (
                OptunaTrial(study, study.ask(), is_written_by_store=False),
                bound(store, claimed(store, study_id), SampledTrial()),
            )
            for epoch, value in enumerate(metrics, 1):
                asked.report_epoch(make_record(epoch, metric=value))
                store.epochs.append_epoch(claim, make_record(epoch, metric=value), 600)
            asked.finish_trial(end)
            store.leases.finish_trial(claim, Outcome("failed"), end)

        with closing(StoreLocation.parse(store_url).open_database(create=True)) as database:
            assert rows(database, ours) == rows(database, theirs)
        assert frozen(trials, ours) == frozen(trials, theirs)

    def test_time(
        self, store: Store, trials: RDBStorage, ours: int, study_id: int, theirs: int
    ) -> None:
        """A trial starts at the time that Optuna's class would write, in the same time zone."""
        claimed(store, study_id)
        trials.create_new_trial(theirs)
        (one,), (other,) = trials.get_all_trials(ours), trials.get_all_trials(theirs)
        assert one.datetime_start is not None
        assert other.datetime_start is not None
        assert abs(one.datetime_start - other.datetime_start) < timedelta(minutes=10)

    def test_version(self, trials: RDBStorage) -> None:
        """The installed Optuna has the version of tables that the store knows."""
        assert trials.get_head_version() == SCHEMA


class TestTake:
    def test_waiting_first(
        self, store: Store, trials: RDBStorage, ours: int, study_id: int
    ) -> None:
        """Enqueued trials are started before new ones, by number, also when enqueued later."""
        numbers = [claimed(store, study_id).number]
        study = optuna.load_study(study_name="ours", storage=trials)
        for rate in (0.1, 0.2):
            study.enqueue_trial({"rate": rate})
        numbers += [claimed(store, study_id).number for _ in range(3)]
        assert numbers == [0, 1, 2, 3]
        assert [trial.system_attrs.get("fixed_params") for trial in study.trials] == [
            None,
            {"rate": 0.1},
            {"rate": 0.2},
            None,
        ]
        assert {trial.state for trial in study.trials} == {TrialState.RUNNING}

    def test_beside_optuna(
        self, store: Store, trials: RDBStorage, ours: int, study_id: int
    ) -> None:
        """Trials of another program get numbers in between, and are seen by Optuna's class."""
        study = optuna.load_study(study_name="ours", storage=trials)
        numbers = [
            claimed(store, study_id).number,
            study.ask().number,
            claimed(store, study_id).number,
            study.ask().number,
        ]
        assert numbers == [0, 1, 2, 3]
        study.tell(1, 0.5)
        assert [(trial.number, trial.state.name) for trial in study.trials] == [
            (0, "RUNNING"),
            (1, "COMPLETE"),
            (2, "RUNNING"),
            (3, "RUNNING"),
        ]

    def test_taken_over(self, store: Store, study_id: int) -> None:
        """The trial of a worker that died before sampling is resumed under the same number."""
        claim = claimed(store, study_id)
        let_lapse(store, claim)
        taken = store.leases.claim_trial(study_id, 1, "b", 600)
        assert taken == Claim(
            claim.trial_id, study_id, 2, False, claim.number, claim.optuna_trial_id
        )

    def test_own_study(self, store: Store, trials: RDBStorage, study_id: int, theirs: int) -> None:
        """The trials of another study are neither counted nor started."""
        trials.create_new_trial(theirs)
        trials.create_new_trial(theirs, create_trial(state=TrialState.WAITING))
        claim = claimed(store, study_id)
        assert claim.number == 0
        assert [trial.state for trial in trials.get_all_trials(theirs)] == [
            TrialState.RUNNING,
            TrialState.WAITING,
        ]

    def test_study_gone(self, store: Store, trials: RDBStorage, ours: int, study_id: int) -> None:
        """Without the study in Optuna's tables no trial is started; Optuna raises KeyError."""
        trials.delete_study(ours)
        assert (claimed(store, study_id).number, claimed(store, study_id).optuna_trial_id) == (
            None,
            None,
        )


class TestBind:
    def test_lost(self, store: Store, trials: RDBStorage, ours: int, study_id: int) -> None:
        """A worker that lost its trial cannot write to Optuna's tables either."""
        claim = claimed(store, study_id)
        let_lapse(store, claim)
        assert store.leases.claim_trial(study_id, 1, "b", 600)
        with pytest.raises(LeaseLostError):
            bound(store, claim, params())
        (trial,) = trials.get_all_trials(ours)
        assert (trial.params, trial.system_attrs) == ({}, {})

    def test_again(self, store: Store, trials: RDBStorage, ours: int, study_id: int) -> None:
        """The sampler's attributes of an earlier attempt are replaced."""
        claim = claimed(store, study_id)
        assert claim.optuna_trial_id is not None
        trials.set_trial_system_attr(
            claim.optuna_trial_id, "tpe:relative_params:0", "of an attempt that died"
        )
        bound(store, claim, params())
        (trial,) = trials.get_all_trials(ours)
        assert trial.system_attrs == {"tpe:relative_params:0": SHARED}
        assert trial.params == {name: value for name, value, _ in PARAMS}

    def test_nothing_sampled(
        self, store: Store, trials: RDBStorage, ours: int, study_id: int
    ) -> None:
        """A trial may have no hyperparameters."""
        bound(store, claimed(store, study_id), SampledTrial())
        assert [trial.params for trial in trials.get_all_trials(ours)] == [{}]


class TestReport:
    def test_resumed(
        self, store: Store, trials: RDBStorage, ours: int, study_id: int, make_record: MakeRecord
    ) -> None:
        """An epoch of a newer attempt replaces its report, and deletes later ones everywhere."""
        claim = bound(store, claimed(store, study_id), SampledTrial())
        for epoch in (1, 2, 3):
            store.epochs.append_epoch(claim, make_record(epoch, metric=epoch / 10), 600)
        let_lapse(store, claim)
        taken = store.leases.claim_trial(study_id, 1, "b", 600)
        assert taken is not None
        store.epochs.append_epoch(taken, make_record(2, metric=0.9), 600)
        assert trials.get_all_trials(ours)[0].intermediate_values == {1: 0.1, 2: 0.9}
        store.epochs.forget_epochs_after(taken, 0)
        assert trials.get_all_trials(ours)[0].intermediate_values == {}

    def test_lost(
        self, store: Store, trials: RDBStorage, ours: int, study_id: int, make_record: MakeRecord
    ) -> None:
        """A worker that lost its trial neither reports nor ends it in Optuna's tables."""
        claim = bound(store, claimed(store, study_id), SampledTrial())
        let_lapse(store, claim)
        assert store.leases.claim_trial(study_id, 1, "b", 600)
        for write in (
            lambda: store.epochs.append_epoch(claim, make_record(1), 600),
            lambda: store.leases.finish_trial(claim, Outcome("failed"), OptunaEnd("FAIL")),
        ):
            with pytest.raises(LeaseLostError):
                write()
        (trial,) = trials.get_all_trials(ours)
        assert (trial.state, trial.intermediate_values) == (TrialState.RUNNING, {})

    def test_ended_there(
        self, store: Store, trials: RDBStorage, ours: int, study_id: int, make_record: MakeRecord
    ) -> None:
        """A trial that ended in Optuna's tables only keeps that end while ours is written."""
        claim = bound(store, claimed(store, study_id), SampledTrial())
        assert claim.optuna_trial_id is not None
        trials.set_trial_intermediate_value(claim.optuna_trial_id, 1, 0.5)
        trials.set_trial_state_values(claim.optuna_trial_id, TrialState.COMPLETE, [0.5])
        store.epochs.append_epoch(claim, make_record(1, metric=0.25), 600)
        store.epochs.forget_epochs_after(claim, 0)
        store.leases.finish_trial(
            claim, Outcome("failed"), OptunaEnd("FAIL", user_attrs={KILLED: "why"})
        )
        (trial,) = trials.get_all_trials(ours)
        assert (trial.state, trial.value, trial.intermediate_values, trial.user_attrs) == (
            TrialState.COMPLETE,
            0.5,
            {1: 0.5},
            {},
        )
        assert [line.state for line in store.trials.list_trials(study_id)] == ["failed"]


class TestRegister:
    def test_once(self, store: Store, trials: RDBStorage, ours: int) -> None:
        """Only the process that registers the study enqueues its presets."""
        for _ in range(2):
            store.studies.register_study(ours, "ours", {}, PRESETS)
        with pytest.raises(StoreError, match="conflicts"):
            store.studies.register_study(ours, "other", {}, PRESETS)
        assert [trial.user_attrs["preset"] for trial in trials.get_all_trials(ours)] == [
            "safe",
            "bold",
        ]


class TestGiveUp:
    def test_ended_there(self, store: Store, trials: RDBStorage, ours: int, study_id: int) -> None:
        """A trial whose last worker still wrote its end to Optuna's tables keeps that end."""
        claim = claimed(store, study_id)
        assert claim.optuna_trial_id is not None
        trials.set_trial_state_values(claim.optuna_trial_id, TrialState.COMPLETE, [0.5])
        let_lapse(store, claim)
        assert store.leases.claim_trial(study_id, 0, "b", 600, max_lost=1) is None
        (trial,) = trials.get_all_trials(ours)
        assert (trial.state, trial.value, trial.user_attrs) == (TrialState.COMPLETE, 0.5, {})


class TestOtherVersion:
    @pytest.fixture
    def other(self, study_id: int, store_url: str) -> None:
        """Give Optuna's tables another version."""
        with (
            closing(StoreLocation.parse(store_url).open_database(create=True)) as database,
            database.writing() as connection,
        ):
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = 'v9.9.9.a'"))

    def test_untouched(
        self,
        other: None,
        store: Store,
        trials: RDBStorage,
        ours: int,
        study_id: int,
        make_record: MakeRecord,
    ) -> None:
        """Tables of an unknown version are written by Optuna's class only."""
        assert not store.knows_optuna()
        claim = claimed(store, study_id)
        assert (claim.number, claim.optuna_trial_id) == (None, None)
        asked = optuna.load_study(study_name="ours", storage=trials).ask()
        claim = store.leases.record_optuna_trial(claim, asked.number, asked._trial_id)
        store.epochs.append_epoch(claim, make_record(1), 600)
        let_lapse(store, claim)
        assert store.leases.claim_trial(study_id, 0, "b", 600, max_lost=1) is None
        store.leases.finish_trial(claimed(store, study_id), Outcome("failed"), OptunaEnd("FAIL"))
        assert [
            (trial.state, trial.intermediate_values) for trial in trials.get_all_trials(ours)
        ] == [(TrialState.RUNNING, {})]

    def test_known(self, store: Store, study_id: int) -> None:
        """Tables of the known version are written by the store."""
        assert store.knows_optuna()
