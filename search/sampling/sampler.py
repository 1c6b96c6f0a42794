"""Optuna's samplers, made from a plan: what a trial is given follows from its number and from the finished trials alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
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
from search.planning.seeds import derive_seed
from search.sampling.history import DistinctGroups
from spaces.parameters import Choice, FloatRange, Parameter
from spaces.study import StudySpec

PRESET = "preset"
"""User attribute of a trial that a preset was enqueued for."""

REMEDY = "remedy"
"""User attribute of a trial that tries what was prescribed to another one: `of` which, its `preset`, and the `patch` outside the space."""


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
            self._made = (
                number,
                _sampler(self.spec, derive_seed(self.spec.seed, number, "sampler")),
            )
        return self._made[1]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The dimensions that are sampled together."""
        return self.for_trial(trial.number).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Their values."""
        return self.for_trial(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of a dimension outside the joint space."""
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
        """Bookkeeping of the sampler, such as its constraints."""
        self.for_trial(trial.number).after_trial(study, trial, state, values)


def _sampler(spec: StudySpec, seed: int) -> BaseSampler:
    if spec.sampler.kind == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # group: a conditional dimension is sampled jointly with those that always stand beside it.
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
        return trial.suggest_float(
            path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_int(
        path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def distribution_of(
    dimension: Parameter,
) -> CategoricalDistribution | FloatDistribution | IntDistribution:
    """Optuna's type for a dimension."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.choices)
    if isinstance(dimension, FloatRange):
        return FloatDistribution(
            dimension.low, dimension.high, log=dimension.log, step=dimension.step
        )
    return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
