"""Optuna studies of a plan: distributions, seeded samples, presets and constraints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

from search.planning.plan import Params, Plan, make_plan
from search.sampling.connection import open_trials
from search.sampling.first_trials import enqueue_trials, waiting_presets
from search.sampling.optuna_study import make_study
from search.sampling.sampler import PRESET, TrialSeededSampler, suggest_params, to_distribution
from search.sampling.worker_study import WorkerStudy
from spaces.errors import StoreError
from spaces.loader import load_study
from spaces.parameters import Choice, FloatRange, IntRange, Parameter
from spaces.presets import PRESETS
from spaces.study import StudySpec
from storage.location import StoreLocation


def demo(**given: Any) -> Plan:
    """A plan with a dimension of every kind, one of them conditional."""
    space = {
        "optimizer.lr_multiple": {"kind": "float", "low": 0.01, "high": 100, "log": True},
        "loss.kind": {"kind": "choice", "choices": ["ce", "focal"]},
        "loss.gamma": {
            "kind": "float",
            "low": 0,
            "high": 5,
            "step": 0.5,
            "when": {"loss.kind": "focal"},
        },
        "optimizer.accumulate": {"kind": "int", "low": 1, "high": 4},
    }
    return make_plan(
        StudySpec.model_validate(
            {
                "name": "demo",
                "space": space,
                "sampler": {"kind": "tpe", "startup_trials": 5},
                **given,
            }
        )
    )


def in_memory(plan: Plan, sampler: TrialSeededSampler | None = None) -> optuna.Study:
    """An empty study."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        direction=plan.spec.metric.direction, sampler=sampler or TrialSeededSampler(plan.spec)
    )


def open_study(trials: RDBStorage, plan: Plan) -> WorkerStudy:
    """The study `demo`, as a new worker opens it."""
    make_study(trials, plan, "demo")
    return WorkerStudy(trials, plan, "demo", count_completed=lambda: 0)


def value_of(params: Params) -> float:
    """A score that a sampler can learn from."""
    return -abs(float(params["optimizer.lr_multiple"]) - 1)  # type: ignore[arg-type]


def run_trials(study: optuna.Study, plan: Plan, trials: int) -> list[Params]:
    """The parameters of so many trials, each one finished before the next."""
    given = []
    for _ in range(trials):
        trial = study.ask()
        params = suggest_params(trial, plan)
        study.tell(trial, value_of(params))
        given.append(params)
    return given


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RDBStorage]:
    """Optuna's storage in an SQLite database."""
    storage = open_trials(
        StoreLocation.parse(f"sqlite:///{tmp_path_factory.mktemp('trials') / 'search.db'}")
    )
    yield storage
    storage.remove_session()


@pytest.fixture
def trials(database: RDBStorage) -> RDBStorage:
    """The same without a study in it."""
    for study in database.get_all_studies():
        database.delete_study(study._study_id)
    return database


class TestDistributionOf:
    @pytest.mark.parametrize(
        ("dimension", "distribution"),
        [
            (FloatRange(kind="float", low=0.1, high=5), FloatDistribution(0.1, 5)),
            (
                FloatRange(kind="float", low=0.1, high=5, log=True),
                FloatDistribution(0.1, 5, log=True),
            ),
            (FloatRange(kind="float", low=0, high=5, step=0.5), FloatDistribution(0, 5, step=0.5)),
            (IntRange(kind="int", low=1, high=9), IntDistribution(1, 9)),
            (IntRange(kind="int", low=1, high=9, step=2), IntDistribution(1, 9, step=2)),
            (IntRange(kind="int", low=1, high=9, log=True), IntDistribution(1, 9, log=True)),
            (
                Choice(kind="choice", choices=(None, True, 1.5, "a")),
                CategoricalDistribution((None, True, 1.5, "a")),
            ),
        ],
    )
    def test_each(self, dimension: Parameter, distribution: BaseDistribution) -> None:
        """Each kind of dimension has its counterpart, with the same bounds, scale and grid."""
        assert to_distribution(dimension) == distribution


class TestTrialSeededSampler:
    TRIALS = 15

    def test_anyone(self) -> None:
        """A trial is given the same values by a sampler that served all before it and by one that is new to the study, random or modelled."""
        plan = demo()
        one, many = in_memory(plan), in_memory(plan)
        expected = run_trials(one, plan, self.TRIALS)
        for number in range(self.TRIALS):
            many.sampler = TrialSeededSampler(plan.spec)
            assert run_trials(many, plan, 1) == [expected[number]]

    def test_busy(self) -> None:
        """Other trials that the same sampler served in between change nothing."""
        plan = demo()
        busy = TrialSeededSampler(plan.spec)
        aside, study = in_memory(plan, busy), in_memory(plan, busy)
        expected, found = run_trials(in_memory(plan), plan, 8), []
        run_trials(aside, plan, 10)
        for number in range(8):
            run_trials(aside, plan, 1 + number % 3)
            found += run_trials(study, plan, 1)
        assert found == expected

    def test_random_trials_alone(self) -> None:
        """A random trial does not depend on those before it at all."""
        plan = demo(sampler={"kind": "random"})
        expected, study = run_trials(in_memory(plan), plan, 6), in_memory(plan)
        for _ in range(5):
            study.ask()  # taken by others, and never sampled
        assert run_trials(study, plan, 1) == expected[5:]

    def test_another_seed(self) -> None:
        """Another study seed gives other trials, and no trial repeats another."""
        first, second = (
            run_trials(in_memory(demo(seed=seed)), demo(seed=seed), self.TRIALS) for seed in (0, 1)
        )
        assert (
            len({params["optimizer.lr_multiple"] for params in first + second}) == 2 * self.TRIALS
        )

    def test_learns(self) -> None:
        """After its random trials it looks where the scores are good."""
        plan = demo()
        rates = [
            float(params["optimizer.lr_multiple"])
            for params in run_trials(in_memory(plan), plan, 40)
        ]  # type: ignore[arg-type]
        assert sum(0.1 < rate < 10 for rate in rates[20:]) > 15

    def test_in_a_database(self, trials: RDBStorage) -> None:
        """In a database, and reopened for every trial as another worker would, the values are the same."""
        plan = demo()
        expected = run_trials(in_memory(plan), plan, 8)
        assert [run_trials(open_study(trials, plan), plan, 1) for _ in range(8)] == [
            [params] for params in expected
        ]


class TestSuggest:
    def test_conditional(self) -> None:
        """A dimension whose condition is not met is not sampled, and not recorded either."""
        plan, study = demo(), in_memory(demo())
        given = run_trials(study, plan, 20)
        kinds = [params["loss.kind"] for params in given]
        assert {"ce", "focal"} == set(kinds)
        assert [("loss.gamma" in params) for params in given] == [kind == "focal" for kind in kinds]
        assert [trial.params for trial in study.trials] == given

    def test_in_range(self) -> None:
        """Every value lies in its dimension, and the whole is a configuration."""
        plan = make_plan(load_study("combined", {"sampler.kind": "tpe"}))
        for number, params in enumerate(run_trials(in_memory(plan), plan, 25)):
            assert all(plan.spec.space[path].contains(value) for path, value in params.items())
            assert plan.make_config(params, number)

    @pytest.mark.filterwarnings("error")
    def test_presets_first(self, trials: RDBStorage) -> None:
        """The presets are tried first, in their order and where they lie in the space; then the sampler has its turn."""
        plan = make_plan(load_study("combined", {"sampler.kind": "tpe"}))
        study = open_study(trials, plan)
        enqueue_trials(study, waiting_presets(study, plan))
        asked = [study.ask() for _ in range(6)]
        assert [trial.user_attrs.get(PRESET) for trial in asked] == [
            "recommended",
            "untuned",
            "safe",
            "progressive",
            None,
            None,
        ]
        assert [suggest_params(trial, plan) for trial in asked[:4]] == [
            plan.preset_params(name) for name in plan.spec.presets
        ]
        assert "loss.gamma" not in asked[0].params
        assert all(
            plan.make_config(suggest_params(trial, plan), trial.number) for trial in asked[4:]
        )

    def test_presets_once(self, trials: RDBStorage) -> None:
        """A start that was cut short and made again enqueues only what is missing."""
        plan = make_plan(load_study("combined", {"sampler.kind": "tpe"}))
        study = open_study(trials, plan)
        study.enqueue_trial(plan.preset_params("recommended"), user_attrs={PRESET: "recommended"})
        for _ in range(2):
            enqueue_trials(study, waiting_presets(study, plan))
        assert [trial.user_attrs[PRESET] for trial in study.get_trials()] == [
            "recommended",
            "untuned",
            "safe",
            "progressive",
        ]

    def test_equal_presets(self, trials: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        """Presets that are the same complete configuration share one trial, named after them."""
        monkeypatch.setitem(PRESETS, "usual", PRESETS["recommended"])
        presets = ["recommended", "safe", "usual"]
        plan = make_plan(load_study("combined", {"presets": presets}))
        study = open_study(trials, plan)
        for _ in range(2):
            enqueue_trials(study, waiting_presets(study, plan))
        labels = [trial.user_attrs[PRESET] for trial in study.get_trials()]
        assert labels == ["recommended, usual", "safe"]
        params = suggest_params(study.ask(), plan)
        assert params == plan.preset_params("recommended")
        assert plan.make_config(params, 0, labels[0]) == plan.make_config(params, 0, "recommended")

    def test_again(self, trials: RDBStorage) -> None:
        """Asked again, by another process too, a trial keeps what it was given."""
        plan = demo()
        study = open_study(trials, plan)
        run_trials(study, plan, 6)
        trial = study.ask()
        given = suggest_params(trial, plan)
        assert suggest_params(trial, plan) == given
        assert suggest_params(Trial(open_study(trials, plan), trial._trial_id), plan) == given


class TestMakeStudy:
    @pytest.mark.parametrize(
        ("metric", "direction"),
        [({}, "MAXIMIZE"), ({"name": "val_ce", "direction": "minimize"}, "MINIMIZE")],
    )
    def test_direction(self, trials: RDBStorage, metric: dict[str, str], direction: str) -> None:
        """The study is made in its metric's direction."""
        assert make_study(trials, demo(metric=metric), "demo").direction.name == direction

    def test_again(self, trials: RDBStorage) -> None:
        """A study that is there is opened, with its trials."""
        plan = demo()
        run_trials(open_study(trials, plan), plan, 2)
        assert len(make_study(trials, plan, "demo").trials) == 2

    def test_bad_address(self) -> None:
        """An address that no store can have is refused as the store refuses it."""
        with pytest.raises(StoreError, match="a store cannot be in a database of the kind"):
            open_trials(StoreLocation.parse("oracle://host/db"))


class TestWorkerStudy:
    def test_read_again(self, trials: RDBStorage) -> None:
        """Complete trials are read again when their number has changed, and only then."""
        plan, completed = demo(), [0]
        make_study(trials, plan, "demo")
        study = WorkerStudy(trials, plan, "demo", count_completed=lambda: completed[0])

        def peers() -> list[int]:
            return [
                trial.number
                for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            ]

        assert peers() == []
        run_trials(study, plan, 2)
        assert peers() == []
        completed[0] = 2
        assert peers() == [0, 1]

    def test_others_always(self, trials: RDBStorage) -> None:
        """Other trials, and copies, are read from the database each time."""
        study = open_study(trials, demo())
        study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        run_trials(study, demo(), 1)
        study.ask()
        assert len(study.get_trials(deepcopy=False)) == 2
        assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 1
        assert len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))) == 1

    def test_sample(self, trials: RDBStorage) -> None:
        """A trial that was created elsewhere is sampled like one of `ask`, and nothing is written meanwhile."""
        plan = demo()
        expected = run_trials(in_memory(plan), plan, 9)
        study = open_study(trials, plan)
        assert run_trials(study, plan, 8) == expected[:8]
        trial = study.resume_trial(trials.create_new_trial(study._study_id))
        params, sampled = study.sample_params(trial, plan)
        assert params == trial.params == expected[8]
        assert [param.name for param in sampled.params] == list(params)
        assert list(sampled.system_attrs) == ["tpe:relative_params:0"]
        written = trials.get_trial(trial._trial_id)
        assert (written.params, written.system_attrs) == ({}, {})

    def test_take_late(self, trials: RDBStorage) -> None:
        """A trial is sampled from what all workers know by then, and not from what this one knew when it asked before."""
        plan = demo()
        expected = run_trials(in_memory(plan), plan, 9)
        late, other = open_study(trials, plan), open_study(trials, plan)
        assert run_trials(late, plan, 6) + run_trials(other, plan, 2) == expected[:8]
        assert (
            late.sample_params(late.resume_trial(trials.create_new_trial(late._study_id)), plan)[0]
            == expected[8]
        )


class TestConstraint:
    @pytest.fixture
    def kill(self) -> Callable[[optuna.Study, Trial], None]:
        """Ends a trial as one that diverged ends."""

        def end(study: optuna.Study, trial: Trial) -> None:
            trial.report(0.99, 1)
            trial.set_constraint("diverged", 1.5)
            study.tell(trial, state=TrialState.PRUNED)

        return end

    def test_not_best(self, trials: RDBStorage) -> None:
        """A trial with a constraint above 0 is never the best, whatever it scored."""
        plan = demo()
        study = open_study(trials, plan)
        for value, diverged in ((0.5, False), (0.9, True), (0.4, False)):
            trial = study.ask()
            if diverged:
                trial.set_constraint("diverged", 1.5)
            study.tell(trial, value)
        assert study.best_trial.number == 0

    def test_stays_away(self, kill: Callable[[optuna.Study, Trial], None]) -> None:
        """The sampler stays away from where trials diverge, although they led until then."""
        plan = demo(sampler={"kind": "tpe", "startup_trials": 10})
        study = in_memory(plan)
        rates = []
        for _ in range(40):
            trial = study.ask()
            rate = float(suggest_params(trial, plan)["optimizer.lr_multiple"])  # type: ignore[arg-type]
            rates.append(rate)
            if rate > 1:
                kill(study, trial)
            else:
                study.tell(trial, 0.3)
        early, late = sum(rate > 1 for rate in rates[:10]), sum(rate > 1 for rate in rates[-10:])
        assert early >= 3
        assert late < early
