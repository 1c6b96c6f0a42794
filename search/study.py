"""Optuna, adapted: its study, sampler and pruner, made from a plan. One of the few files that know Optuna."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from search.history import DistinctGroups, History
from search.optuna_storage import HoldingStorage
from search.plan import Params, Plan
from search.pruners.median import Peers
from search.pruners.peers import build_pruner
from search.seeds import derive
from spaces.errors import StoreError
from spaces.parameters import Choice, FloatRange, Parameter
from spaces.study import StudySpec
from storage.address import optuna_url, safe_url
from storage.engine import tune
from storage.optuna_schema import MADE_BY
from storage.rows import Sampled, Waiting

PRESET = "preset"
"""User attribute of a trial that a preset was enqueued for."""

REMEDY = "remedy"
"""User attribute of a trial that tries what was prescribed to another one: `of` which, its `preset`, and the `patch` outside the space."""

MAKING_TRIES = 50
MADE_TWICE = re.compile("already exists|unique constraint|duplicate entry|deadlock found", re.IGNORECASE)
"""What a database says when another process was faster in making a table, or its row."""


class TrialSeededSampler(BaseSampler):
    """A fresh sampler for every trial, seeded by (study seed, trial number).

    Optuna's samplers draw from one stream per process, so what a trial is given depends on which worker asks and on
    what that worker asked before. Here it depends on the trial's number and on the finished trials alone.
    """

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self._made: tuple[int, BaseSampler] | None = None

    def for_trial(self, number: int) -> BaseSampler:
        """The sampler of one trial; the same object for all of its dimensions."""
        if self._made is None or self._made[0] != number:
            self._made = (number, _sampler(self.spec, derive(self.spec.seed, number, "sampler")))
        return self._made[1]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The dimensions that are sampled together."""
        return self.for_trial(trial.number).infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Their values."""
        return self.for_trial(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """The value of a dimension outside the joint space."""
        return self.for_trial(trial.number).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Bookkeeping of the sampler, such as its constraints."""
        self.for_trial(trial.number).after_trial(study, trial, state, values)


def _sampler(spec: StudySpec, seed: int) -> BaseSampler:
    if spec.sampler.kind == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # group: a conditional dimension is sampled jointly with those that always stand beside it.
        sampler = TPESampler(
            n_startup_trials=spec.sampler.startup_trials, n_ei_candidates=spec.sampler.candidates,
            multivariate=True, group=True, constant_liar=True, seed=seed,
        )  # fmt: skip
    sampler._group_decomposed_search_space = DistinctGroups(include_pruned=True)  # noqa: SLF001
    return sampler


def open_trials(url: str) -> RDBStorage:
    """Optuna's storage on the store's database, tuned as our own tables are."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = _with_tables(_without_templates(optuna_url(url)))
    except RuntimeError as problem:
        if "no longer compatible" not in str(problem):
            raise
        raise StoreError(
            "Optuna's tables in the store are of another version than the Optuna that is installed", where=safe_url(url),
            found=str(problem).split(" Please")[0], next_step="search store migrate, if they are older; else install that newer Optuna",
        ) from None  # fmt: skip
    tune(storage.engine)
    return storage


def _without_templates(url: str) -> str:
    """Optuna takes braces in an address for a template of its own."""
    return url.replace("{", "{{").replace("}", "}}")


def any_version(url: str) -> RDBStorage:
    """Optuna's storage on tables of whatever version, to be asked for it, or to upgrade them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return RDBStorage(_without_templates(optuna_url(url)), skip_compatibility_check=True, skip_table_creation=True)


def close_trials(storage: RDBStorage) -> None:
    """Close its connections, the pooled ones as well."""
    storage.remove_session()
    storage.engine.dispose()


def _with_tables(url: str) -> RDBStorage:
    """Optuna makes its tables without a lock: when two processes do so at once, one fails, and has to ask again."""
    for _ in range(MAKING_TRIES):
        try:
            return RDBStorage(url)
        except Exception as problem:  # of SQLAlchemy, in the words of either database
            if not MADE_TWICE.search(str(problem)):
                raise
            time.sleep(0.1)
    return RDBStorage(url)


class WorkerStudy(optuna.Study):
    """A study as a worker needs it: it takes up trials that the store made, and reads its past no more often than needed.

    Args:
        completed: tells how many trials are complete.
        peers: the curves of complete trials, and
        history: what the sampler learns from; None where the store does not know Optuna's tables, for Optuna's class to read them.
    """

    def __init__(
        self, storage: RDBStorage, plan: Plan, name: str, completed: Callable[[], int],
        peers: Peers | None = None, history: History | None = None,
    ) -> None:  # fmt: skip
        self._holding = HoldingStorage(storage, history)
        super().__init__(name, cast(BaseStorage, self._holding), sampler=TrialSeededSampler(plan.spec), pruner=build_pruner(plan.spec))
        self._completed, self._engine = completed, storage.engine
        self.peers = peers
        self._complete: tuple[int, list[FrozenTrial]] | None = None

    def take(self, trial_id: int) -> Trial:
        """A trial that runs already, to be sampled from all that is known by now, as `ask` does with a new one."""
        self._thread_local.cached_all_trials = None
        return Trial(self, trial_id)

    def sample(self, trial: Trial, plan: Plan) -> tuple[Params, Sampled]:
        """What `suggest` gives, and what Optuna's tables are to hold of it; nothing is written."""
        with self._holding.holding() as held:
            params = suggest(trial, plan)
        return params, held.sampled()

    def rest(self) -> None:
        """Close Optuna's connections to a server: while a trial trains, a worker needs the store's one alone."""
        if self._engine.dialect.name != "sqlite":
            self._engine.dispose()

    def peers_at(self, epoch: int) -> Sequence[float]:
        """The metrics of the complete trials at one epoch, of those that have one."""
        if self.peers is not None:
            return self.peers.at(epoch)
        complete = self.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial.intermediate_values[epoch] for trial in complete if epoch in trial.intermediate_values]

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """As Optuna's, but complete trials that need no copy are read again only when there are more of them.

        A pruner asks for them after every epoch, and Optuna then reads every open trial of the study with all its epochs
        to see which have ended. Complete trials do not change, and the store knows by one short query how many there are.
        """
        if deepcopy or states != (TrialState.COMPLETE,):
            return super().get_trials(deepcopy, states)
        completed = self._completed()
        if self._complete is None or self._complete[0] != completed:
            self._complete = (completed, super().get_trials(deepcopy=False, states=states))
        return self._complete[1]


def make_study(storage: RDBStorage, plan: Plan, name: str) -> optuna.Study:
    """The Optuna study called `name`, made when it is not there, and marked as ours."""
    study = optuna.create_study(storage=storage, study_name=name, direction=plan.spec.metric.direction, load_if_exists=True)
    study.set_user_attr(MADE_BY, True)
    return study


def waiting_presets(study: optuna.Study, plan: Plan) -> list[Waiting]:
    """The presets, to be tried first; without those that a start before this one, cut short, has enqueued."""
    held = {trial.user_attrs.get(PRESET) for trial in study.get_trials(deepcopy=False)}
    return [Waiting(plan.preset_params(name), {PRESET: name}) for name in plan.spec.presets if name not in held]


def enqueue(study: optuna.Study, waiting: Sequence[Waiting]) -> None:
    """Have them tried first, by Optuna's own hand."""
    for each in waiting:
        study.enqueue_trial(dict(each.params), user_attrs=dict(each.user_attrs))


class Start(NamedTuple):
    """What an enqueued trial starts from, over the study's base.

    Attributes:
        preset: the name of a preset, or None.
        patch: what a remedy changed outside the space, by dotted path.
        label: in words, for the store.
    """

    preset: str | None
    patch: Mapping[str, Any]
    label: str | None


def start_of(user_attrs: Mapping[str, Any]) -> Start:
    """From a trial's user attributes."""
    remedy = user_attrs.get(REMEDY)
    if remedy is not None:
        return Start(remedy["preset"], remedy["patch"], f"remedy of {remedy['of']}")
    return Start(user_attrs.get(PRESET), {}, user_attrs.get(PRESET))


def suggest(trial: Trial, plan: Plan) -> Params:
    """Sample every dimension that exists for this trial; what was sampled or enqueued for it before stays."""
    params: Params = {}
    for path, dimension in plan.dimensions(plan.below(*start_of(trial.user_attrs)[:2]), params):
        params[path] = _suggest(trial, path, dimension)
    return params


def _suggest(trial: Trial, path: str, dimension: Parameter) -> Any:
    distribution = distribution_of(dimension)
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(path, distribution.choices)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(path, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    return trial.suggest_int(path, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def distribution_of(dimension: Parameter) -> CategoricalDistribution | FloatDistribution | IntDistribution:
    """Optuna's type for a dimension."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.choices)
    if isinstance(dimension, FloatRange):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
