"""What the loss and the optimiser use in an epoch: a pure function of the configuration and the epoch's number.

Epochs count from 1. A value holds for the whole epoch; the steps in it share it.
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
    """The scheduled values of one epoch. `settled`: split, smooth and clip ratio are final from this epoch on."""

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
    """The values of `epoch`, out of `epochs`.

    The first stage that covers the epoch and names a value wins: over the configuration's own value and, for the
    Dice weight, over the warm-up.

    Raises:
        ConfigError: when the epoch lies outside 1 … epochs.
    """
    if not 1 <= epoch <= epochs:
        raise ConfigError(
            f"epoch {epoch} lies outside the training",
            where="epoch",
            found=str(epoch),
            allowed=f"1 … {epochs}",
        )
    schedule = with_stages(schedule, loss, optimizer, epochs)
    dice_weight, smooth, clip_ratio = _loss_values(epoch, loss, weights, schedule)
    return EpochValues(
        epoch=epoch,
        lr=_lr(epoch, epochs, optimizer, schedule),
        ce_weight=loss.ce_weight if dice_weight == loss.dice_weight else 1 - dice_weight,
        dice_weight=dice_weight,
        smooth=smooth,
        clip_ratio=clip_ratio,
        settled=epoch >= _settled_from(loss, weights, schedule),
    )


def with_stages(
    schedule: ScheduleConfig, loss: LossConfig, optimizer: OptimizerConfig, epochs: int
) -> ScheduleConfig:
    """The schedule with everything that its names stand for as stages, after those that are written out.

    `plan: progressive` is a plan in three phases, relative to the final values: 5 epochs without Dice at 5/3 of the rate
    (×0.5 for a final ×0.3), 10 with half the Dice share (0.8/0.2 for a final 0.6/0.4) and smooth 5, then those values.
    """
    scaled, stages = scaled_to(epochs), list(schedule.stages)
    if schedule.plan == "progressive":
        first, second = scaled(5), scaled(5) + scaled(10)
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
    """The first epoch from which split, smooth and clip ratio keep their final values.

    It may lie beyond the last epoch, in which case the configured values are never trained with.
    """
    return _settled_from(loss, weights, with_stages(schedule, loss, optimizer, epochs))


def _settled_from(loss: LossConfig, weights: WeightsConfig, schedule: ScheduleConfig) -> int:
    """The same for a schedule whose stages are all written out."""
    # Values change only where a stage or the warm-up ends, and a stage covers everything before its end: the
    # epoch just before each end tells whether what ends there differed from the final values.
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
            if _differ(_loss_values(end - 1, loss, weights, schedule), final, counts)
        ),
        default=1,
    )


def _differ(
    values: Sequence[float | None], final: Sequence[float | None], counts: Sequence[bool]
) -> bool:
    """Whether a value that takes part is another one: what no loss takes up may change as it likes."""
    return any(
        value != end for value, end, counted in zip(values, final, counts, strict=True) if counted
    )


def _loss_values(
    epoch: int, loss: LossConfig, weights: WeightsConfig, schedule: ScheduleConfig
) -> tuple[float, float, float | None]:
    """Dice weight, smooth and clip ratio of an epoch."""
    dice_weight = _staged(epoch, schedule, "dice_weight")
    smooth = _staged(epoch, schedule, "smooth")
    clip_ratio = _staged(epoch, schedule, "clip_ratio")
    return (
        loss.dice_weight * _dice_share(epoch, schedule) if dice_weight is None else dice_weight,
        loss.smooth if smooth is None else smooth,
        weights.clip_ratio if clip_ratio is None else clip_ratio,
    )


def _staged(epoch: int, schedule: ScheduleConfig, name: Named) -> float | None:
    """The value that a stage gives to `name` in this epoch, or None when no stage does."""
    for stage in schedule.stages:
        value: float | None = getattr(stage, name)
        if epoch < stage.before_epoch and value is not None:
            return value
    return None


def _dice_share(epoch: int, schedule: ScheduleConfig) -> float:
    """The share of the final Dice weight: 0 for k epochs, then j/m in epoch k + j, 1 from epoch k + m on."""
    ramped = epoch - schedule.dice_ce_only_epochs
    if ramped <= 0:
        return 0.0
    return min(1.0, ramped / max(schedule.dice_ramp_epochs, 1))


def _lr(epoch: int, epochs: int, optimizer: OptimizerConfig, schedule: ScheduleConfig) -> float:
    multiple = _staged(epoch, schedule, "lr_multiple")
    peak = optimizer.base_lr * (optimizer.lr_multiple if multiple is None else multiple)
    return peak * _lr_factor(epoch, epochs, schedule)


def _lr_factor(epoch: int, epochs: int, schedule: ScheduleConfig) -> float:
    """e/n in epoch e ≤ n of the warm-up, so its last epoch runs at the full rate; then 1, a straight line, or a half cosine.

    Line and cosine leave 1 after the warm-up's last epoch (or after epoch 1) and would reach 0 one epoch after the last
    one: an epoch at rate 0 would train nothing (Loshchilov & Hutter 2017, without restarts).
    """
    if epoch <= schedule.lr_warmup_epochs:
        return epoch / schedule.lr_warmup_epochs
    if schedule.lr == "constant":
        return 1.0
    peak_epoch = max(schedule.lr_warmup_epochs, 1)
    gone = (epoch - peak_epoch) / (epochs + 1 - peak_epoch)
    return 1 - gone if schedule.lr == "linear" else 0.5 * (1 + math.cos(math.pi * gone))
