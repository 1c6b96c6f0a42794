"""What a hyperparameter needs to take any effect, so that a search over one that has none is refused before anything is trained.

The training reads back what it really used and has the last word (`search.worker.readback`); here is what the configuration alone tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spaces.errors import StudyError
from spaces.parameters import Choice, Parameter, Scalar, active, extremes

Values = Mapping[str, Any]
"""Dotted path → value of a whole configuration."""


@dataclass(frozen=True)
class Need:
    """That another value is one of those under which this one counts.

    Attributes:
        path: of the other value.
        met: whether it is one of them.
        words: all of them, for people.
    """

    path: str
    met: Callable[[Scalar], bool]
    words: str


def _one_of(path: str, *values: Scalar) -> Need:
    return Need(
        path,
        lambda value: value in values,
        " or ".join(
            str(value).lower() if isinstance(value, bool) else str(value) for value in values
        ),
    )


_SWA = "schedule.swa_from_epoch"
_FOCAL = _one_of("loss.kind", "focal", "ce_focal")
_OVERLAP = Need(
    "loss.dice_weight", lambda share: isinstance(share, (int, float)) and share > 0, "above 0"
)
_DICE = _one_of("loss.overlap", "dice")
_SMOOTHED = _one_of("loss.overlap", "dice", "jaccard", "tversky")
_TVERSKY = _one_of("loss.overlap", "tversky")
_WEIGHTED = Need("weights.method", lambda method: method != "uniform", "any but uniform")
_TAKEN_UP = Need(
    "loss.kind", lambda kind: kind != "soft_ce", "any but soft_ce, which takes no class weights"
)

NEEDS: dict[str, tuple[Need, ...]] = {
    "loss.gamma": (_FOCAL,),
    "loss.alpha": (_FOCAL,),
    "loss.alpha_tau": (_FOCAL,),
    "loss.class_alpha": (_FOCAL,),
    "loss.focal_share": (_one_of("loss.kind", "ce_focal"),),
    "loss.overlap": (_OVERLAP,),
    "loss.smooth": (_OVERLAP, _SMOOTHED),
    "loss.square_denominator": (_OVERLAP, _DICE),
    "loss.dice_reduction": (_OVERLAP, _DICE),
    "loss.tversky_alpha": (_OVERLAP, _TVERSKY),
    "loss.tversky_beta": (_OVERLAP, _TVERSKY),
    "loss.normalize_momentum": (_one_of("loss.normalize", True),),
    "weights.clip_ratio": (_WEIGHTED, _TAKEN_UP),
    "weights.beta": (_one_of("weights.method", "effective_number"), _TAKEN_UP),
    "schedule.dice_ce_only_epochs": (_OVERLAP,),
    "schedule.dice_ramp_epochs": (_OVERLAP,),
    "schedule.smooth_steps": (_OVERLAP, _SMOOTHED),
    "schedule.light_clip_epochs": (_WEIGHTED, _TAKEN_UP),
    "schedule.light_clip_ratio": (
        Need(
            "schedule.light_clip_epochs",
            lambda epochs: isinstance(epochs, int) and epochs > 0,
            "above 0",
        ),
        _WEIGHTED,
        _TAKEN_UP,
    ),
    "optimizer.momentum": (_one_of("optimizer.kind", "sgd"),),
}
"""Hyperparameter → everything that it needs. One that is absent needs nothing, or nothing that the configuration tells."""


def takes_effect(path: str, values: Values) -> bool:
    """Whether the hyperparameter reaches the training under a whole configuration, by dotted path."""
    return all(need.met(values[need.path]) for need in _needs(path, values) if need.path in values)


def check_needs(space: Mapping[str, Parameter], fixed: Values, where: str) -> None:
    """Refuse a dimension that exists where it has no effect.

    Args:
        space: the dimensions.
        fixed: the configuration that they are laid over.
        where: the study.

    Raises:
        StudyError: for the first one.
    """
    for path, dimension in space.items():
        for need in (need for need in _needs(path, fixed) if need.path in fixed):
            idle = " or ".join(map(str, _without_effect(need, dimension, space, fixed)))
            if idle:
                raise StudyError(
                    f"{path} has no effect where {need.path} is {idle}",
                    where=f"{where}, space → {path}",
                    found=f"{need.path} can be {idle}",
                    allowed=f"{need.path}: {need.words}",
                    next_step=_remedy(need, path, space),
                )


def check_preset(name: str, paths: Iterable[str], values: Values, where: str) -> None:
    """Refuse a preset under which a dimension that exists has no effect.

    Args:
        name: of the preset.
        paths: the dimensions that exist under it.
        values: the whole configuration that it makes.
        where: the study.

    Raises:
        StudyError: for the first one.
    """
    for path in paths:
        for need in _needs(path, values):
            if need.path in values and not need.met(values[need.path]):
                raise StudyError(
                    f"{path} has no effect under the preset {name!r}",
                    where=f"{where}, space → {path}",
                    found=f"{need.path} = {values[need.path]}",
                    allowed=f"{need.path}: {need.words}",
                    next_step=f"give {path} a `when`, or leave {name!r} out of presets",
                )


def check_swa(space: Mapping[str, Parameter], fixed: Values, epochs: int, where: str) -> None:
    """Refuse an averaging of weights that begins after the last epoch: it would average nothing.

    Args:
        space: the dimensions.
        fixed: the configuration that they are laid over.
        epochs: of a trial.
        where: the study.

    Raises:
        StudyError: when it does, or when a value that can be sampled does.
    """
    searched = space.get(_SWA)
    given = [fixed.get(_SWA)] if searched is None or searched.when else []
    for place, values in (
        (f"base → {_SWA}", given),
        (f"space → {_SWA}", [] if searched is None else extremes(searched)),
    ):
        late = [value for value in values if isinstance(value, (int, float)) and value > epochs]
        if late:
            raise StudyError(
                f"averaging the weights from epoch {late[0]} on would never begin in a training of {epochs} epochs",
                where=f"{where}, {place}",
                found=f"{late[0]}, with epochs: {epochs}",
                allowed=f"1 … {epochs}, or null for no average",
                next_step="begin earlier, or give the trials more epochs",
            )


def _needs(path: str, values: Values) -> Iterator[Need]:
    """What the hyperparameter needs beside a configuration with these values."""
    staged = any(stage.get("dice_weight") for stage in values.get("schedule.stages", ()))
    needed = NEEDS.get(path) or NEEDS.get(
        path.rpartition(".")[0], ()
    )  # a factor of a class needs what the whole section does
    yield from (
        need for need in needed if not (need is _OVERLAP and staged)
    )  # Dice takes part for a while, whatever its final share


def _without_effect(
    need: Need, dimension: Parameter, space: Mapping[str, Parameter], fixed: Values
) -> Iterator[Scalar]:
    """The values that the needed one can take, while the dimension exists, under which that is in vain."""
    parent = space.get(need.path)
    if parent is None:
        candidates: tuple[Scalar, ...] = (fixed[need.path],)
    elif isinstance(parent, Choice):
        candidates = parent.choices
    else:
        candidates = (parent.high,)  # of a range only the whole can be in vain
    own = {
        path: wanted
        for path, wanted in dimension.when.items()
        if path == need.path or path not in space
    }
    yield from (
        value
        for value in candidates
        if active(own, {**fixed, need.path: value}) and not need.met(value)
    )


def _remedy(need: Need, path: str, space: Mapping[str, Parameter]) -> str:
    if need.path in space:
        return f"give {path} a `when`, so that it exists only where {need.path} is {need.words}"
    return f"set base.{need.path}, or take {path} out of the space"
