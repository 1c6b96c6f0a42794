"""The divergence signals: each a pure function of a trial's epoch records so far, the last one being the newest.

A rule returns the evidence when it fires, else None. Rules that watch epochs compare like with like: losses are put
together with the newest epoch's split, and epochs whose class weights differ, or which lie before the schedule has
settled, are left out. Every threshold is documented in `spaces.signals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from spaces.config import Direction
from spaces.records import EpochRecord, Evidence
from spaces.signals import (
    ClassCollapse,
    GradientExplosion,
    LossMetricDivorce,
    LossRising,
    MetricFalling,
    NonfiniteLoss,
    Overfitting,
    SignalsConfig,
)

Records = Sequence[EpochRecord]


def fired(records: Records, config: SignalsConfig, direction: Direction) -> Evidence | None:
    """The first signal that the records fire, step-wise ones before epoch-wise ones.

    Args:
        records: of one trial, in order of epochs; may be empty.
        config: which signals are on, and their thresholds.
        direction: of the metric.
    """
    if not records:
        return None
    found = nonfinite_loss(records, config.nonfinite_loss) or gradient_explosion(records, config.gradient_explosion)
    if found is not None or records[-1].epoch <= config.grace_epochs or not _measured(records[-1]):
        return found
    records = [record for record in records if _measured(record)]
    sign = 1.0 if direction == "maximize" else -1.0
    rules: tuple[Callable[[], Evidence | None], ...] = (
        lambda: loss_rising(records, config.loss_rising),
        lambda: metric_falling(records, config.metric_falling, sign),
        lambda: loss_metric_divorce(records, config.loss_metric_divorce, sign),
        lambda: overfitting(records, config.overfitting, sign),
        lambda: class_collapse(records, config.class_collapse),
    )
    return next((evidence for rule in rules if (evidence := rule()) is not None), None)


def nonfinite_loss(records: Records, rule: NonfiniteLoss) -> Evidence | None:
    """The loss or the gradient norm was NaN or infinite at a step."""
    last = records[-1]
    if not rule.enabled or (math.isfinite(last.train_loss) and math.isfinite(last.grad_norm_max)):
        return None
    numbers = {"train_loss": last.train_loss, "grad_norm_max": last.grad_norm_max, "lr": last.lr}
    what = "loss" if not math.isfinite(last.train_loss) else "gradient norm"
    return _evidence("nonfinite_loss", last, f"the {what} was not finite at step {last.broken_step} of epoch {last.epoch}", numbers)


def gradient_explosion(records: Records, rule: GradientExplosion) -> Evidence | None:
    """The gradient norm before clipping passed its bound at a step."""
    last = records[-1]
    if not rule.enabled or not last.grad_norm_max > rule.max_norm:
        return None
    numbers = {"grad_norm_max": last.grad_norm_max, "grad_norm_median": last.grad_norm_median, "max_norm": rule.max_norm, "lr": last.lr}
    step = f"step {last.broken_step} of " if last.broken_step else ""
    return _evidence("gradient_explosion", last, f"the gradient norm was {last.grad_norm_max:.4g} at {step}epoch {last.epoch}, over {rule.max_norm:g}", numbers)


def loss_rising(records: Records, rule: LossRising) -> Evidence | None:
    """The training loss rose in each of the last epochs, and by more than noise in all."""
    window = _comparable(records)[-(rule.epochs + 1) :]
    losses = _at_one_split(window)
    if not rule.enabled or len(window) <= rule.epochs or not all(a < b for a, b in pairwise(losses)):
        return None
    if losses[-1] <= losses[0] + rule.rise * abs(losses[0]):
        return None
    numbers = {"epochs": [record.epoch for record in window], "train_loss": losses}
    return _evidence("loss_rising", window[-1], f"the training loss rose {rule.epochs} epochs in a row, from {losses[0]:.4g} to {losses[-1]:.4g}", numbers)


def metric_falling(records: Records, rule: MetricFalling, sign: float = 1.0) -> Evidence | None:
    """The metric fell in each of the last epochs, and by more than noise in all."""
    window = records[-(rule.epochs + 1) :]
    values = [record.metric for record in window]
    if not rule.enabled or len(window) <= rule.epochs or not all(sign * a > sign * b for a, b in pairwise(values)):
        return None
    best = max(sign * record.metric for record in records)
    if sign * values[0] - sign * values[-1] < rule.drop * abs(best):
        return None
    numbers = {"epochs": [record.epoch for record in window], "metric": values, "best_metric": sign * best}
    return _evidence("metric_falling", window[-1], f"the metric got worse {rule.epochs} epochs in a row, from {values[0]:.4f} to {values[-1]:.4f}", numbers)


def loss_metric_divorce(records: Records, rule: LossMetricDivorce, sign: float = 1.0) -> Evidence | None:
    """Over the window the training loss fell and the smoothed metric fell, far below its best."""
    settled = _comparable(records)
    if not rule.enabled or len(settled) < rule.window + 3:
        return None
    smooth = _smoothed([sign * record.metric for record in settled])
    losses = _at_one_split(settled[-(rule.window + 1) :])
    best = max(smooth)
    if losses[-1] >= losses[0] or smooth[-1] >= smooth[-1 - rule.window] or best - smooth[-1] < rule.drop * abs(best):
        return None
    numbers = {
        "epochs": [record.epoch for record in settled[-(rule.window + 1) :]], "train_loss": losses,
        "metric": [record.metric for record in settled[-(rule.window + 1) :]], "best_smoothed_metric": sign * best, "smoothed_metric": sign * smooth[-1],
    }  # fmt: skip
    statement = f"over {rule.window} epochs the loss fell from {losses[0]:.4g} to {losses[-1]:.4g} while the metric went from {sign * best:.4f} at best to {sign * smooth[-1]:.4f}"
    return _evidence("loss_metric_divorce", settled[-1], statement, numbers)


def overfitting(records: Records, rule: Overfitting, sign: float = 1.0) -> Evidence | None:
    """The training loss fell while the validation loss rose for `patience` epochs, with no better metric in twice as many."""
    settled = _comparable(records)
    window = settled[-(rule.patience + 1) :]
    if not rule.enabled or len(settled) <= 2 * rule.patience:
        return None
    train, val = _at_one_split(window), [record.val_loss for record in window]
    lowest = min(record.val_loss for record in settled)
    still = 2 * rule.patience
    gaining = max(sign * record.metric for record in settled[-still:]) > max(sign * record.metric for record in settled[:-still])
    if gaining or train[-1] >= train[0] or not all(a < b for a, b in pairwise(val)) or val[-1] <= lowest + rule.rise * abs(lowest):
        return None
    numbers = {"epochs": [record.epoch for record in window], "train_loss": train, "val_loss": val, "lowest_val_loss": lowest}
    statement = f"the validation loss rose {rule.patience} epochs in a row to {val[-1]:.4g} (lowest {lowest:.4g}) while the training loss fell to {train[-1]:.4g}"
    return _evidence("overfitting", window[-1], statement, numbers)


def class_collapse(records: Records, rule: ClassCollapse) -> Evidence | None:
    """Many of the classes that the validation split holds stayed at 0 for long, or all but one for a few epochs."""
    if not rule.enabled:
        return None
    held = [index for index, value in enumerate(records[-1].class_metric) if value is not None]
    window = records[-rule.all_but_one_epochs :]
    dead = _dead(window, held)
    if len(held) < 3 or len(window) < rule.all_but_one_epochs or len(dead) < len(held) - 1:
        settled = _comparable(records)
        window = settled[-rule.epochs :]
        dead = _dead(window, held)
        if not held or len(settled) < rule.grace_epochs + rule.epochs or len(dead) < rule.share * len(held):
            return None
    numbers = {"dead_classes": dead, "held_classes": held, "epochs": [record.epoch for record in window]}
    statement = f"{len(dead)} of {len(held)} classes stayed at 0 from epoch {window[0].epoch} to {window[-1].epoch}"
    return _evidence("class_collapse", window[-1], statement, numbers)


def _dead(window: Records, held: Sequence[int]) -> list[int]:
    return [index for index in held if all(record.class_metric[index] == 0 for record in window)]


def _measured(record: EpochRecord) -> bool:
    """Whether the validation gave numbers; NaN is neither above nor below anything, and would void every threshold."""
    return not math.isnan(record.metric) and not math.isnan(record.val_loss)


def _comparable(records: Records) -> list[EpochRecord]:
    """The settled epochs that were trained with the newest epoch's class weights."""
    ratio = records[-1].weight_ratio
    return [record for record in records if record.settled and record.weight_ratio == ratio]


def _at_one_split(records: Records) -> list[float]:
    """Training losses put together with the newest epoch's split, so that a moving split moves nothing here."""
    if not records:
        return []
    last = records[-1]
    if any(record.dice_loss is None for record in records):
        return [record.ce_loss for record in records]
    return [last.ce_weight * record.ce_loss + last.dice_weight * (record.dice_loss or 0.0) for record in records]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Running median of three: one lucky or unlucky epoch is not a course."""
    return [median(values[max(0, index - 2) : index + 1]) for index in range(len(values))]


def _evidence(signal: str, record: EpochRecord, statement: str, numbers: Mapping[str, Any]) -> Evidence:
    return Evidence(signal, record.epoch, record.broken_step, statement, numbers, severity=1.0)
