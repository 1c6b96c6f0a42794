"""Checks of what a loss is given. None of them waits for a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spaces.errors import ConfigError

Number = float | Tensor
"""A Python number, or a tensor without dimensions that may change in place between epochs."""


def check_not_negative(name: str, value: Number) -> None:
    """Refuse a negative number. A tensor is not read, as that would wait for the device.

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


def check_share(name: str, value: Number, *, one: bool = False) -> None:
    """Refuse a number outside [0, 1), or outside [0, 1] with `one`. A tensor is not read.

    Raises:
        ConfigError: when it is outside.
    """
    if isinstance(value, Tensor) or 0 <= value < 1 or (one and value == 1):
        return
    interval = "[0, 1]" if one else "[0, 1)"
    raise ConfigError(
        f"{name} must be in {interval}, but is {value}",
        where=name,
        found=str(value),
        allowed="0 … 1" if one else "0 or more, below 1",
    )


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among those allowed.

    Raises:
        ConfigError: when it is not.
    """
    if value not in allowed:
        raise ConfigError(
            f"unknown {name} {value!r}", where=name, found=value, allowed=", ".join(allowed)
        )


def check_hard_target(logits: Tensor, target: Tensor) -> None:
    """Refuse a target that is not one integer for every element of the logits (N, C, …).

    Raises:
        ConfigError: for another shape or type.
    """
    expected = (*logits.shape[:1], *logits.shape[2:])
    if logits.dim() < 2 or tuple(target.shape) != expected:
        found = str(tuple(target.shape))
        raise ConfigError(
            f"the target has shape {found}, but logits {tuple(logits.shape)} need {expected}",
            where="target",
            found=found,
            allowed=str(expected),
        )
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ConfigError(
            f"hard targets are integers, not {target.dtype}",
            where="target",
            found=str(target.dtype),
            allowed="an integer type",
        )


def check_soft_target(logits: Tensor, target: Tensor) -> None:
    """Refuse distributions that are not (N, C) like the logits.

    Raises:
        ConfigError: for another shape.
    """
    if logits.dim() != 2 or target.shape != logits.shape:
        found = str(tuple(target.shape))
        raise ConfigError(
            f"soft targets have shape {found}, but the logits {tuple(logits.shape)}",
            where="target",
            found=found,
            allowed=f"(N, C) like the logits, {tuple(logits.shape)}",
        )


def check_per_class(name: str, values: Tensor, classes: int) -> None:
    """Refuse a vector that does not have one number per class.

    Raises:
        ConfigError: for another length or shape.
    """
    if tuple(values.shape) != (classes,):
        raise ConfigError(
            f"{name} has {values.numel()} values, but the logits have {classes} classes",
            where=name,
            found=f"{values.numel()} values of shape {tuple(values.shape)}",
            allowed=f"{classes} values",
        )
