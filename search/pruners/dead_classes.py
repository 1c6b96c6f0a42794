"""Classes of the validation split whose metrics are near zero and that are not recovering."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from search.pruners.epoch_windows import Records
from spaces.records import EpochRecord
from spaces.thresholds import FOUND_LEVEL, DeadClasses

LEARNED_WITHIN = 100
"""Number of latest epochs in which a class may have been learned, so that long trials cost no more."""


@dataclass(frozen=True, slots=True)
class FoundDead:
    """The dead classes of a trial, by index.

    Attributes:
        present: classes that the validation split contains.
        dead: those that are near zero in each of the last `epochs` and are not recovering.
        are_most: whether they are all classes but one, or the share of them that counts.
    """

    present: list[int]
    dead: list[int]
    epochs: int
    are_most: bool


def find_dead(records: Records, rule: DeadClasses) -> FoundDead | None:
    """Find the dead classes; None in the grace period and where there are none.

    In the grace period only all classes but one count. No epoch of the window may be in a warm-up
    of Dice or of the learning rate, where classes may stay at 0.
    """
    present = [index for index, value in enumerate(records[-1].class_metric) if value is not None]
    if not present:
        return None
    longest = max(rule.epochs, rule.all_but_one_epochs)
    judged = count_judged_epochs(records, longest, rule.grace_epochs)
    window = rule.all_but_one_epochs
    if judged >= window and len(present) > 2:
        dead = _dead_classes(records, present, window, rule)
        if len(dead) >= len(present) - 1:
            return FoundDead(present, dead, window, are_most=True)
    if judged < rule.epochs or _in_grace(records, rule):
        return None
    dead = _dead_classes(records, present, rule.epochs, rule)
    if not dead:
        return None
    are_most = len(dead) >= rule.share * len(present)
    return FoundDead(present, dead, rule.epochs, are_most)


def select_learned(records: Records, indices: Iterable[int], rule: DeadClasses) -> list[int]:
    """The classes that were above `found_level` in two epochs in a row."""
    recent = records[-LEARNED_WITHIN:]
    return [index for index in indices if _was_learned(recent, index, rule.found_level)]


def select_never_found(records: Records, indices: Iterable[int]) -> list[int]:
    """The classes of which no epoch found anything, see `FOUND_LEVEL`."""
    return [
        index
        for index in indices
        if all((_class_value(record, index) or 0.0) <= FOUND_LEVEL for record in records)
    ]


def _was_learned(records: Records, index: int, level: float) -> bool:
    high = [(_class_value(record, index) or 0.0) > level for record in records]
    return any(first and second for first, second in pairwise(high))


def _in_grace(records: Records, rule: DeadClasses) -> bool:
    """Whether the window begins in the grace, or the trial has made too few optimizer steps.

    Where every epoch has one step the steps were not recorded, and do not count.
    """
    if records[-rule.epochs].epoch <= rule.grace_epochs:
        return True
    steps = 0
    for record in records:
        steps += record.steps
        if steps >= rule.grace_steps:
            return False
    return any(record.steps > 1 for record in records)


def _dead_classes(
    records: Records, present: Sequence[int], epochs: int, rule: DeadClasses
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


def _is_recovering(records: Records, index: int, epochs: int, rule: DeadClasses) -> bool:
    """Whether a class's mean over the last epochs is far above that of as many epochs before.

    Epochs without a value count as 0.
    """
    earlier = [_class_value(record, index) for record in records[-2 * epochs : -epochs]]
    before = [value for value in earlier if value is not None]
    now = fmean(_class_value(record, index) or 0.0 for record in records[-epochs:])
    return now > max(rule.waking_level, rule.waking_gain * (fmean(before) if before else 0.0))


def count_judged_epochs(records: Records, most: int, grace_epochs: int) -> int:
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
