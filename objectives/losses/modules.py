"""Losses as modules. Searched numbers are float64 buffers: exact, and changeable in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from objectives.losses import checks, functional
from objectives.losses.batch_sums import Batch, Others, prepare_batch
from objectives.losses.functional import Reduction
from objectives.losses.softmax import Power
from spaces.errors import ConfigError

PerClass = Sequence[float] | Tensor
"""One number per class, shape (C,)."""


class Terms(NamedTuple):
    """Cross entropy or focal part of a combined loss.

    Attributes:
        value: what is trained on.
        ce: the cross entropy term, if `value` is a mixture.
        focal: the focal term, likewise.
    """

    value: Tensor
    ce: Tensor | None = None
    focal: Tensor | None = None


class CrossEntropyLoss(nn.Module):
    """Class-weighted cross entropy with label smoothing; formula: `functional.cross_entropy`.

    Args:
        weight: (C,) class weights, or None for equal ones.
        ignore_index: label of the elements that are left out.
        label_smoothing: ε in [0, 1).

    Raises:
        ConfigError: when a number is outside its range.

    >>> loss = CrossEntropyLoss([0.5, 1.5], ignore_index=255)
    >>> round(float(loss(torch.zeros(1, 2, 3, 3), torch.ones(1, 3, 3, dtype=torch.long))), 4)
    0.6931
    """

    weight: Tensor | None
    label_smoothing: Tensor

    def __init__(
        self,
        weight: PerClass | None = None,
        *,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        checks.check_share("label_smoothing", label_smoothing)
        self.ignore_index = ignore_index
        self.smoothed = label_smoothing > 0
        self.register_buffer(
            "weight", None if weight is None else _vector_buffer("weight", weight), persistent=False
        )
        self.register_buffer(
            "label_smoothing", _scalar_buffer("label_smoothing", label_smoothing), persistent=False
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the scalar loss of logits (N, C, …) and target (N, …)."""
        batch = prepare_batch(
            logits, target, self.ignore_index, weight=self.weight, smoothed=self.smoothed
        )
        return self.terms_of(batch).value

    def terms_of(self, batch: Batch, others: Others | None = None) -> Terms:
        """Compute the same of a batch that several losses share."""
        return Terms(functional.cross_entropy_of(batch, self.weight, self.label_smoothing, others))


class FocalLoss(nn.Module):
    """Softmax focal loss (Lin et al. 2017); formula: `functional.focal`.

    Args:
        gamma: focusing exponent; 0 is cross entropy.
        alpha: one factor (which only rescales the loss), or one per class, or None.
        weight: (C,) class weights, or None for equal ones.
        ignore_index: label of the elements that are left out.
        label_smoothing: ε in [0, 1).
        share: of the focal loss; the rest, 1 − share, is weighted cross entropy. Hard targets only.

    Raises:
        ConfigError: when a number is outside its range.

    >>> loss = FocalLoss(gamma=2.0, alpha=0.25)
    >>> round(float(loss(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))), 4)  # 0.25 · 0.5² · ln 2
    0.0433
    """

    gamma: Tensor
    alpha: Tensor | None
    weight: Tensor | None
    label_smoothing: Tensor
    share: Tensor

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | PerClass | None = None,
        weight: PerClass | None = None,
        *,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        share: float = 1.0,
    ) -> None:
        super().__init__()
        checks.check_share("label_smoothing", label_smoothing)
        checks.check_share("share", share, one=True)
        self.ignore_index = ignore_index
        self.smoothed = label_smoothing > 0
        self.mixed = share < 1
        self.register_buffer("gamma", _scalar_buffer("gamma", gamma), persistent=False)
        self.register_buffer("alpha", _alpha_buffer(alpha), persistent=False)
        self.register_buffer(
            "weight", None if weight is None else _vector_buffer("weight", weight), persistent=False
        )
        self.register_buffer(
            "label_smoothing", _scalar_buffer("label_smoothing", label_smoothing), persistent=False
        )
        self.register_buffer("share", _scalar_buffer("share", share), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the scalar loss of logits (N, C, …) and target (N, …), or soft target (N, C)."""
        if target.is_floating_point():
            smoothing = float(self.label_smoothing)
            return functional.focal(
                logits,
                target,
                gamma=self.gamma,
                alpha=self.alpha,
                weight=self.weight,
                label_smoothing=smoothing,
            )
        batch = prepare_batch(
            logits, target, self.ignore_index, weight=self.weight, smoothed=self.smoothed
        )
        return self.terms_of(batch).value

    def terms_of(self, batch: Batch, others: Others | None = None) -> Terms:
        """Compute the same of a batch that several losses share (hard targets)."""
        if not self.mixed:
            return Terms(
                functional.focal_of(
                    batch, self.gamma, self.alpha, self.weight, self.label_smoothing, others
                )
            )
        ce, focal = functional.cross_entropy_and_focal_of(
            batch, self.gamma, self.alpha, self.weight, self.label_smoothing, others
        )
        return Terms((self.share * focal + (1 - self.share) * ce).to(ce.dtype), ce, focal)


class DiceLoss(nn.Module):
    """Soft Dice loss (Milletari et al. 2016); formula: `functional.dice`.

    Args:
        smooth: smoothing constant s, added to numerator and denominator.
        square_denominator: squares in the denominator.
        reduction: "global" sums over the whole batch, "image" averages over the images.
        keep_absent: include classes that the target does not contain in the mean.
        ignore_index: label of the elements that are left out.

    Raises:
        ConfigError: when smooth is negative or the reduction unknown.

    >>> loss = DiceLoss(smooth=1.0, square_denominator=True)
    >>> right = torch.tensor([[20.0, -20.0]])
    >>> round(float(loss(right, torch.tensor([0]))), 4)
    0.0
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
        checks.check_choice("reduction", reduction, ("global", "image"))
        self.square_denominator = square_denominator
        self.keep_absent = keep_absent
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction
        self.power: Power = 2 if square_denominator else 1
        self.register_buffer("smooth", _scalar_buffer("smooth", smooth), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the scalar loss of logits (N, C, …) and target (N, …)."""
        return self.loss_of(prepare_batch(logits, target, self.ignore_index, power=self.power))

    def loss_of(self, batch: Batch, others: Others | None = None) -> Tensor:
        """Compute the same of a batch that several losses share."""
        return functional.dice_of(batch, self.smooth, self.reduction, self.keep_absent, others)


def _scalar_buffer(name: str, value: float) -> Tensor:
    """Make a float64 scalar that is not negative."""
    checks.check_not_negative(name, value)
    return torch.tensor(value, dtype=torch.float64)


def _vector_buffer(name: str, values: PerClass) -> Tensor:
    """Make a copy as float64 vector, none of it negative."""
    vector = torch.as_tensor(values, dtype=torch.float64).clone()
    if vector.dim() != 1:
        found = str(tuple(vector.shape))
        raise ConfigError(
            f"{name} needs one value per class, but has shape {found}",
            where=name,
            found=found,
            allowed="(C,)",
        )
    for value in vector.tolist():
        checks.check_not_negative(name, value)
    return vector


def _alpha_buffer(alpha: float | PerClass | None) -> Tensor | None:
    if alpha is None:
        return None
    return (
        _scalar_buffer("alpha", alpha)
        if isinstance(alpha, (int, float))
        else _vector_buffer("alpha", alpha)
    )
