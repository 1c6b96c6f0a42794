"""Optuna's samplers for a plan: a trial's values depend on its number and on finished trials."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from search.planning.plan import Params, Plan
from search.planning.random_seeds import derive_seed
from search.sampling.history import DistinctGroups
from search.sampling.named_sampler import make_named_sampler
from spaces.parameters import Choice, FloatRange, Parameter
from spaces.study import CURVE_KINDS, StudySpec
from storage.tables.optuna_tables import CONFIRM, REMEDY

PRESET = "preset"
"""User attribute of an enqueued trial: the name of its preset."""

MakeCurveSampler = Callable[[int], BaseSampler]
"""Makes the sampler of one of these kinds from a seed."""


class TrialSeededSampler(BaseSampler):
    """A fresh sampler for every trial, seeded by (study seed, trial number).

    Optuna's samplers draw from one stream per process, so that a trial's values depend on which
    worker asks, and on what it asked before. Here they depend on the trial's number and on the
    finished trials.

    Args:
        spec: of the study.
        make_curve_sampler: makes the sampler of the kinds that decide by learning curves.
    """

    def __init__(self, spec: StudySpec, make_curve_sampler: MakeCurveSampler | None = None) -> None:
        self.spec = spec
        self._make_curve_sampler = make_curve_sampler
        self._cached: tuple[int, BaseSampler] | None = None

    def for_trial(self, number: int) -> BaseSampler:
        """The sampler of one trial; the same object for all of its dimensions."""
        if self._cached is None or self._cached[0] != number:
            seed = derive_seed(self.spec.seed, number, "sampler")
            self._cached = (number, self._make_sampler(seed))
        return self._cached[1]

    def _make_sampler(self, seed: int) -> BaseSampler:
        kind = self.spec.sampler.kind
        if kind in CURVE_KINDS:
            assert self._make_curve_sampler is not None
            return self._make_curve_sampler(seed)
        if kind == "optuna":
            return make_named_sampler(self.spec.sampler, seed)
        return _make_sampler(self.spec, seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The dimensions that are sampled jointly."""
        return self.for_trial(trial.number).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample the dimensions of the joint space."""
        return self.for_trial(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Sample a dimension outside the joint space."""
        return self.for_trial(trial.number).sample_independent(
            study, trial, param_name, param_distribution
        )

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Record the trial's constraints, as the sampler does."""
        self.for_trial(trial.number).after_trial(study, trial, state, values)


def _make_sampler(spec: StudySpec, seed: int) -> BaseSampler:
    if spec.sampler.kind == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # group: a conditional dimension is sampled jointly with those that always exist with it.
        sampler = TPESampler(
            n_startup_trials=spec.sampler.startup_trials,
            n_ei_candidates=spec.sampler.candidates,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )
    sampler._group_decomposed_search_space = DistinctGroups(include_pruned=True)  # noqa: SLF001
    return sampler


class Start(NamedTuple):
    """The configuration that an enqueued trial starts from, on top of the study's base.

    Attributes:
        preset: the name of a preset, or None.
        patch: values outside the search space, of a remedy or of a confirmed trial, by dotted path.
        label: for the store.
        seed: of the trial whose remedy this one tries, or of a confirmation; None for a seed of its
            own.
    """

    preset: str | None
    patch: Mapping[str, Any]
    label: str | None
    seed: int | None = None


def start_from_attributes(user_attrs: Mapping[str, Any]) -> Start:
    """Read the start from a trial's user attributes."""
    remedy = user_attrs.get(REMEDY)
    if remedy is not None:
        label = f"remedy of {remedy['of']}"
        return Start(remedy["preset"], remedy["patch"], label, remedy.get("seed"))
    confirm = user_attrs.get(CONFIRM)
    if confirm is not None:
        label = f"trial {confirm['of']}, seed {confirm['seed_number']}"
        return Start(None, confirm["patch"], label, confirm["seed"])
    return Start(user_attrs.get(PRESET), {}, user_attrs.get(PRESET))


def suggest_params(trial: Trial, plan: Plan) -> Params:
    """Sample every dimension that exists for this trial, and keep values it already has."""
    params: Params = {}
    start = start_from_attributes(trial.user_attrs)
    for path, dimension in plan.active_dimensions(
        plan.starting_tree(start.preset, start.patch), params
    ):
        params[path] = _suggest_value(trial, path, dimension)
    return params


def _suggest_value(trial: Trial, path: str, dimension: Parameter) -> Any:
    distribution = to_distribution(dimension)
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(path, distribution.choices)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_int(
        path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def to_distribution(
    dimension: Parameter,
) -> CategoricalDistribution | FloatDistribution | IntDistribution:
    """Convert a dimension to Optuna's type."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.choices)
    if isinstance(dimension, FloatRange):
        return FloatDistribution(
            dimension.low, dimension.high, log=dimension.log, step=dimension.step
        )
    return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
