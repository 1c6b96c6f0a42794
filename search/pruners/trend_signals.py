"""The signals that judge the course of losses and metric over a window of epochs.

The `sign` of the metric is 1 where it is maximized and -1 where it is minimized.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from search.pruners.epoch_windows import (
    Records,
    epoch_numbers,
    has_metric,
    last_comparable,
    last_validated,
    make_evidence,
    recombined_losses,
    relative_severity,
)
from search.pruners.robust_stats import (
    NOISE_EPOCHS,
    estimate_noise,
    median_slope,
    rising_share,
    running_median,
)
from spaces.records import Evidence
from spaces.thresholds import LossMetricDecoupling, LossRising, MetricFalling, Overfitting


def loss_rising(records: Records, rule: LossRising) -> Evidence | None:
    """The training loss rose over the window: steadily, by enough, and by more than its noise."""
    if not rule.enabled:
        return None
    past = last_comparable(records, max(NOISE_EPOCHS, rule.epochs + 1))
    if len(past) <= rule.epochs:
        return None
    losses = recombined_losses(past)
    window = losses[-(rule.epochs + 1) :]
    rise = median_slope(window) * rule.epochs
    if rise <= rule.rise * abs(window[0]) or rising_share(window) < rule.agreement:
        return None
    if rise <= rule.noise * estimate_noise(losses):
        return None
    return make_evidence(
        "loss_rising",
        past[-1],
        f"the training loss rose over {rule.epochs} epochs,"
        f" from {window[0]:.4g} to {window[-1]:.4g}",
        {"epochs": epoch_numbers(past, rule.epochs), "train_loss": window},
        relative_severity(rise, window[0]),
    )


def metric_falling(records: Records, rule: MetricFalling, sign: float = 1.0) -> Evidence | None:
    """The metric got worse over the window, in every epoch or, with slips, by more than noise."""
    if not rule.enabled or not has_metric(records[-1]):
        return None
    past = last_validated(records, max(NOISE_EPOCHS, rule.epochs + 1))
    if len(past) <= rule.epochs:
        return None
    worse = [-sign * record.metric for record in past]
    window = worse[-(rule.epochs + 1) :]
    drop = median_slope(window) * rule.epochs
    best = max(_signed_metrics(records, sign))
    if not _fell_far_enough(drop, worse, window, best, rule):
        return None
    values = [-sign * value for value in window]
    return make_evidence(
        "metric_falling",
        past[-1],
        f"the metric got worse over {rule.epochs} epochs, from {values[0]:.4f} to {values[-1]:.4f}",
        {
            "epochs": epoch_numbers(past, rule.epochs),
            "metric": values,
            "best_metric": sign * best,
        },
        relative_severity(drop, best),
    )


def _fell_far_enough(
    drop: float, worse: Sequence[float], window: Sequence[float], best: float, rule: MetricFalling
) -> bool:
    """Whether the drop over the window counts.

    Args:
        drop: over the window, by its slope.
        worse: the metric of the past epochs, with the sign by which higher is worse.
        window: the last of them.
        best: the best metric, with the sign by which higher is better.
        rule: the thresholds; those for slips count where the metric did not fall in every epoch.
    """
    agreement = rising_share(window)
    if drop <= 0 or agreement < rule.agreement:
        return False
    if agreement == 1:
        return drop >= rule.drop * abs(best)
    return drop >= rule.slipping_drop * abs(best) and drop > rule.noise * estimate_noise(worse)


def loss_metric_decoupling(
    records: Records, rule: LossMetricDecoupling, sign: float = 1.0
) -> Evidence | None:
    """The training loss fell and the metric fell with it, far below its best.

    Either both fell over the window, the metric after smoothing, or both in each of a few epochs.
    """
    if not rule.enabled or not has_metric(records[-1]):
        return None
    gains = _signed_metrics(records, sign)
    smooth = running_median(gains)
    best = max(smooth)
    drop = _drop_from_best(smooth, gains)
    if drop <= rule.noise * estimate_noise(gains[-NOISE_EPOCHS:]):
        return None
    comparable = last_comparable(records, 1 + max(rule.window, rule.unbroken_epochs))
    if drop >= rule.drop * abs(best) and _both_fell(comparable, smooth, rule.window):
        steps = rule.window
    elif drop >= rule.unbroken_drop * abs(best) and _both_fell_each_epoch(
        comparable, sign, rule.unbroken_epochs
    ):
        steps = rule.unbroken_epochs
    else:
        return None
    window = comparable[-(steps + 1) :]
    losses = recombined_losses(window)
    return make_evidence(
        "loss_metric_decoupling",
        window[-1],
        f"over {steps} epochs the loss fell from {losses[0]:.4g} to {losses[-1]:.4g} while the"
        f" metric went from {sign * best:.4f} at best to {sign * smooth[-1]:.4f}",
        {
            "epochs": epoch_numbers(window, steps),
            "train_loss": losses,
            "metric": [record.metric for record in window],
            "best_smoothed_metric": sign * best,
            "smoothed_metric": sign * smooth[-1],
        },
        relative_severity(drop, best),
    )


def _signed_metrics(records: Records, sign: float) -> list[float]:
    """The finite metrics, with the sign by which higher is better."""
    return [sign * record.metric for record in records if has_metric(record)]


def _drop_from_best(smooth: Sequence[float], gains: Sequence[float]) -> float:
    """How far the metric is below its smoothed best; a dip that the latest epoch left is none."""
    return max(smooth) - max(smooth[-1], gains[-1])


def _both_fell(comparable: Records, smooth: Sequence[float], steps: int) -> bool:
    """Whether loss and smoothed metric fell over so many steps, slips or not."""
    if min(len(comparable), len(smooth)) <= steps:
        return False
    losses = recombined_losses(comparable[-(steps + 1) :])
    return median_slope(losses) < 0 and median_slope(smooth[-(steps + 1) :]) < 0


def _both_fell_each_epoch(comparable: Records, sign: float, steps: int) -> bool:
    """Whether loss and metric, not smoothed, fell in each of so many steps."""
    window = comparable[-(steps + 1) :]
    if len(window) <= steps:
        return False
    metrics = [sign * record.metric for record in window]
    return _falls_each_time(recombined_losses(window)) and _falls_each_time(metrics)


def _falls_each_time(values: Sequence[float]) -> bool:
    return all(later < earlier for earlier, later in pairwise(values))


def overfitting(records: Records, rule: Overfitting, sign: float = 1.0) -> Evidence | None:
    """The training loss fell, the validation loss rose far, and the metric has stopped gaining.

    Epochs before the schedule has settled do not count, as their validation loss is that of another
    criterion.
    """
    latest = records[-1]
    if not rule.enabled or not has_metric(latest) or not math.isfinite(latest.val_loss):
        return None
    window = last_comparable(records, rule.patience + 1)
    if len(window) <= rule.patience or not window[0].settled:
        return None
    train = recombined_losses(window)
    val = running_median(_settled_val_losses(records))
    if median_slope(train) >= 0 or not _val_loss_rose(window, val, rule):
        return None
    if not _metric_stalled(_signed_metrics(records, sign), rule):
        return None
    lowest = min(val)
    numbers = {
        "epochs": epoch_numbers(window, rule.patience),
        "train_loss": train,
        "val_loss": [record.val_loss for record in window],
        "lowest_val_loss": lowest,
    }
    return make_evidence(
        "overfitting",
        window[-1],
        f"the validation loss rose to {val[-1]:.4g} (lowest {lowest:.4g}) while the training loss"
        f" fell to {train[-1]:.4g} and the metric gained nothing in {rule.stall_epochs} epochs",
        numbers,
        relative_severity(val[-1] - lowest, lowest),
    )


def _settled_val_losses(records: Records) -> list[float]:
    """The finite validation losses of the epochs after the schedule has settled."""
    settled = [record.val_loss for record in records if record.settled]
    return [loss for loss in settled if math.isfinite(loss)]


def _val_loss_rose(window: Records, val: Sequence[float], rule: Overfitting) -> bool:
    """Whether the validation loss rose over the window, and far above its minimum.

    Args:
        window: the records.
        val: the smoothed validation losses of all settled epochs.
        rule: the thresholds.
    """
    losses = [record.val_loss for record in window if math.isfinite(record.val_loss)]
    if len(losses) <= rule.patience or median_slope(losses) <= 0:
        return False
    return val[-1] > min(val) + rule.rise * abs(min(val))


def _metric_stalled(gains: Sequence[float], rule: Overfitting) -> bool:
    """Whether the metric has not improved for long enough, and is far below its best."""
    if len(gains) <= rule.stall_epochs:
        return False
    if max(gains[-rule.stall_epochs :]) > max(gains[: -rule.stall_epochs]):
        return False
    smooth = running_median(gains)
    return _drop_from_best(smooth, gains) >= rule.drop * abs(max(smooth))
