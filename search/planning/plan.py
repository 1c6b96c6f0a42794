"""Check a study before any training, and make the configuration of each of its trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from objectives.config import TrainingConfig
from objectives.contract import Objective
from objectives.registry import objective
from objectives.schedules import settled_from
from search.planning.base_rate import base_tree, check_probe, probe_warnings
from search.planning.effects import check_effects, check_preset_effects, check_weight_averaging
from search.planning.metric_choice import choose_metric
from search.planning.random_seeds import derive_seed
from search.planning.study_error import study_error
from spaces.config import TrialConfig
from spaces.config_tree import ConfigTree
from spaces.errors import nearest
from spaces.loader import explain
from spaces.parameters import Choice, Parameter, Scalar, extremes, is_active
from spaces.presets import first_name, make_preset
from spaces.study import StudySpec

Params = dict[str, Scalar]
"""Dotted path → sampled value."""

NO_BOUND = 1e300
"""A bound that no finite gradient norm reaches."""

NOT_SEARCHED = {
    "objective",
    "epochs",
    "seed",
    "max_grad_norm",
    "metric.name",
    "metric.direction",
    "metric.score",
    "schedule.stages",
}
"""Leaves of a configuration that the study itself decides, or that are no single value."""

FOCAL_ONLY = {"loss.gamma", "loss.alpha", "loss.alpha_tau", "loss.class_alpha"}

NEUTRAL = 1.0
"""The factor of a name that a section of named factors, such as `loss.class_alpha`, lacks."""


@dataclass(frozen=True)
class Plan:
    """A study that was checked. `make_plan` makes one.

    Attributes:
        base_lr: what the probe of the learning rate found, for a base with `optimizer.base_lr:
            auto`; None: the objective's default.
    """

    spec: StudySpec
    objective: Objective
    order: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())
    base_lr: float | None = None

    def make_config(
        self,
        params: Mapping[str, Scalar],
        number: int,
        preset_name: str | None = None,
        patch: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> TrialConfig:
        """Make the complete configuration of a trial.

        Args:
            params: dotted path → sampled value.
            number: of the trial; its seed follows from it, unless one is given.
            preset_name: the preset that it starts from, if any.
            patch: dotted path → value of what a remedy changed outside the space.
            seed: of the trial whose remedy this one tries, so that both train with the same.

        Raises:
            StudyError: when the values exclude each other.
        """
        decided: dict[str, Any] = {
            "objective": self.spec.objective,
            "epochs": self.spec.epochs,
            "metric": self.spec.metric.model_dump(),
            "seed": derive_seed(self.spec.seed, number, "training") if seed is None else seed,
        }
        if "max_grad_norm" in self.objective.config.model_fields:
            bound = self.spec.signals.gradient_explosion
            decided["max_grad_norm"] = bound.max_norm if bound.enabled else NO_BOUND
        sampled = ConfigTree.from_paths(params)
        tree = self.starting_tree(preset_name, patch).overlay(sampled).overlay(ConfigTree(decided))
        try:
            return self.objective.config.model_validate(tree.nested)
        except ValidationError as problem:
            raise explain(problem, f"study {self.spec.name}, trial {number}") from None

    def first_config(self) -> TrialConfig:
        """Make the configuration that data and model are checked with before any trial.

        It is the base with every searched factor by name, since such a name may be wrong.
        """
        sections = set(named_factors(self.objective.config))
        factors = {
            path: NEUTRAL
            for path, dimension in self.spec.space.items()
            if _section_of(path) in sections and not dimension.when
        }
        return self.make_config(factors, 0)

    def starting_tree(
        self, preset_name: str | None, patch: Mapping[str, Any] | None = None
    ) -> ConfigTree:
        """Return what sampled values are laid over: the base with preset and patch, if any."""
        tree = base_tree(self.spec, self.base_lr)
        if preset_name:
            preset = make_preset(
                first_name(preset_name), self.spec.epochs, focal=self._presets_are_focal()
            )
            tree = tree.overlay(ConfigTree(preset))
        return tree.overlay(ConfigTree.from_paths(patch or {}))

    def complete_values(self, preset_name: str | None) -> ConfigTree:
        """Return the same as a complete configuration, with the default of each missing value."""
        return complete_config(self.objective, self.starting_tree(preset_name))

    def preset_params(self, preset_name: str) -> Params:
        """Return the values that a preset has for the dimensions that are active under it.

        Raises:
            StudyError: when a value is outside its dimension, or does not fit the base.
        """
        try:
            values = self.complete_values(preset_name)
        except ValidationError as problem:
            raise explain(
                problem, f"study {self.spec.name}, the preset {preset_name!r} over the base"
            ) from None
        params: Params = {}
        for path in self.order:
            dimension = self.spec.space[path]
            if not is_active(dimension.when, values):
                continue
            value = values.get(path, NEUTRAL)
            if not dimension.contains(value):
                raise study_error(
                    self.spec,
                    ("space", path),
                    f"the preset {preset_name!r} is outside the space",
                    found=str(value),
                    allowed=str(dimension),
                    next_step=f"widen the dimension, or leave {preset_name!r} out of presets",
                )
            params[path] = value
        return params

    def active_dimensions(
        self, below: ConfigTree, params: Params
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield the active dimensions, parents first.

        `params` is read again for each dimension, so that a choice decides which ones follow.
        """
        fixed = complete_config(self.objective, below)
        for path in self.order:
            if is_active(self.spec.space[path].when, {**fixed, **params}):
                yield path, self.spec.space[path]

    def _presets_are_focal(self) -> bool:
        searched = {*self.spec.space, *map(_section_of, self.spec.space)}
        return "loss.kind" not in self.spec.space and bool(FOCAL_ONLY & searched)


def complete_config(kind: Objective, tree: ConfigTree) -> ConfigTree:
    """Return the configuration with the default of each value that `tree` lacks.

    Raises:
        ValidationError: when the objective does not accept it.
    """
    return ConfigTree(kind.config.model_validate(tree.nested).model_dump())


def make_plan(spec: StudySpec, base_lr: float | None = None) -> Plan:
    """Check a study completely.

    Args:
        spec: the study.
        base_lr: see `Plan`.

    Raises:
        StudyError: for the first problem.
    """
    kind = objective(spec.objective)
    spec = choose_metric(spec, kind)
    check_probe(spec, kind)
    _check_base(spec, kind)
    _check_paths(spec, kind)
    plan = Plan(spec, kind, _parents_first(spec), base_lr=base_lr)
    _check_bounds(plan)
    check_effects(spec, plan.complete_values(None))
    check_weight_averaging(spec, plan.complete_values(None))
    for name in spec.presets:
        check_preset_effects(spec, name, plan.preset_params(name), plan.complete_values(name))
    return replace(plan, warnings=tuple(_find_warnings(plan)))


def _check_base(spec: StudySpec, kind: Objective) -> None:
    try:
        kind.config.model_validate(base_tree(spec).nested)
    except ValidationError as problem:
        error = explain(problem, f"study {spec.name}, base")
        raise error.relocated(place=("base", *error.place)) from None
    for key in ("objective", "epochs", "seed", "metric", "max_grad_norm"):
        if key not in spec.base:
            continue
        of_study = f"{key}, at the top level"
        of_signal = "signals.gradient_explosion.max_norm"
        raise study_error(
            spec,
            ("base", key),
            f"{key} belongs to the study, not to its base",
            next_step=f"write {of_signal if key == 'max_grad_norm' else of_study}",
        )


def _check_paths(spec: StudySpec, kind: Objective) -> None:
    known = set(searchable_paths(kind.config)) - NOT_SEARCHED
    by_name = known & set(named_factors(kind.config))
    for path, dimension in spec.space.items():
        if path in by_name:
            raise study_error(
                spec,
                ("space",),
                f"{path} contains a factor per name, each of them a dimension",
                found=path,
                allowed=f"{path}.NAME",
                next_step=f"write {path}.NAME for every class but one",
            )
        if path not in known and _section_of(path) not in by_name:
            raise study_error(
                spec,
                ("space",),
                f"unknown hyperparameter {path!r}{nearest(path, known)}",
                found=path,
                allowed="a path of the configuration; `search schema` lists them all",
            )
        for parent, wanted in dimension.when.items():
            if parent not in known:
                raise study_error(
                    spec,
                    ("space", path, "when"),
                    f"unknown path {parent!r} in when{nearest(parent, known)}",
                    found=parent,
                    allowed="a path of the configuration",
                )
            _check_condition(spec, path, parent, wanted if isinstance(wanted, tuple) else (wanted,))


def _check_condition(spec: StudySpec, path: str, parent: str, wanted: tuple[Scalar, ...]) -> None:
    """Check that the parent of a dimension can have a value under which the dimension is active."""
    place = ("space", path, "when")
    never = f"{path} waits for a value that {parent} never has"
    searched = spec.space.get(parent)
    if searched is None:
        fixed = complete_config(objective(spec.objective), base_tree(spec)).get(parent)
        if fixed not in wanted and not spec.presets:
            raise study_error(
                spec,
                place,
                never,
                found=f"{parent} is fixed at {fixed}",
                allowed=", ".join(map(str, wanted)),
                next_step=f"search {parent}, too, or remove the `when`",
            )
    if not isinstance(searched, Choice):
        return
    for value in wanted:
        if not searched.contains(value):
            raise study_error(spec, place, never, found=str(value), allowed=str(searched))


def searchable_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every leaf of a configuration model."""
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from searchable_paths(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def named_factors(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every section with keys of the user, such as names of classes."""
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from named_factors(inner, f"{prefix}{name}.")
        elif inner == dict[str, float]:
            yield f"{prefix}{name}"


def _section_of(path: str) -> str:
    return path.rpartition(".")[0]


def _parents_first(spec: StudySpec) -> tuple[str, ...]:
    """Order the dimensions so that every condition can be decided."""
    order: list[str] = []
    waiting = list(spec.space)
    while waiting:
        ready = [
            path
            for path in waiting
            if all(parent in order or parent not in spec.space for parent in spec.space[path].when)
        ]
        if not ready:
            raise study_error(
                spec,
                ("space",),
                "the conditions form a circle",
                found=", ".join(waiting),
                next_step="remove one of the `when`",
            )
        order += ready
        waiting = [path for path in waiting if path not in ready]
    return tuple(order)


def _check_bounds(plan: Plan) -> None:
    """Check that the configuration accepts every bound and every choice."""
    spec = plan.spec
    base = plan.starting_tree(None)
    for path in plan.order:
        for value in extremes(spec.space[path]):
            tree = base.overlay(ConfigTree.from_paths({path: value}))
            try:
                plan.objective.config.model_validate(tree.nested)
            except ValidationError as problem:
                source = f"study {spec.name}, space → {path}, tried with {value}"
                raise explain(problem, source).relocated(place=("space", path)) from None
    corner: Params = {}  # dimensions that are valid one by one may still exclude each other
    for path, dimension in plan.active_dimensions(plan.starting_tree(None), corner):
        corner[path] = extremes(dimension)[0]
    plan.make_config(corner, 0)


def _find_warnings(plan: Plan) -> Iterator[str]:
    spec = plan.spec
    if len(spec.presets) >= spec.trials:
        yield f"{spec.trials} trials leave nothing to search after the {len(spec.presets)} presets"
    if spec.sampler.kind == "auto" and spec.pruner.kind == "hyperband":
        yield (
            "the sampler auto already spends epochs step by step; beside it the pruner "
            "hyperband stops trials for good, and median or none fits better"
        )
    if "loss.alpha" in spec.space:
        yield (
            "loss.alpha is one factor for all classes: it only rescales the loss, like a second "
            "learning rate; loss.alpha_tau changes the balance"
        )
    for name in (None, *spec.presets):
        settled = _settled_epoch(plan, name)
        if settled > spec.epochs:
            yield (
                f"{f'the preset {name}' if name else 'the base'} reaches its final CE/Dice "
                f"weights, smooth and clip ratio only at epoch {settled} of {spec.epochs}"
            )
    yield from probe_warnings(spec)
    if spec.metric.score == "mean_last_5" and spec.epochs < 5:
        yield f"mean_last_5 of {spec.epochs} epochs is the mean of all"


def _settled_epoch(plan: Plan, preset_name: str | None) -> int:
    """Return the first epoch at which the schedule is over; 0 for an objective without one."""
    config = plan.objective.config.model_validate(plan.starting_tree(preset_name).nested)
    if not isinstance(config, TrainingConfig):
        return 0
    return settled_from(
        config.loss, config.optimizer, config.weights, config.schedule, plan.spec.epochs
    )
