"""Where a remedied configuration is in a study's search space, and what is missing if it is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from search.planning.plan import Params, Plan, complete_config
from spaces.config_tree import ConfigTree
from spaces.errors import InputError, StudyError
from spaces.loader import explain
from spaces.parameters import Choice, Parameter, Scalar, is_active
from spaces.presets import first_name
from spaces.records import Diagnosis, Remedy
from spaces.study import StudySpec
from spaces.yaml_values import format_assignment
from storage.rows import EnqueuedTrial, StoredTrial
from storage.tables.optuna_tables import REMEDY


@dataclass(frozen=True, slots=True)
class Widening:
    """A change of a dimension, after which it contains a remedy's value.

    Attributes:
        path: of the dimension.
        key: what changes: `low`, `high` or `choices`.
    """

    path: str
    key: str
    old: Any
    new: Any

    @property
    def assignment(self) -> str:
        """The change for `--set`: `space.optimizer.lr_multiple.high=1`."""
        return format_assignment(f"space.{self.path}.{self.key}", self.new)

    def __str__(self) -> str:
        change = f"space.{self.path}: {self.key} {_show_bound(self.old)}"
        return f"{change} → {_show_bound(self.new)}"


@dataclass(frozen=True, slots=True)
class RemedyPlace:
    """A remedied configuration as values in the search space and changes outside of it.

    Attributes:
        params: values of dimensions, by path. A dimension that exists only with the remedy, so that
            the trial has no value for it, is sampled.
        patch: changes of what the study does not search.
        excluded: dimensions that do not contain the remedy's value, with that value.
        widenings: changes of these dimensions; a dimension for which there is none is left out.
        problem: why the values do not fit together; None where they do.
    """

    params: Params
    patch: Mapping[str, Any]
    excluded: Mapping[str, Scalar]
    widenings: tuple[Widening, ...]
    problem: InputError | None = None

    @property
    def is_inside(self) -> bool:
        """Whether the study can try the remedy."""
        return not self.excluded and self.problem is None


def locate_in_space(plan: Plan, config: Mapping[str, Any], remedy: Remedy) -> RemedyPlace:
    """Split a remedied configuration into values in the search space and changes outside.

    Args:
        plan: of the study.
        config: the configuration of the trial, nested.
        remedy: of the trial.
    """
    patch = ConfigTree.from_paths(remedy.patch)
    try:
        values = complete_config(plan.objective, ConfigTree(config).overlay(patch))
    except ValidationError as problem:
        explained = explain(problem, "the trial's configuration with the remedy", StudyError)
        return RemedyPlace({}, {}, {}, (), explained)
    params: Params = {}
    excluded: dict[str, Scalar] = {}
    for path in plan.order:
        dimension = plan.spec.space[path]
        if not is_active(dimension.when, values):
            continue
        if dimension.contains(values[path]):
            params[path] = values[path]
        elif path in remedy.patch:
            excluded[path] = values[path]
    found = [_find_widening(path, plan.spec.space[path], excluded[path]) for path in excluded]
    outside = {path: value for path, value in remedy.patch.items() if path not in params}
    return RemedyPlace(params, outside, excluded, tuple(each for each in found if each is not None))


def locate_by_space(spec: StudySpec, remedy: Remedy) -> RemedyPlace:
    """Split a remedy likewise by the search space alone, without the objective's configuration.

    Whether the values fit together is known only when the remedy is tried.
    """
    inside = {path: value for path, value in remedy.patch.items() if path in spec.space}
    params = {path: value for path, value in inside.items() if spec.space[path].contains(value)}
    excluded = {path: value for path, value in inside.items() if path not in params}
    found = [_find_widening(path, spec.space[path], value) for path, value in excluded.items()]
    outside = {path: value for path, value in remedy.patch.items() if path not in inside}
    return RemedyPlace(params, outside, excluded, tuple(each for each in found if each is not None))


def make_remedy_trial(
    plan: Plan,
    trial: StoredTrial,
    choice: int,
    diagnosis: Diagnosis,
    *,
    by_sampler: bool = False,
) -> EnqueuedTrial | None:
    """Make the trial that tries a remedy of another one; None where the space lacks it.

    Args:
        plan: of the study.
        trial: whose remedy it is.
        choice: which of the remedies, counted from 1.
        diagnosis: of the trial.
        by_sampler: whether no person asked for it.
    """
    remedy = diagnosis.remedies[choice - 1]
    place = locate_in_space(plan, trial.config or {}, remedy)
    if not remedy.patch or not place.is_inside:
        return None
    named = first_name(trial.preset or "")
    preset = named if named in plan.spec.presets else None
    tried = {
        "of": trial.number,
        "preset": preset,
        "patch": {**_find_values_outside(plan, trial, preset), **place.patch},
        "choice": choice,
        "title": remedy.title,
        "cause": diagnosis.cause,
        "by_sampler": by_sampler,
        "seed": (trial.config or {}).get("seed"),
    }
    return EnqueuedTrial(place.params, {REMEDY: tried})


def _find_values_outside(plan: Plan, trial: StoredTrial, preset: str | None) -> dict[str, Any]:
    """The values that a trial has from an earlier remedy, outside of base, preset and space."""
    sampled = set(plan.spec.space)
    given = ConfigTree(trial.config or {})
    params = {path: given[path] for path in sampled if path in given}
    usual = ConfigTree(plan.make_config(params, trial.number or 0, preset).model_dump(mode="json"))
    return {
        path: value
        for path, value in given.items()
        if path not in sampled and path != "seed" and usual.get(path) != value
    }


def _find_widening(path: str, dimension: Parameter, value: Scalar) -> Widening | None:
    """The change of a dimension that makes it contain a value; None where no bound does."""
    if isinstance(dimension, Choice):
        return Widening(path, "choices", dimension.choices, (*dimension.choices, value))
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    key = "low" if value < dimension.low else "high"
    wider = dimension.model_copy(update={key: value})
    if not wider.contains(value) or (dimension.log and value <= 0):
        return None
    return Widening(path, key, getattr(dimension, key), _round_outward(value, key))


def _round_outward(value: float, key: str) -> float:
    """Round a bound to three digits, so that the range still contains the value."""
    if isinstance(value, int) or not value:
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    steps = math.ceil(value / unit - 1e-9) if key == "high" else math.floor(value / unit + 1e-9)
    return float(f"{steps * unit:.3g}")


def _show_bound(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_show_bound, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
