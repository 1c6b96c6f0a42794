"""What a hyperparameter requires to have an effect; the plan refuses a search over one without any.

These are requirements that the configuration alone shows. `search.worker.readback` compares what
was sampled with the values that the training really used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search.planning.study_error import study_error
from spaces.parameters import Choice, Parameter, Scalar, extremes, is_active
from spaces.study import StudySpec

Values = Mapping[str, Any]
"""Dotted path → value of a complete configuration."""


@dataclass(frozen=True)
class Requirement:
    """The values of another hyperparameter under which this one has an effect.

    Attributes:
        path: of the other hyperparameter.
        is_met: whether a value of it is one of them.
        allowed: a description of them all.
    """

    path: str
    is_met: Callable[[Scalar], bool]
    allowed: str


def _one_of(path: str, *values: Scalar) -> Requirement:
    names = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
    return Requirement(path, lambda value: value in values, " or ".join(names))


_AVERAGED_FROM = "schedule.swa_from_epoch"
_USES_FOCAL = _one_of("loss.kind", "focal", "ce_focal")
_USES_OVERLAP = Requirement(
    "loss.dice_weight", lambda weight: isinstance(weight, (int, float)) and weight > 0, "above 0"
)
_USES_DICE = _one_of("loss.overlap", "dice")
_USES_SMOOTH = _one_of("loss.overlap", "dice", "jaccard", "tversky")
_USES_TVERSKY = _one_of("loss.overlap", "tversky")
_WEIGHTS_CLASSES = Requirement(
    "weights.method", lambda method: method != "uniform", "any but uniform"
)
_USES_CLASS_WEIGHTS = Requirement(
    "loss.kind", lambda kind: kind != "soft_ce", "any but soft_ce, which has no class weights"
)

REQUIREMENTS: dict[str, tuple[Requirement, ...]] = {
    "loss.gamma": (_USES_FOCAL,),
    "loss.alpha": (_USES_FOCAL,),
    "loss.alpha_tau": (_USES_FOCAL,),
    "loss.class_alpha": (_USES_FOCAL,),
    "loss.focal_share": (_one_of("loss.kind", "ce_focal"),),
    "loss.overlap": (_USES_OVERLAP,),
    "loss.smooth": (_USES_OVERLAP, _USES_SMOOTH),
    "loss.square_denominator": (_USES_OVERLAP, _USES_DICE),
    "loss.dice_reduction": (_USES_OVERLAP, _USES_DICE),
    "loss.tversky_alpha": (_USES_OVERLAP, _USES_TVERSKY),
    "loss.tversky_beta": (_USES_OVERLAP, _USES_TVERSKY),
    "loss.normalize_momentum": (_one_of("loss.normalize", True),),
    "weights.clip_ratio": (_WEIGHTS_CLASSES, _USES_CLASS_WEIGHTS),
    "weights.beta": (_one_of("weights.method", "effective_number"), _USES_CLASS_WEIGHTS),
    "schedule.dice_ce_only_epochs": (_USES_OVERLAP,),
    "schedule.dice_ramp_epochs": (_USES_OVERLAP,),
    "schedule.smooth_steps": (_USES_OVERLAP, _USES_SMOOTH),
    "schedule.light_clip_epochs": (_WEIGHTS_CLASSES, _USES_CLASS_WEIGHTS),
    "schedule.light_clip_ratio": (
        Requirement(
            "schedule.light_clip_epochs",
            lambda epochs: isinstance(epochs, int) and epochs > 0,
            "above 0",
        ),
        _WEIGHTS_CLASSES,
        _USES_CLASS_WEIGHTS,
    ),
    "optimizer.momentum": (_one_of("optimizer.kind", "sgd"),),
}
"""Hyperparameter → all that it requires, as far as the configuration shows it."""


def takes_effect(path: str, values: Values) -> bool:
    """Return whether the hyperparameter reaches the training under a complete configuration."""
    return all(
        requirement.is_met(values[requirement.path])
        for requirement in _find_requirements(path, values)
        if requirement.path in values
    )


def check_effects(spec: StudySpec, fixed: Values) -> None:
    """Refuse a dimension that is active where it has no effect.

    Args:
        spec: the study.
        fixed: the configuration that its dimensions are laid over.

    Raises:
        StudyError: for the first one.
    """
    for path, dimension in spec.space.items():
        for requirement in _find_requirements(path, fixed):
            if requirement.path not in fixed:
                continue
            idle = [str(value) for value in _idle_values(requirement, dimension, spec.space, fixed)]
            if idle:
                raise study_error(
                    spec,
                    ("space", path),
                    f"{path} has no effect where {requirement.path} is {' or '.join(idle)}",
                    found=f"{requirement.path} can be {' or '.join(idle)}",
                    allowed=f"{requirement.path}: {requirement.allowed}",
                    next_step=_suggest_fix(requirement, path, spec.space),
                )


def check_preset_effects(
    spec: StudySpec, preset_name: str, paths: Iterable[str], values: Values
) -> None:
    """Refuse a preset under which an active dimension has no effect.

    Args:
        spec: the study.
        preset_name: of the preset.
        paths: the dimensions that are active under it.
        values: the complete configuration that it makes.

    Raises:
        StudyError: for the first one.
    """
    for path in paths:
        for requirement in _find_requirements(path, values):
            if requirement.path in values and not requirement.is_met(values[requirement.path]):
                raise study_error(
                    spec,
                    ("space", path),
                    f"{path} has no effect under the preset {preset_name!r}",
                    found=f"{requirement.path} = {values[requirement.path]}",
                    allowed=f"{requirement.path}: {requirement.allowed}",
                    next_step=f"give {path} a `when`, or leave {preset_name!r} out of presets",
                )


def check_weight_averaging(spec: StudySpec, fixed: Values) -> None:
    """Refuse averaged weights that would start after the last epoch and average nothing.

    Args:
        spec: the study.
        fixed: the configuration that its dimensions are laid over.

    Raises:
        StudyError: when they would, or when a value that can be sampled would.
    """
    searched = spec.space.get(_AVERAGED_FROM)
    if searched is None or searched.when:
        _check_average_start(spec, "base", [fixed.get(_AVERAGED_FROM)])
    if searched is not None:
        _check_average_start(spec, "space", extremes(searched))


def _check_average_start(spec: StudySpec, section: str, values: Iterable[Scalar]) -> None:
    for value in values:
        if isinstance(value, (int, float)) and value > spec.epochs:
            raise study_error(
                spec,
                (section, _AVERAGED_FROM),
                f"averaging the weights from epoch {value} on would never start in a training of "
                f"{spec.epochs} epochs",
                found=f"{value}, with epochs: {spec.epochs}",
                allowed=f"1 … {spec.epochs}, or null for no average",
                next_step="start earlier, or give the trials more epochs",
            )


def _find_requirements(path: str, values: Values) -> Iterator[Requirement]:
    """Yield what the hyperparameter requires in a configuration with these values."""
    in_a_stage = any(stage.get("dice_weight") for stage in values.get("schedule.stages", ()))
    # the factor of one class requires what its whole section does
    requirements = REQUIREMENTS.get(path) or REQUIREMENTS.get(path.rpartition(".")[0], ())
    for requirement in requirements:
        # Dice that has a weight in some stage is in use, whatever its final weight
        if not (requirement is _USES_OVERLAP and in_a_stage):
            yield requirement


def _idle_values(
    requirement: Requirement,
    dimension: Parameter,
    space: Mapping[str, Parameter],
    fixed: Values,
) -> Iterator[Scalar]:
    """Yield the required path's possible values under which an active dimension has no effect."""
    parent = space.get(requirement.path)
    if parent is None:
        candidates: tuple[Scalar, ...] = (fixed[requirement.path],)
    elif isinstance(parent, Choice):
        candidates = parent.choices
    else:
        candidates = (parent.high,)  # a range counts only if no value in it has an effect
    conditions = {
        path: wanted
        for path, wanted in dimension.when.items()
        if path == requirement.path or path not in space
    }
    for value in candidates:
        values = {**fixed, requirement.path: value}
        if is_active(conditions, values) and not requirement.is_met(value):
            yield value


def _suggest_fix(requirement: Requirement, path: str, space: Mapping[str, Parameter]) -> str:
    if requirement.path in space:
        condition = f"{requirement.path} is {requirement.allowed}"
        return f"give {path} a `when`, so that it exists only where {condition}"
    return f"set base.{requirement.path}, or take {path} out of the space"
