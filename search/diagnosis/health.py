"""The signs of health of a trial: what a good training looks like, checked on every one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from spaces.config import Direction
from spaces.records import EpochRecord

HEALTHY_NORM = (0.1, 10.0)
"""Gradient norms before clipping."""

STEADY_SHARE = 2 / 3
"""A loss falls steadily when it fell in at least so many of the epochs; minibatch noise makes the others."""

HELD_WITHIN = 0.02
"""Frequent classes have held when their mean lost no more than this; it is about the noise between two epochs."""


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of health: present, missing, or None when the records are too few to tell; with the numbers."""

    name: str
    present: bool | None
    told: str

    def __str__(self) -> str:
        word = {True: "present", False: "missing", None: "not judged"}[self.present]
        return f"{word}: {self.name} ({self.told})"


def health(records: Sequence[EpochRecord], direction: Direction) -> tuple[str, ...]:
    """The signs of health of a trial, present and missing, a line each with its numbers."""
    return tuple(str(sign) for sign in signs(records, direction))


def signs(records: Sequence[EpochRecord], direction: Direction) -> tuple[Sign, ...]:
    """The signs of health of a trial. Epochs that broke off say nothing; losses are compared once the schedule has settled."""
    whole = [record for record in records if record.broken_step is None]
    settled = [record for record in whole if record.settled]
    return (
        _falling_loss(settled),
        _improving_metric(whole, direction),
        _healthy_norm(whole),
        _falling_parts(settled),
        _fair_gains(whole),
    )


def _falling_loss(records: Sequence[EpochRecord]) -> Sign:
    name = "a steadily falling training loss"
    if len(records) < 2:
        return Sign(name, None, "fewer than 2 epochs with the final loss")
    falls = sum(after.train_loss < before.train_loss for before, after in pairwise(records))
    steps, first, last = len(records) - 1, records[0].train_loss, records[-1].train_loss
    return Sign(
        name,
        last < first and falls >= STEADY_SHARE * steps,
        f"{first:.4g} → {last:.4g}, lower in {falls} of {steps} epochs",
    )


def _improving_metric(records: Sequence[EpochRecord], direction: Direction) -> Sign:
    name, values = "an improving metric", [record.metric for record in records]
    if len(values) < 2:
        return Sign(name, None, "fewer than 2 epochs")
    # Means of halves, and not the first and the last epoch: one of those may be lucky.
    early, late = fmean(values[: len(values) // 2]), fmean(values[len(values) // 2 :])
    told = f"mean of the first half {early:.4f}, of the second {late:.4f}"
    return Sign(name, late > early if direction == "maximize" else late < early, told)


def _healthy_norm(records: Sequence[EpochRecord]) -> Sign:
    low, high = HEALTHY_NORM
    name, medians = (
        f"a gradient norm within {low:g} to {high:g}",
        [record.grad_norm_median for record in records],
    )
    medians = [median for median in medians if median == median]
    if not medians:
        return Sign(name, None, "no epoch tells one")
    inside = sum(low <= median <= high for median in medians)
    return Sign(
        name,
        inside == len(medians),
        f"in {inside} of {len(medians)} epochs; medians {min(medians):.3g} to {max(medians):.3g}",
    )


def _falling_parts(records: Sequence[EpochRecord]) -> Sign:
    name = "cross entropy and Dice both fall"
    if len(records) < 2:
        return Sign(name, None, "fewer than 2 epochs with the final loss")
    ce, dice = (
        [record.ce_loss for record in records],
        [record.dice_loss for record in records if record.dice_loss is not None],
    )
    told = f"cross entropy {ce[0]:.4g} → {ce[-1]:.4g}, " + (
        f"Dice {dice[0]:.4g} → {dice[-1]:.4g}" if dice else "no Dice in the loss"
    )
    return Sign(name, ce[-1] < ce[0] and (not dice or dice[-1] < dice[0]), told)


def _fair_gains(records: Sequence[EpochRecord]) -> Sign:
    """Records hold no class frequencies: the half of the classes that began lowest stands for the rare ones."""
    name = "rare classes gain while frequent ones hold"
    ends = (
        zip(records[0].class_metric, records[-1].class_metric, strict=False) if records else ()
    )  # own objectives of older stores
    pairs = [(before, after) for before, after in ends if before is not None and after is not None]
    if len(records) < 2 or len(pairs) < 2:
        return Sign(name, None, "fewer than 2 epochs, or 2 classes")
    pairs.sort()
    rare, frequent = _means(pairs[: len(pairs) // 2]), _means(pairs[len(pairs) // 2 :])
    told = f"the lower half at the start {rare[0]:.3f} → {rare[1]:.3f}, the upper half {frequent[0]:.3f} → {frequent[1]:.3f}"
    return Sign(name, rare[1] > rare[0] and frequent[1] >= frequent[0] - HELD_WITHIN, told)


def _means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return fmean(before for before, _ in pairs), fmean(after for _, after in pairs)
