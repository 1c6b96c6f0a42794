"""The signal `class_collapse`: most classes have near-zero metrics and are not recovering."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from search.pruners.epoch_windows import Records, make_evidence
from spaces.records import EpochRecord, Evidence
from spaces.thresholds import ClassCollapse


def class_collapse(records: Records, rule: ClassCollapse) -> Evidence | None:
    """Many classes of the validation split have near-zero IoU and are not recovering.

    It fires for many classes after a grace, or for all but one class over a few epochs. No epoch of
    the window may be in a warm-up of Dice or of the learning rate, where classes may stay at 0.
    """
    present = [index for index, value in enumerate(records[-1].class_metric) if value is not None]
    if not rule.enabled or not present:
        return None
    judged = _epochs_after_warm_up(
        records, max(rule.epochs, rule.all_but_one_epochs), rule.grace_epochs
    )
    window = rule.all_but_one_epochs
    dead = _dead_classes(records, present, window, rule) if judged >= window else []
    if len(present) < 3 or len(dead) < len(present) - 1:
        window = rule.epochs
        if judged < window or _in_grace(records, rule):
            return None
        dead = _dead_classes(records, present, window, rule)
        if len(dead) < rule.share * len(present):
            return None
    epochs = [record.epoch for record in records[-window:]]
    level = f"{rule.level:g} or less" if rule.level else "0"
    return make_evidence(
        "class_collapse",
        records[-1],
        f"{len(dead)} of {len(present)} classes stayed at {level}"
        f" from epoch {epochs[0]} to {epochs[-1]}",
        {"dead_classes": dead, "present_classes": present, "epochs": epochs},
        len(dead) / len(present),
    )


def _in_grace(records: Records, rule: ClassCollapse) -> bool:
    """Whether the window begins in the grace, or the trial has made too few optimizer steps.

    Where every epoch has one step the steps were not recorded, and do not count.
    """
    if records[-rule.epochs].epoch <= rule.grace_epochs:
        return True
    steps = [record.steps for record in records]
    return max(steps) > 1 and sum(steps) < rule.grace_steps


def _dead_classes(
    records: Records, present: Sequence[int], epochs: int, rule: ClassCollapse
) -> list[int]:
    """The classes at the level or below in each of the last epochs that are not recovering."""
    window = records[-epochs:]
    low = [
        index for index in present if all(_is_low(record, index, rule.level) for record in window)
    ]
    return [index for index in low if not _is_recovering(records, index, epochs, rule)]


def _is_low(record: EpochRecord, index: int, level: float) -> bool:
    value = _class_value(record, index)
    return value is not None and value <= level


def _class_value(record: EpochRecord, index: int) -> float | None:
    return record.class_metric[index] if index < len(record.class_metric) else None


def _is_recovering(records: Records, index: int, epochs: int, rule: ClassCollapse) -> bool:
    """Whether a class's mean over the last epochs is far above that of as many epochs before.

    Epochs without a value count as 0.
    """
    earlier = [_class_value(record, index) for record in records[-2 * epochs : -epochs]]
    before = [value for value in earlier if value is not None]
    now = fmean(_class_value(record, index) or 0.0 for record in records[-epochs:])
    return now > max(rule.waking_level, rule.waking_gain * (fmean(before) if before else 0.0))


def _epochs_after_warm_up(records: Records, most: int, grace_epochs: int) -> int:
    """The number of latest epochs after the warm-ups of Dice and the rate, at most `most`."""
    dice_epochs = (at for at, record in enumerate(records) if record.dice_weight > 0)
    first_dice = next(dice_epochs, None)
    most = min(most, len(records))
    for count in range(most):
        at = len(records) - 1 - count
        if first_dice is None:
            waiting = _may_wait_for_dice(records[at], grace_epochs)
        else:
            waiting = at < first_dice and not records[at].settled
        if waiting or (at and _warming_up(records[at], records[at - 1])):
            return count
    return most


def _may_wait_for_dice(record: EpochRecord, grace_epochs: int) -> bool:
    """Whether Dice, which has had no weight so far, may still be to come.

    The schedule has not settled. With equal class weights Dice alone can be the reason. Otherwise
    the reason may be the clip ratio of a trial that never uses Dice, which the records cannot show,
    so Dice is assumed to come during the grace only.
    """
    return not record.settled and (record.weight_ratio == 1 or record.epoch <= grace_epochs)


def _warming_up(record: EpochRecord, before: EpochRecord) -> bool:
    """Whether the learning rate is rising, or the weight of Dice is rising to its final value."""
    dice_rising = not record.settled and record.dice_weight > before.dice_weight
    return record.lr > before.lr or dice_rising
