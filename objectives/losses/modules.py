"""The single losses as modules. Searched numbers are float64 buffers: exact as configured, changeable in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from objectives.losses import functional
from objectives.losses.functional import Batch, Reduction
from spaces.errors import ConfigError

PerClass = Sequence[float] | Tensor
"""One number per class, shape (C,)."""


class CrossEntropyLoss(nn.Module):
    """Class-weighted cross entropy with label smoothing; see `functional.cross_entropy` for the formula.

    Args:
        weight: (C,) class weights, or None for equal ones.
        ignore_index: label of the elements that count for nothing.
        label_smoothing: ε in [0, 1).

    Raises:
        ConfigError: when a number lies outside its range.
    """

    weight: Tensor | None

    def __init__(self, weight: PerClass | None = None, *, ignore_index: int = -100, label_smoothing: float = 0.0) -> None:
        super().__init__()
        _check_smoothing(label_smoothing)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.register_buffer("weight", None if weight is None else _numbers("weight", weight), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The scalar loss of logits (N, C, …) and target (N, …)."""
        return self.of(functional.prepare(logits, target, self.ignore_index))

    def of(self, batch: Batch) -> Tensor:
        """The same for a batch that several losses share."""
        return functional.cross_entropy_of(batch, self.weight, self.label_smoothing)


class FocalLoss(nn.Module):
    """The softmax focal loss (Lin et al. 2017); see `functional.focal` for the formula.

    Args:
        gamma: focusing exponent; 0 is cross entropy.
        alpha: one factor (which only rescales the loss), or one per class, or None.
        weight: (C,) class weights, or None for equal ones.
        ignore_index: label of the elements that count for nothing.
        label_smoothing: ε in [0, 1).

    Raises:
        ConfigError: when a number lies outside its range.
    """

    gamma: Tensor
    alpha: Tensor | None
    weight: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | PerClass | None = None,
        weight: PerClass | None = None,
        *,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check_smoothing(label_smoothing)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.register_buffer("gamma", _number("gamma", gamma), persistent=False)
        self.register_buffer("alpha", _alpha(alpha), persistent=False)
        self.register_buffer("weight", None if weight is None else _numbers("weight", weight), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The scalar loss of logits (N, C, …) and target (N, …), or logits (N, C) and soft target (N, C)."""
        return functional.focal(
            logits,
            target,
            gamma=self.gamma,
            alpha=self.alpha,
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )

    def of(self, batch: Batch) -> Tensor:
        """The same for a batch that several losses share (hard targets)."""
        return functional.focal_of(batch, self.gamma, self.alpha, self.weight, self.label_smoothing)


class DiceLoss(nn.Module):
    """The soft Dice loss (Milletari et al. 2016); see `functional.dice` for the formula.

    Args:
        smooth: smoothing constant s, added to numerator and denominator.
        square_denominator: squares in the denominator.
        reduction: "global" sums over the whole batch, "image" averages over the images.
        keep_absent: keep the classes that the target does not hold in the mean.
        ignore_index: label of the elements that count for nothing.

    Raises:
        ConfigError: when smooth is negative or the reduction unknown.
    """

    smooth: Tensor

    def __init__(
        self,
        smooth: float = 1.0,
        *,
        square_denominator: bool = False,
        reduction: Reduction = "global",
        keep_absent: bool = False,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        functional.one_of("reduction", reduction, ("global", "image"))
        self.square_denominator, self.keep_absent, self.ignore_index = square_denominator, keep_absent, ignore_index
        self.reduction: Reduction = reduction
        self.register_buffer("smooth", _number("smooth", smooth), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The scalar loss of logits (N, C, …) and target (N, …)."""
        return self.of(functional.prepare(logits, target, self.ignore_index))

    def of(self, batch: Batch) -> Tensor:
        """The same for a batch that several losses share."""
        return functional.dice_of(batch, self.smooth, self.square_denominator, self.reduction, self.keep_absent)


def _number(name: str, value: float) -> Tensor:
    """A float64 scalar that is not negative."""
    functional.not_negative(name, value)
    return torch.tensor(value, dtype=torch.float64)


def _numbers(name: str, values: PerClass) -> Tensor:
    """A float64 vector of its own, none of it negative."""
    vector = torch.as_tensor(values, dtype=torch.float64).clone()
    if vector.dim() != 1:
        raise ConfigError(
            f"{name} needs one value per class, but has shape {tuple(vector.shape)}",
            where=name,
            found=str(tuple(vector.shape)),
            allowed="(C,)",
        )
    for value in vector.tolist():
        functional.not_negative(name, value)
    return vector


def _alpha(alpha: float | PerClass | None) -> Tensor | None:
    if alpha is None:
        return None
    return _number("alpha", alpha) if isinstance(alpha, (int, float)) else _numbers("alpha", alpha)


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        found = str(label_smoothing)
        raise ConfigError(
            f"label_smoothing must lie in [0, 1), but is {found}", where="label_smoothing", found=found, allowed="0 or more, below 1"
        )
