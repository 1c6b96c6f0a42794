"""Schedules: values of loss and optimizer, a pure function of configuration and epoch.

Epochs count from 1. A value applies to all steps of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spaces.config import LossConfig, OptimizerConfig, ScheduleConfig, Stage, WeightsConfig
from spaces.errors import ConfigError
from spaces.presets import scaled_to

Named = Literal["dice_weight", "smooth", "lr_multiple", "clip_ratio"]


@dataclass(frozen=True, slots=True)
class EpochValues:
    """Scheduled values of one epoch.

    Attributes:
        epoch: counted from 1.
        lr: learning rate.
        ce_weight: weight of cross entropy or focal.
        dice_weight: weight of Dice or another overlap.
        smooth: of the overlap.
        clip_ratio: largest over smallest class weight; None: unbounded.
        settled: whether CE/Dice weights, smooth and clip ratio are final from this epoch on.
    """

    epoch: int
    lr: float
    ce_weight: float
    dice_weight: float
    smooth: float
    clip_ratio: float | None
    settled: bool


def values_at(
    epoch: int,
    *,
    epochs: int,
    loss: LossConfig,
    optimizer: OptimizerConfig,
    weights: WeightsConfig,
    schedule: ScheduleConfig,
) -> EpochValues:
    """Return the values of one epoch.

    The first stage that covers the epoch and names a value takes precedence over the
    configuration's own value and, for the Dice weight, over the warm-up.

    Args:
        epoch: counted from 1.
        epochs: of the training.
        loss: final values of the loss.
        optimizer: final learning rate.
        weights: final clip ratio.
        schedule: what differs before.

    Raises:
        ConfigError: when the epoch is not in 1 … epochs.
    """
    if not 1 <= epoch <= epochs:
        raise ConfigError(
            f"epoch {epoch} is outside the training",
            where="epoch",
            found=str(epoch),
            allowed=f"1 … {epochs}",
        )
    schedule = with_stages(schedule, loss, optimizer, epochs)
    dice_weight, smooth, clip_ratio = _loss_values(epoch, loss, weights, schedule)
    return EpochValues(
        epoch=epoch,
        lr=_learning_rate(epoch, epochs, optimizer, schedule),
        ce_weight=loss.ce_weight if dice_weight == loss.dice_weight else 1 - dice_weight,
        dice_weight=dice_weight,
        smooth=smooth,
        clip_ratio=clip_ratio,
        settled=epoch >= _settled_from(loss, weights, schedule),
    )


def with_stages(
    schedule: ScheduleConfig, loss: LossConfig, optimizer: OptimizerConfig, epochs: int
) -> ScheduleConfig:
    """Return the schedule with its named plans written out as stages, after its own stages.

    `plan: progressive` has three phases, relative to the final values: 5 epochs without Dice at 5/3
    of the rate (×0.5 for a final ×0.3), 10 with half the Dice weight (0.8/0.2 for a final 0.6/0.4)
    and smooth 5, then those values.
    """
    scaled = scaled_to(epochs)
    stages = list(schedule.stages)
    if schedule.plan == "progressive":
        first = scaled(5)
        second = first + scaled(10)
        stages.append(
            Stage(
                before_epoch=1 + first, dice_weight=0.0, lr_multiple=optimizer.lr_multiple * 5 / 3
            )
        )
        stages.append(Stage(before_epoch=1 + second, dice_weight=loss.dice_weight / 2, smooth=5.0))
    if schedule.smooth_steps:
        stages += [
            Stage(before_epoch=1 + scaled(9), smooth=10.0),
            Stage(before_epoch=1 + scaled(19), smooth=5.0),
        ]
    if schedule.light_clip_epochs:
        stages.append(
            Stage(before_epoch=1 + schedule.light_clip_epochs, clip_ratio=schedule.light_clip_ratio)
        )
    return schedule.model_copy(update={"stages": tuple(stages)})


def settled_from(
    loss: LossConfig,
    optimizer: OptimizerConfig,
    weights: WeightsConfig,
    schedule: ScheduleConfig,
    epochs: int,
) -> int:
    """Return the first epoch from which CE/Dice weights, smooth and clip ratio are final.

    It may be beyond the last epoch: the configured values are then never trained with.
    """
    return _settled_from(loss, weights, with_stages(schedule, loss, optimizer, epochs))


def _settled_from(loss: LossConfig, weights: WeightsConfig, schedule: ScheduleConfig) -> int:
    """Return the same for a schedule whose stages are all written out."""
    # Values change only where a stage or the warm-up ends, and a stage covers all epochs before its
    # end: compare the epoch just before each end with the final values.
    warm = schedule.dice_ce_only_epochs + max(schedule.dice_ramp_epochs, 1)
    ends = {warm, *(stage.before_epoch for stage in schedule.stages)}
    overlaps = loss.dice_weight > 0 or any(stage.dice_weight for stage in schedule.stages)
    counts = (
        True,
        overlaps and loss.overlap != "lovasz",
        weights.method != "uniform" and loss.kind != "soft_ce",
    )
    final = (loss.dice_weight, loss.smooth, weights.clip_ratio)
    return max(
        (
            end
            for end in ends
            if _values_differ(_loss_values(end - 1, loss, weights, schedule), final, counts)
        ),
        default=1,
    )


def _values_differ(
    values: Sequence[float | None], final: Sequence[float | None], counts: Sequence[bool]
) -> bool:
    """Return whether a value that counts differs: one that the loss does not use may change."""
    return any(
        value != end for value, end, counted in zip(values, final, counts, strict=True) if counted
    )


def _loss_values(
    epoch: int, loss: LossConfig, weights: WeightsConfig, schedule: ScheduleConfig
) -> tuple[float, float, float | None]:
    """Return Dice weight, smooth and clip ratio of an epoch."""
    dice_weight = _staged_value(epoch, schedule, "dice_weight")
    if dice_weight is None:
        dice_weight = loss.dice_weight * _dice_share(epoch, schedule)
    smooth = _staged_value(epoch, schedule, "smooth")
    if smooth is None:
        smooth = loss.smooth
    clip_ratio = _staged_value(epoch, schedule, "clip_ratio")
    if clip_ratio is None:
        clip_ratio = weights.clip_ratio
    return dice_weight, smooth, clip_ratio


def _staged_value(epoch: int, schedule: ScheduleConfig, name: Named) -> float | None:
    """Return the value of `name` by the first stage that has one in this epoch, or None."""
    for stage in schedule.stages:
        value: float | None = getattr(stage, name)
        if epoch < stage.before_epoch and value is not None:
            return value
    return None


def _dice_share(epoch: int, schedule: ScheduleConfig) -> float:
    """Return the share of the final Dice weight: 0 for k epochs, j/m in epoch k + j, then 1."""
    ramped = epoch - schedule.dice_ce_only_epochs
    if ramped <= 0:
        return 0.0
    return min(1.0, ramped / max(schedule.dice_ramp_epochs, 1))


def _learning_rate(
    epoch: int, epochs: int, optimizer: OptimizerConfig, schedule: ScheduleConfig
) -> float:
    multiple = _staged_value(epoch, schedule, "lr_multiple")
    peak = optimizer.base_lr * (optimizer.lr_multiple if multiple is None else multiple)
    return peak * _lr_factor(epoch, epochs, schedule)


def _lr_factor(epoch: int, epochs: int, schedule: ScheduleConfig) -> float:
    """Return the factor of the peak rate: e/n in epoch e ≤ n of the warm-up, then by `schedule.lr`.

    Linear and cosine start to decay after the warm-up's last epoch (or after epoch 1) and would
    reach 0 one epoch after the last: an epoch at rate 0 would train nothing (Loshchilov & Hutter
    2017, without restarts).
    """
    if epoch <= schedule.lr_warmup_epochs:
        return epoch / schedule.lr_warmup_epochs
    if schedule.lr == "constant":
        return 1.0
    peak_epoch = max(schedule.lr_warmup_epochs, 1)
    done = (epoch - peak_epoch) / (epochs + 1 - peak_epoch)
    if schedule.lr == "linear":
        return 1 - done
    return 0.5 * (1 + math.cos(math.pi * done))
