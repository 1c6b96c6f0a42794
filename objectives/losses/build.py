"""Build the criterion of a trial from its configuration and class counts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from objectives.losses.balance import Balance
from objectives.losses.class_weights import absent_classes, class_weights, focal_alpha
from objectives.losses.combined import CombinedLoss
from objectives.losses.library import LibraryLoss
from objectives.losses.modules import CrossEntropyLoss, DiceLoss, FocalLoss
from objectives.losses.normalized_combined import NormalizedCombinedLoss
from spaces.config import LossConfig, WeightsConfig
from spaces.errors import ConfigError
from spaces.records import ClassCounts

Criterion = CombinedLoss | NormalizedCombinedLoss


def build_criterion(
    loss: LossConfig,
    weights: WeightsConfig,
    counts: ClassCounts,
    ignore_index: int,
    device: torch.device | str,
) -> Criterion:
    """Build the combined loss with its final values; `set_epoch` then makes it follow a schedule.

    Warns (UserWarning) about classes without a pixel if weights or alphas are computed from
    frequencies: theirs is 1.

    Args:
        loss: kind and settings of the loss.
        weights: method and clip ratio of the class weights.
        counts: valid training pixels, or samples, of every class.
        ignore_index: label of the elements that are left out.
        device: of the loss's numbers.

    Raises:
        ConfigError: when alpha's length is not the number of classes, or the counts are unusable.
    """
    _warn_of_absent(loss, weights, counts)
    main = _main_part(loss, weights, counts, ignore_index)
    overlap = _overlap_part(loss, ignore_index)
    balance = Balance(counts, weights, loss.alpha_tau, loss.class_alpha)
    combined = CombinedLoss(
        main, overlap, ce_weight=loss.ce_weight, dice_weight=loss.dice_weight, balance=balance
    ).to(device)
    return NormalizedCombinedLoss(combined, loss.normalize_momentum) if loss.normalize else combined


def _main_part(
    loss: LossConfig, weights: WeightsConfig, counts: ClassCounts, ignore_index: int
) -> CrossEntropyLoss | FocalLoss | LibraryLoss:
    weight = None
    if weights.method != "uniform":
        weight = torch.from_numpy(class_weights(counts, weights).weights)
    if loss.kind == "soft_ce":
        return LibraryLoss(
            "soft_ce", label_smoothing=loss.label_smoothing, ignore_index=ignore_index
        )
    if loss.kind == "ce":
        return CrossEntropyLoss(
            weight, ignore_index=ignore_index, label_smoothing=loss.label_smoothing
        )
    check_alpha(loss, counts.names)
    alpha: float | Sequence[float] | torch.Tensor | None = loss.alpha
    if loss.alpha_tau is not None or loss.class_alpha:
        alpha = torch.from_numpy(focal_alpha(counts, loss.alpha_tau or 0.0, loss.class_alpha))
    share = loss.focal_share if loss.kind == "ce_focal" else 1.0
    return FocalLoss(
        loss.gamma,
        alpha,
        weight,
        ignore_index=ignore_index,
        label_smoothing=loss.label_smoothing,
        share=share,
    )


def _overlap_part(loss: LossConfig, ignore_index: int) -> DiceLoss | LibraryLoss:
    if loss.overlap == "dice":
        return DiceLoss(
            loss.smooth,
            square_denominator=loss.square_denominator,
            reduction=loss.dice_reduction,
            ignore_index=ignore_index,
        )
    return LibraryLoss(
        loss.overlap,
        smooth=loss.smooth,
        tversky_alpha=loss.tversky_alpha,
        tversky_beta=loss.tversky_beta,
        ignore_index=ignore_index,
    )


def check_alpha(loss: LossConfig, names: tuple[str, ...]) -> None:
    """Check that alpha is one number, or one per class, and that its factors name known classes.

    Raises:
        ConfigError: when it is neither, or a class is unknown.
    """
    focal_alpha(ClassCounts(names, (1,) * len(names)), 0.0, loss.class_alpha)
    classes = len(names)
    if isinstance(loss.alpha, tuple) and len(loss.alpha) != classes:
        given = len(loss.alpha)
        raise ConfigError(
            f"alpha has {given} values, but there are {classes} classes",
            where="loss.alpha",
            found=f"{given} values",
            allowed=f"{classes} values, or one",
        )


def _warn_of_absent(loss: LossConfig, weights: WeightsConfig, counts: ClassCounts) -> None:
    absent = absent_classes(counts)
    focal = loss.kind in ("focal", "ce_focal")
    counted_alpha = focal and (loss.alpha_tau is not None or bool(loss.class_alpha))
    if absent and (weights.method != "uniform" or counted_alpha):
        names = ", ".join(absent)
        warnings.warn(
            f"no pixel or sample of {names} in the training split: the class weight is 1",
            stacklevel=3,
        )
