"""A study checked as a whole before any GPU second is spent, and the configuration of each of its trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from objectives.config import TrainingConfig
from objectives.contract import Objective
from objectives.registry import objective
from objectives.schedules import settled_from
from search.planning.effects import check_needs, check_preset, check_swa
from search.planning.seeds import derive
from spaces.config import MetricConfig, TrialConfig
from spaces.errors import StudyError, nearest
from spaces.loader import explain
from spaces.parameters import Choice, Parameter, Scalar, active, extremes
from spaces.paths import Tree, flatten, nested, overlay
from spaces.presets import preset
from spaces.study import StudySpec

Params = dict[str, Scalar]
"""Dotted path → sampled value."""

NO_BOUND = 1e300
"""A gradient norm that no finite one passes."""

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
"""A factor by name that is not named in a section of such factors, as `loss.class_alpha` is one."""


@dataclass(frozen=True)
class Plan:
    """A study that has been found sound. Make one with `make_plan`."""

    spec: StudySpec
    objective: Objective
    order: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())

    def config(
        self,
        params: Mapping[str, Scalar],
        number: int,
        preset_name: str | None = None,
        patch: Tree | None = None,
    ) -> TrialConfig:
        """The whole configuration of a trial.

        Args:
            params: what was sampled, by dotted path.
            number: of the trial; its seed follows from it.
            preset_name: the preset that it starts from, if any.
            patch: dotted path → value of what a remedy changed outside the space.

        Raises:
            StudyError: when the values do not go together.
        """
        tree = overlay(self.below(preset_name, patch), nested(params))
        fixed: dict[str, Any] = {
            "objective": self.spec.objective,
            "epochs": self.spec.epochs,
            "metric": self.spec.metric.model_dump(),
        }
        fixed["seed"] = derive(self.spec.seed, number, "training")
        if "max_grad_norm" in self.objective.config.model_fields:
            bound = self.spec.signals.gradient_explosion
            fixed["max_grad_norm"] = bound.max_norm if bound.enabled else NO_BOUND
        tree = overlay(tree, fixed)
        try:
            return self.objective.config.model_validate(tree)
        except ValidationError as problem:
            raise explain(problem, f"study {self.spec.name}, trial {number}", StudyError) from None

    def first_config(self) -> TrialConfig:
        """What data and model are checked with before any trial: the base, with every searched factor by name, whose name may be wrong."""
        sections = set(named_factors(self.objective.config))
        return self.config(
            {
                path: NEUTRAL
                for path, dimension in self.spec.space.items()
                if _section(path) in sections and not dimension.when
            },
            0,
        )

    def below(self, preset_name: str | None, patch: Tree | None = None) -> dict[str, Any]:
        """What sampled values are laid over: the base, under the preset and the patch where there are any."""
        tree = nested(self.spec.base)
        if preset_name:
            tree = overlay(
                tree, preset(preset_name, self.spec.epochs, focal=self._presets_are_focal())
            )
        return overlay(tree, nested(patch or {}))

    def values(self, preset_name: str | None) -> dict[str, Any]:
        """The same as a whole configuration, by dotted path: what is left out has its default."""
        return dict(
            flatten(self.objective.config.model_validate(self.below(preset_name)).model_dump())
        )

    def preset_params(self, preset_name: str) -> Params:
        """Where a preset lies in the space: the values of the dimensions that exist under it.

        Raises:
            StudyError: when a value lies outside its dimension, or the preset does not go together with the base.
        """
        try:
            values = self.values(preset_name)
        except ValidationError as problem:
            raise explain(
                problem, f"study {self.spec.name}, the preset {preset_name!r} over the base"
            ) from None
        params: Params = {}
        for path in self.order:
            dimension = self.spec.space[path]
            if not active(dimension.when, values):
                continue
            value = values.get(path, NEUTRAL)
            if not dimension.holds(value):
                raise StudyError(
                    f"the preset {preset_name!r} lies outside the space",
                    where=f"study {self.spec.name}, space → {path}",
                    found=str(value),
                    allowed=str(dimension),
                    next_step=f"widen the dimension, or leave {preset_name!r} out of presets",
                )
            params[path] = value
        return params

    def dimensions(self, below: Tree, params: Params) -> Iterator[tuple[str, Parameter]]:
        """The dimensions that exist, parents first; `params` is read as it grows, so a choice decides what follows."""
        fixed = dict(flatten(self.objective.config.model_validate(below).model_dump()))
        for path in self.order:
            if active(self.spec.space[path].when, {**fixed, **params}):
                yield path, self.spec.space[path]

    def _presets_are_focal(self) -> bool:
        return "loss.kind" not in self.spec.space and bool(
            FOCAL_ONLY & {*self.spec.space, *map(_section, self.spec.space)}
        )


def make_plan(spec: StudySpec) -> Plan:
    """Check a study as a whole.

    Raises:
        StudyError: for the first thing that cannot work.
    """
    kind = objective(spec.objective)
    spec = _with_metric(spec, kind)
    _check_metric(spec, kind)
    _check_base(spec, kind)
    _check_paths(spec, kind)
    plan = Plan(spec, kind, _parents_first(spec))
    _check_bounds(plan)
    check_needs(spec.space, plan.values(None), f"study {spec.name}")
    check_swa(spec.space, plan.values(None), spec.epochs, f"study {spec.name}")
    for name in spec.presets:
        check_preset(name, plan.preset_params(name), plan.values(name), f"study {spec.name}")
    return Plan(spec, kind, plan.order, tuple(_warnings(plan)))


def _with_metric(spec: StudySpec, kind: Objective) -> StudySpec:
    """The study with its objective's own metric, where it names none."""
    if "name" in spec.metric.model_fields_set:
        return spec
    usual: MetricConfig = kind.config.model_fields["metric"].default
    metric = MetricConfig.model_validate(
        usual.model_dump() | spec.metric.model_dump(exclude_unset=True)
    )
    return spec.model_copy(update={"metric": metric})


def _check_metric(spec: StudySpec, kind: Objective) -> None:
    name, where = spec.metric.name, f"study {spec.name}, metric"
    if not kind.metrics:
        return
    if name not in kind.metrics:
        raise StudyError(
            f"unknown metric {name!r}{nearest(name, kind.metrics)}",
            where=f"{where} → name",
            found=name,
            allowed=", ".join(kind.metrics),
            next_step="name one of these",
        )
    if spec.metric.direction != kind.metrics[name]:
        raise StudyError(
            f"{name} is to be {kind.metrics[name]}d",
            where=f"{where} → direction",
            found=spec.metric.direction,
            allowed=kind.metrics[name],
        )


def _check_base(spec: StudySpec, kind: Objective) -> None:
    try:
        kind.config.model_validate(nested(spec.base))
    except ValidationError as problem:
        raise explain(problem, f"study {spec.name}, base") from None
    for key in ("objective", "epochs", "seed", "metric", "max_grad_norm"):
        if key in spec.base:
            place = (
                "signals.gradient_explosion.max_norm"
                if key == "max_grad_norm"
                else f"{key}, at the top level"
            )
            raise StudyError(
                f"{key} belongs to the study, not to its base",
                where=f"study {spec.name}, base → {key}",
                next_step=f"write {place}",
            )


def _check_paths(spec: StudySpec, kind: Objective) -> None:
    known = set(searchable(kind.config)) - NOT_SEARCHED
    by_name = known & set(named_factors(kind.config))
    for path, dimension in spec.space.items():
        if path in by_name:
            raise StudyError(
                f"{path} holds a factor by name, each of them a dimension",
                where=f"study {spec.name}, space",
                found=path,
                allowed=f"{path}.NAME",
                next_step=f"write {path}.NAME for every class but one",
            )
        if path not in known and _section(path) not in by_name:
            raise StudyError(
                f"unknown hyperparameter {path!r}{nearest(path, known)}",
                where=f"study {spec.name}, space",
                found=path,
                allowed="a path of the configuration; `search schema` lists them all",
            )
        for parent, wanted in dimension.when.items():
            if parent not in known:
                raise StudyError(
                    f"unknown path {parent!r} in when{nearest(parent, known)}",
                    where=f"study {spec.name}, space → {path} → when",
                    found=parent,
                    allowed="a path of the configuration",
                )
            _check_condition(spec, path, parent, wanted if isinstance(wanted, tuple) else (wanted,))


def _check_condition(spec: StudySpec, path: str, parent: str, wanted: tuple[Scalar, ...]) -> None:
    held = spec.space.get(parent)
    if held is None:
        fixed = dict(
            flatten(objective(spec.objective).config.model_validate(nested(spec.base)).model_dump())
        ).get(parent)
        if fixed not in wanted and not spec.presets:
            raise StudyError(
                f"{path} waits for a value that {parent} never takes",
                where=f"study {spec.name}, space → {path} → when",
                found=f"{parent} is fixed at {fixed}",
                allowed=", ".join(map(str, wanted)),
                next_step=f"search {parent}, too, or take the `when` out",
            )
    for value in wanted:
        if isinstance(held, Choice) and not held.holds(value):
            raise StudyError(
                f"{path} waits for a value that {parent} never takes",
                where=f"study {spec.name}, space → {path} → when",
                found=str(value),
                allowed=str(held),
            )


def searchable(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted path of every leaf of a configuration model."""
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from searchable(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def named_factors(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted path of every section whose keys a person chooses, such as names of classes."""
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from named_factors(inner, f"{prefix}{name}.")
        elif inner == dict[str, float]:
            yield f"{prefix}{name}"


def _section(path: str) -> str:
    return path.rpartition(".")[0]


def _parents_first(spec: StudySpec) -> tuple[str, ...]:
    """The dimensions in an order in which every condition can be decided."""
    order: list[str] = []
    waiting = list(spec.space)
    while waiting:
        ready = [
            path
            for path in waiting
            if all(parent in order or parent not in spec.space for parent in spec.space[path].when)
        ]
        if not ready:
            raise StudyError(
                "conditions go round in a circle",
                where=f"study {spec.name}, space",
                found=", ".join(waiting),
                next_step="take one of the `when` out",
            )
        order += ready
        waiting = [path for path in waiting if path not in ready]
    return tuple(order)


def _check_bounds(plan: Plan) -> None:
    """Every bound and every choice must be a value that the configuration accepts, in the place where it would be used."""
    for path in plan.order:
        for value in extremes(plan.spec.space[path]):
            tree = overlay(nested(plan.spec.base), nested({path: value}))
            try:
                plan.objective.config.model_validate(tree)
            except ValidationError as problem:
                raise explain(
                    problem, f"study {plan.spec.name}, space → {path}, tried with {value}"
                ) from None
    corner: Params = {}  # dimensions that are sound alone may still exclude each other
    for path, dimension in plan.dimensions(plan.below(None), corner):
        corner[path] = dimension.choices[0] if isinstance(dimension, Choice) else dimension.low
    plan.config(corner, 0)


def _warnings(plan: Plan) -> Iterator[str]:
    spec = plan.spec
    if len(spec.presets) >= spec.trials:
        yield f"{spec.trials} trials leave nothing to search after the {len(spec.presets)} presets"
    if "loss.alpha" in spec.space:
        yield "loss.alpha is one factor for all classes: it only rescales the loss, like a second learning rate; loss.alpha_tau changes the balance"
    for name in (None, *spec.presets):
        config = plan.objective.config.model_validate(plan.below(name))
        if isinstance(config, TrainingConfig):
            last = settled_from(
                config.loss, config.optimizer, config.weights, config.schedule, spec.epochs
            )
            if last > spec.epochs:
                yield f"{'the preset ' + name if name else 'the base'} reaches its final split, smooth and clip ratio only at epoch {last} of {spec.epochs}"
    if spec.metric.score == "mean_last_5" and spec.epochs < 5:
        yield f"mean_last_5 of {spec.epochs} epochs is the mean of all"
