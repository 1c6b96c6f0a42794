"""What a loss refuses, in words that print what was found and what was expected. Nothing here waits for a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spaces.errors import ConfigError

Number = float | Tensor
"""A Python number, or a tensor without dimensions that can be changed in place between epochs."""


def not_negative(name: str, value: Number) -> None:
    """Refuse a negative number; a tensor is left alone, as a look at it would wait for the device.

    Raises:
        ConfigError: when `value` is negative or NaN.
    """
    if not isinstance(value, Tensor) and not value >= 0:
        raise ConfigError(
            f"{name} must not be negative, but is {value}",
            where=name,
            found=str(value),
            allowed="0 or more",
        )


def share(name: str, value: Number, *, one: bool = False) -> None:
    """Refuse a number outside [0, 1), or outside [0, 1] with `one`; a tensor is left alone.

    Raises:
        ConfigError: when it lies outside.
    """
    if isinstance(value, Tensor) or 0 <= value < 1 or (one and value == 1):
        return
    interval, allowed = ("[0, 1]", "0 … 1") if one else ("[0, 1)", "0 or more, below 1")
    raise ConfigError(
        f"{name} must lie in {interval}, but is {value}",
        where=name,
        found=str(value),
        allowed=allowed,
    )


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that is not among those allowed.

    Raises:
        ConfigError: when it is not.
    """
    if value not in allowed:
        raise ConfigError(
            f"unknown {name} {value!r}", where=name, found=value, allowed=", ".join(allowed)
        )


def hard_target(logits: Tensor, target: Tensor) -> None:
    """Refuse a target that is not one integer for every element of the logits (N, C, …).

    Raises:
        ConfigError: for another shape or type.
    """
    expected = (*logits.shape[:1], *logits.shape[2:])
    if logits.dim() < 2 or tuple(target.shape) != expected:
        found, allowed = str(tuple(target.shape)), str(expected)
        what = f"the target has shape {found}, but logits {tuple(logits.shape)} need {allowed}"
        raise ConfigError(what, where="target", found=found, allowed=allowed)
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ConfigError(
            f"hard targets are integers, not {target.dtype}",
            where="target",
            found=str(target.dtype),
            allowed="an integer type",
        )


def soft_target(logits: Tensor, target: Tensor) -> None:
    """Refuse distributions that are not (N, C) like the logits.

    Raises:
        ConfigError: for another shape.
    """
    if logits.dim() != 2 or target.shape != logits.shape:
        found, allowed = str(tuple(target.shape)), f"(N, C) like the logits, {tuple(logits.shape)}"
        what = f"soft targets have shape {found}, but the logits {tuple(logits.shape)}"
        raise ConfigError(what, where="target", found=found, allowed=allowed)


def per_class(name: str, values: Tensor, classes: int) -> None:
    """Refuse a vector that has not one number for each class.

    Raises:
        ConfigError: for another length or shape.
    """
    if tuple(values.shape) != (classes,):
        found = f"{values.numel()} values of shape {tuple(values.shape)}"
        what = f"{name} has {values.numel()} values, but the logits have {classes} classes"
        raise ConfigError(what, where=name, found=found, allowed=f"{classes} values")
