"""From a configuration and the counted classes to the criterion of a trial."""

from __future__ import annotations

import warnings

import torch

from objectives.class_weights import absent_classes, class_weights, focal_alpha
from objectives.losses.combined import Balance, CombinedLoss
from objectives.losses.modules import CrossEntropyLoss, DiceLoss, FocalLoss
from spaces.config import LossConfig, WeightsConfig
from spaces.errors import ConfigError
from spaces.records import ClassCounts


def build_criterion(
    loss: LossConfig, weights: WeightsConfig, counts: ClassCounts, ignore_index: int, device: torch.device | str
) -> CombinedLoss:
    """The combined loss with its final values, on `device`; `set_epoch` then lets it follow a schedule.

    Warns (UserWarning) of classes without a pixel where weights or alphas are made from frequencies: theirs is 1.

    Raises:
        ConfigError: when alpha's length is not the number of classes, or the counts are unusable.
    """
    _warn_of_absent(loss, weights, counts)
    main = _main_part(loss, weights, counts, ignore_index)
    dice = DiceLoss(loss.smooth, square_denominator=loss.square_denominator, reduction=loss.dice_reduction, ignore_index=ignore_index)
    balance = Balance(counts, weights, loss.alpha_tau)
    return CombinedLoss(main, dice, ce_weight=loss.ce_weight, dice_weight=loss.dice_weight, balance=balance).to(device)


def _main_part(loss: LossConfig, weights: WeightsConfig, counts: ClassCounts, ignore_index: int) -> CrossEntropyLoss | FocalLoss:
    weight = None if weights.method == "uniform" else torch.from_numpy(class_weights(counts, weights).weights)
    if loss.kind == "ce":
        return CrossEntropyLoss(weight, ignore_index=ignore_index, label_smoothing=loss.label_smoothing)
    alpha = loss.alpha if loss.alpha_tau is None else torch.from_numpy(focal_alpha(counts, loss.alpha_tau))
    _check_alpha_length(loss, counts)
    return FocalLoss(loss.gamma, alpha, weight, ignore_index=ignore_index, label_smoothing=loss.label_smoothing)


def _check_alpha_length(loss: LossConfig, counts: ClassCounts) -> None:
    classes = len(counts.names)
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
    if absent and (weights.method != "uniform" or (loss.kind == "focal" and loss.alpha_tau is not None)):
        warnings.warn(f"no pixel or sample of {', '.join(absent)} in the training split: the class weight is 1", stacklevel=3)
