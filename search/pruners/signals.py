"""The divergence signals: each a pure function of a trial's epoch records so far, the last one being the newest.

A rule returns the evidence when it fires, else None. Where a rule says "keeps rising" or "keeps falling", noise is told
from a course by a robust slope, by the share of pairs that agree with it, and by a margin in units of the trial's own
noise. Losses are put together at the newest epoch's split and compared only among epochs with the same class weights and
the same smooth, so that a schedule is no alarm. Rules look at a window, not at all of the past. A record without the
numbers that a rule needs is passed over by it: a gap in the records counts as no time. Every threshold is documented in
`spaces.thresholds`, and what the rules do to recorded trials in docs/backtest.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from search.pruners.robust_stats import NOISE_EPOCHS, noise, rising_share, slope, smoothed
from spaces.config import Direction
from spaces.records import EpochRecord, Evidence
from spaces.thresholds import (
    ClassCollapse,
    GradientExplosion,
    LossMetricDecoupling,
    LossRising,
    MetricFalling,
    NonfiniteLoss,
    Overfitting,
    SignalsConfig,
)

Records = Sequence[EpochRecord]

LEAST_SEVERITY = 0.1
"""Of a signal that fired; one that is not finite, or over its bound at a step, has 1."""

NEEDS = {
    "gradient_explosion": "gradient norms",
    "class_collapse": "class metrics",
    "overfitting": "validation losses",
}
"""What a record may lack, by the signal that then cannot judge; epoch, loss and metric are always there."""


def fired(records: Records, config: SignalsConfig, direction: Direction) -> Evidence | None:
    """The first signal that the records fire, step-wise ones before epoch-wise ones.

    Args:
        records: of one trial, in order of epochs; may be empty.
        config: which signals are on, and their thresholds.
        direction: of the metric.
    """
    if not records:
        return None
    found = nonfinite_loss(records, config.nonfinite_loss) or gradient_explosion(
        records, config.gradient_explosion
    )
    if found is not None or records[-1].epoch <= config.grace_epochs:
        return found
    sign = 1.0 if direction == "maximize" else -1.0
    rules: tuple[Callable[[], Evidence | None], ...] = (
        lambda: loss_rising(records, config.loss_rising),
        lambda: metric_falling(records, config.metric_falling, sign),
        lambda: loss_metric_decoupling(records, config.loss_metric_decoupling, sign),
        lambda: overfitting(records, config.overfitting, sign),
        lambda: class_collapse(records, config.class_collapse),
    )
    return next((evidence for rule in rules if (evidence := rule()) is not None), None)


def unjudged(signal: str, records: Records) -> bool:
    """Whether the records lack what the signal needs, so that its silence means nothing."""
    return not {
        "gradient_explosion": lambda: any(record.steps for record in records),
        "class_collapse": lambda: any(
            value is not None for record in records for value in record.class_metric
        ),
        "overfitting": lambda: any(math.isfinite(record.val_loss) for record in records),
    }.get(signal, lambda: True)()


def nonfinite_loss(records: Records, rule: NonfiniteLoss) -> Evidence | None:
    """The loss or the gradient norm was NaN or infinite at a step. Where no step was watched, the loss alone counts."""
    last = records[-1]
    sound = math.isfinite(last.grad_norm_max) or not last.steps
    if not rule.enabled or (math.isfinite(last.train_loss) and sound):
        return None
    numbers = {"train_loss": last.train_loss, "grad_norm_max": last.grad_norm_max, "lr": last.lr}
    what = "loss" if not math.isfinite(last.train_loss) else "gradient norm"
    return _evidence(
        "nonfinite_loss", last, f"the {what} was not finite at {_place(last)}", numbers
    )


def gradient_explosion(records: Records, rule: GradientExplosion) -> Evidence | None:
    """The gradient norm before clipping passed its bound at a step."""
    last = records[-1]
    if not rule.enabled or not last.grad_norm_max > rule.max_norm:
        return None
    numbers = {
        "grad_norm_max": last.grad_norm_max,
        "grad_norm_median": last.grad_norm_median,
        "max_norm": rule.max_norm,
        "lr": last.lr,
    }
    return _evidence(
        "gradient_explosion",
        last,
        f"the gradient norm was {last.grad_norm_max:.4g} at {_place(last)}, over {rule.max_norm:g}",
        numbers,
    )


def loss_rising(records: Records, rule: LossRising) -> Evidence | None:
    """The training loss, at one split, rose over the window: steadily, by enough, and by more than noise."""
    if not rule.enabled:
        return None
    past = _comparable(records, max(NOISE_EPOCHS, rule.epochs + 1))
    if len(past) <= rule.epochs:
        return None
    losses = _at_one_split(past)
    window = losses[-(rule.epochs + 1) :]
    rise = slope(window) * rule.epochs
    if (
        rise <= rule.rise * abs(window[0])
        or rising_share(window) < rule.agreement
        or rise <= rule.noise * noise(losses)
    ):
        return None
    numbers = {"epochs": _epochs(past, rule.epochs), "train_loss": window}
    return _evidence(
        "loss_rising",
        past[-1],
        f"the training loss rose over {rule.epochs} epochs, from {window[0]:.4g} to {window[-1]:.4g}",
        numbers,
        _share(rise, window[0]),
    )


def metric_falling(records: Records, rule: MetricFalling, sign: float = 1.0) -> Evidence | None:
    """The metric got worse over the window: in every epoch; or with slips, and then by far and by more than noise."""
    if not rule.enabled or not math.isfinite(records[-1].metric):
        return None
    past = _last(records, max(NOISE_EPOCHS, rule.epochs + 1), _has_metric)
    if len(past) <= rule.epochs:
        return None
    worse = [-sign * record.metric for record in past]
    window = worse[-(rule.epochs + 1) :]
    loss, agreement = slope(window) * rule.epochs, rising_share(window)
    if loss <= 0 or agreement < rule.agreement:
        return None
    best = max(sign * record.metric for record in records if _has_metric(record))
    slips = agreement < 1
    if loss < (rule.slipping_drop if slips else rule.drop) * abs(best) or (
        slips and loss <= rule.noise * noise(worse)
    ):
        return None
    values = [-sign * value for value in window]
    numbers = {"epochs": _epochs(past, rule.epochs), "metric": values, "best_metric": sign * best}
    return _evidence(
        "metric_falling",
        past[-1],
        f"the metric got worse over {rule.epochs} epochs, from {values[0]:.4f} to {values[-1]:.4f}",
        numbers,
        _share(loss, best),
    )


def loss_metric_decoupling(
    records: Records, rule: LossMetricDecoupling, sign: float = 1.0
) -> Evidence | None:
    """Over the window the training loss fell and the smoothed metric fell, far below its best; or both fell in each of a few epochs."""
    if not rule.enabled or not math.isfinite(records[-1].metric):
        return None
    gains = [sign * record.metric for record in records if _has_metric(record)]
    smooth = smoothed(gains)
    best = max(smooth)
    lost = best - max(smooth[-1], gains[-1])  # a dip that the newest epoch is out of again is none
    if lost <= rule.noise * noise(gains[-NOISE_EPOCHS:]):
        return None
    comparable = _comparable(records, 1 + max(rule.window, rule.unbroken_epochs))
    if lost >= rule.drop * abs(best) and _apart(comparable, smooth, rule.window):
        steps = rule.window
    elif lost >= rule.unbroken_drop * abs(best) and _apart_unbroken(
        comparable, sign, rule.unbroken_epochs
    ):
        steps = rule.unbroken_epochs
    else:
        return None
    window = comparable[-(steps + 1) :]
    losses = _at_one_split(window)
    numbers = {
        "epochs": _epochs(window, steps),
        "train_loss": losses,
        "metric": [record.metric for record in window],
        "best_smoothed_metric": sign * best,
        "smoothed_metric": sign * smooth[-1],
    }
    statement = f"over {steps} epochs the loss fell from {losses[0]:.4g} to {losses[-1]:.4g} while the metric went from {sign * best:.4f} at best to {sign * smooth[-1]:.4f}"
    return _evidence("loss_metric_decoupling", window[-1], statement, numbers, _share(lost, best))


def _apart(comparable: Records, smooth: Sequence[float], steps: int) -> bool:
    """Whether loss and smoothed metric fell over so many steps, slips or not."""
    if min(len(comparable), len(smooth)) <= steps:
        return False
    return (
        slope(_at_one_split(comparable[-(steps + 1) :])) < 0 and slope(smooth[-(steps + 1) :]) < 0
    )


def _apart_unbroken(comparable: Records, sign: float, steps: int) -> bool:
    """Whether loss and metric, as they are, fell in each of so many steps."""
    window = comparable[-(steps + 1) :]
    falls = (_at_one_split(window), [sign * record.metric for record in window])
    return len(window) > steps and all(
        later < earlier for values in falls for earlier, later in pairwise(values)
    )


def overfitting(records: Records, rule: Overfitting, sign: float = 1.0) -> Evidence | None:
    """The training loss fell while the validation loss rose for `patience` epochs and far, and the metric has stopped gaining.

    Only once the schedule has settled: before, the validation loss is of a criterion that is not trained yet.
    """
    if (
        not rule.enabled
        or not math.isfinite(records[-1].metric)
        or not math.isfinite(records[-1].val_loss)
    ):
        return None
    window = _comparable(records, rule.patience + 1)
    if len(window) <= rule.patience or not window[0].settled or slope(_at_one_split(window)) >= 0:
        return None
    val = smoothed(
        [record.val_loss for record in records if record.settled and math.isfinite(record.val_loss)]
    )
    rising = [record.val_loss for record in window if math.isfinite(record.val_loss)]
    if (
        len(rising) <= rule.patience
        or slope(rising) <= 0
        or val[-1] <= min(val) + rule.rise * abs(min(val))
    ):
        return None
    gains = [sign * record.metric for record in records if _has_metric(record)]
    if len(gains) <= rule.stall_epochs or max(gains[-rule.stall_epochs :]) > max(
        gains[: -rule.stall_epochs]
    ):
        return None
    smooth = smoothed(gains)
    if max(smooth) - max(smooth[-1], gains[-1]) < rule.drop * abs(max(smooth)):
        return None
    train = _at_one_split(window)
    numbers = {
        "epochs": _epochs(window, rule.patience),
        "train_loss": train,
        "val_loss": [record.val_loss for record in window],
        "lowest_val_loss": min(val),
    }
    statement = f"the validation loss rose to {val[-1]:.4g} (lowest {min(val):.4g}) while the training loss fell to {train[-1]:.4g} and the metric gained nothing in {rule.stall_epochs} epochs"
    return _evidence(
        "overfitting", window[-1], statement, numbers, _share(val[-1] - min(val), min(val))
    )


def class_collapse(records: Records, rule: ClassCollapse) -> Evidence | None:
    """Many of the classes that the validation split holds are hardly found, and not waking, after a grace; or all but one for a few epochs.

    No epoch of the window may lie in a warm-up of Dice or of the learning rate, in which classes may sleep.
    """
    held = [index for index, value in enumerate(records[-1].class_metric) if value is not None]
    if not rule.enabled or not held:
        return None
    awake = _awake_epochs(records, max(rule.epochs, rule.all_but_one_epochs), rule.grace_epochs)
    window = rule.all_but_one_epochs
    dead = _dead(records, held, window, rule) if awake >= window else []
    if len(held) < 3 or len(dead) < len(held) - 1:
        window = rule.epochs
        if (
            awake < window
            or records[-window].epoch <= rule.grace_epochs
            or _few_steps(records, rule.grace_steps)
        ):
            return None
        dead = _dead(records, held, window, rule)
        if len(dead) < rule.share * len(held):
            return None
    first, last = records[-window].epoch, records[-1].epoch
    numbers = {
        "dead_classes": dead,
        "held_classes": held,
        "epochs": [record.epoch for record in records[-window:]],
    }
    nothing = f"{rule.level:g} or less" if rule.level else "0"
    statement = (
        f"{len(dead)} of {len(held)} classes stayed at {nothing} from epoch {first} to {last}"
    )
    return _evidence("class_collapse", records[-1], statement, numbers, len(dead) / len(held))


def _dead(records: Records, held: Sequence[int], epochs: int, rule: ClassCollapse) -> list[int]:
    """The classes that were at the level or below in each of the last epochs, and are not waking."""
    window = records[-epochs:]
    low = [index for index in held if all(_at_most(record, index, rule.level) for record in window)]
    return [index for index in low if not _waking(records, index, epochs, rule)]


def _at_most(record: EpochRecord, index: int, level: float) -> bool:
    value = _of_class(record, index)
    return value is not None and value <= level


def _of_class(record: EpochRecord, index: int) -> float | None:
    return record.class_metric[index] if index < len(record.class_metric) else None


def _waking(records: Records, index: int, epochs: int, rule: ClassCollapse) -> bool:
    """Whether a class is found by much more over the last epochs than over as many before; nothing is known to be as good as 0."""
    before = [
        value
        for record in records[-2 * epochs : -epochs]
        if (value := _of_class(record, index)) is not None
    ]
    now = fmean(_of_class(record, index) or 0.0 for record in records[-epochs:])
    return now > max(rule.waking_level, rule.waking_gain * (fmean(before) if before else 0.0))


def _few_steps(records: Records, steps: int) -> bool:
    """Whether the trial has made fewer optimiser steps; where every epoch counts as one step nobody recorded them."""
    made = [record.steps for record in records]
    return max(made) > 1 and sum(made) < steps


def _awake_epochs(records: Records, most: int, grace_epochs: int) -> int:
    """How many of the last epochs, so many at most, lie behind the warm-ups of Dice and of the learning rate."""
    came = next((at for at, record in enumerate(records) if record.dice_weight > 0), None)
    for count, at in enumerate(range(len(records) - 1, max(-1, len(records) - 1 - most), -1)):
        waits = (
            _waits_for_dice(records[at], grace_epochs)
            if came is None
            else at < came and not records[at].settled
        )
        if waits or (at and _warming(records[at], records[at - 1])):
            return count
    return min(most, len(records))


def _waits_for_dice(record: EpochRecord, grace_epochs: int) -> bool:
    """Whether Dice, of which nothing was seen so far, can be held to be still to come.

    Something has not settled. Where classes weigh the same that can be Dice alone. Else it may as well be the clip ratio
    of a trial that never has Dice, and records tell only what was: so it has the benefit of the doubt during the grace.
    """
    return not record.settled and (record.weight_ratio == 1 or record.epoch <= grace_epochs)


def _warming(record: EpochRecord, before: EpochRecord) -> bool:
    """Whether the rate is rising, or Dice has yet to come in with the whole of its weight."""
    return record.lr > before.lr or (not record.settled and record.dice_weight > before.dice_weight)


def _has_metric(record: EpochRecord) -> bool:
    """Whether the validation gave a number; NaN is neither above nor below anything, and would void every threshold."""
    return math.isfinite(record.metric)


def _last(records: Records, count: int, kept: Callable[[EpochRecord], bool]) -> list[EpochRecord]:
    """The last so many records that are kept, in order."""
    found: list[EpochRecord] = []
    for record in reversed(records):
        if kept(record):
            found.append(record)
            if len(found) == count:
                break
    return found[::-1]


def _comparable(records: Records, count: int) -> list[EpochRecord]:
    """The last records, so many at most, whose losses mean the same as the newest one's: same class weights, same smooth."""
    last = records[-1]
    found: list[EpochRecord] = []
    for record in reversed(records):
        same_dice = (record.dice_loss is None) == (last.dice_loss is None) and (
            record.dice_loss is None or record.smooth == last.smooth
        )
        if len(found) == count or record.weight_ratio != last.weight_ratio or not same_dice:
            break
        if math.isfinite(record.train_loss) and math.isfinite(record.ce_loss):
            found.append(record)
    return found[::-1]


def _at_one_split(records: Records) -> list[float]:
    """Training losses put together with the newest epoch's split, so that a moving split moves nothing here."""
    last = records[-1]
    if last.dice_loss is None:
        return [record.ce_loss for record in records]
    return [
        last.ce_weight * record.ce_loss + last.dice_weight * (record.dice_loss or 0.0)
        for record in records
    ]


def _epochs(records: Records, steps: int) -> list[int]:
    return [record.epoch for record in records[-(steps + 1) :]]


def _place(record: EpochRecord) -> str:
    return (
        f"step {record.broken_step} of " if record.broken_step else ""
    ) + f"epoch {record.epoch}"


def _share(moved: float, of: float) -> float:
    """How hard a trial diverged, above 0 and up to 1: what it moved the wrong way, as a share."""
    return min(1.0, max(LEAST_SEVERITY, abs(moved / of) if of else 1.0))


def _evidence(
    signal: str,
    record: EpochRecord,
    statement: str,
    numbers: Mapping[str, Any],
    severity: float = 1.0,
) -> Evidence:
    return Evidence(signal, record.epoch, record.broken_step, statement, numbers, severity)
