"""The signs of health of a trial: what a good training shows, checked on every trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from spaces.config import Direction
from spaces.records import EpochRecord
from spaces.thresholds import FOUND_LEVEL, LEARNED_LEVEL

HEALTHY_NORM = (0.1, 10.0)
"""Range of the gradient norm before clipping."""

STEADY_SHARE = 2 / 3
"""Share of the epochs in which a steadily falling loss falls, in spite of minibatch noise."""

FREQUENT_LOSS = 0.02
"""Drop of the frequent classes' mean metric that still counts as none: the noise of two epochs."""


@dataclass(frozen=True, slots=True)
class DeadClasses:
    """The classes of which a trial finds nothing in its last epoch, by index.

    Attributes:
        never_found: not found in any epoch.
        lost: learned before.
        judged: number of classes that the validation split contains.
    """

    never_found: tuple[int, ...]
    lost: tuple[int, ...]
    judged: int


@dataclass(frozen=True, slots=True)
class HealthSign:
    """A sign of health of one trial.

    Attributes:
        name: of the sign.
        present: whether the trial shows it; None where there are too few records.
        detail: the numbers, as text.
    """

    name: str
    present: bool | None
    detail: str

    def __str__(self) -> str:
        verdict = {True: "present", False: "missing", None: "not judged"}[self.present]
        return f"{verdict}: {self.name} ({self.detail})"


def describe_health(
    records: Sequence[EpochRecord], direction: Direction, names: Sequence[str] = ()
) -> tuple[str, ...]:
    """The signs of health of a trial as text, a line for each."""
    return tuple(map(str, check_health(records, direction, names)))


def check_health(
    records: Sequence[EpochRecord], direction: Direction, names: Sequence[str] = ()
) -> tuple[HealthSign, ...]:
    """Check the signs of health of a trial.

    Epochs that broke off are left out. Losses are compared among the epochs after the schedule has
    settled.

    Args:
        records: of the trial.
        direction: of the metric.
        names: of the classes; those without a name are numbered.
    """
    complete = [record for record in records if record.broken_step is None]
    settled = [record for record in complete if record.settled]
    return (
        _check_loss(settled),
        _check_metric(complete, direction),
        _check_norm(complete),
        _check_parts(settled),
        _check_classes(complete),
        _check_dead_classes(complete, names),
    )


def find_dead_classes(records: Sequence[EpochRecord]) -> DeadClasses:
    """Find the classes of which a trial finds nothing in its last epoch."""
    complete = [record for record in records if record.broken_step is None]
    never_found = []
    lost = []
    judged = 0
    for index, last in enumerate(complete[-1].class_metric if complete else ()):
        if last is None:
            continue
        judged += 1
        # The number of classes may change in records of older versions.
        course = [
            record.class_metric[index] or 0.0
            for record in complete
            if index < len(record.class_metric)
        ]
        if max(course) <= FOUND_LEVEL:
            never_found.append(index)
        elif last <= FOUND_LEVEL and max(course) > LEARNED_LEVEL:
            lost.append(index)
    return DeadClasses(tuple(never_found), tuple(lost), judged)


def name_classes(indices: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes; those without a name are numbered."""
    return tuple(names[index] if index < len(names) else str(index) for index in indices)


def _check_dead_classes(records: Sequence[EpochRecord], names: Sequence[str]) -> HealthSign:
    name = "every class is found"
    dead = find_dead_classes(records)
    if len(records) < 2 or dead.judged < 2:
        return HealthSign(name, None, "fewer than 2 epochs, or 2 classes")
    details = [
        f"{len(indices)} of {dead.judged} classes {what}: {', '.join(name_classes(indices, names))}"
        for what, indices in (("never found", dead.never_found), ("learned and lost", dead.lost))
        if indices
    ]
    return HealthSign(name, not details, "; ".join(details) or f"all {dead.judged} classes")


def _check_loss(records: Sequence[EpochRecord]) -> HealthSign:
    name = "a steadily falling training loss"
    if len(records) < 2:
        return HealthSign(name, None, "fewer than 2 epochs with the final loss")
    losses = [record.train_loss for record in records]
    steps = len(losses) - 1
    falls = sum(after < before for before, after in pairwise(losses))
    return HealthSign(
        name,
        losses[-1] < losses[0] and falls >= STEADY_SHARE * steps,
        f"{losses[0]:.4g} → {losses[-1]:.4g}, lower in {falls} of {steps} epochs",
    )


def _check_metric(records: Sequence[EpochRecord], direction: Direction) -> HealthSign:
    name = "a metric that improved since the start"
    # Epochs that were not validated have none.
    values = [record.metric for record in records if not math.isnan(record.metric)]
    if len(values) < 2:
        return HealthSign(name, None, "fewer than 2 validated epochs")
    # Means of halves, as the first or the last epoch alone may be an outlier.
    half = len(values) // 2
    early = fmean(values[:half])
    late = fmean(values[half:])
    improved = late > early if direction == "maximize" else late < early
    return HealthSign(
        name, improved, f"mean of the first half {early:.4f}, of the second {late:.4f}"
    )


def _check_norm(records: Sequence[EpochRecord]) -> HealthSign:
    low, high = HEALTHY_NORM
    name = f"a gradient norm within {low:g} to {high:g}"
    medians = [record.grad_norm_median for record in records]
    medians = [norm for norm in medians if norm == norm]
    if not medians:
        return HealthSign(name, None, "no epoch recorded one")
    inside = sum(low <= norm <= high for norm in medians)
    return HealthSign(
        name,
        inside == len(medians),
        f"in {inside} of {len(medians)} epochs; medians {min(medians):.3g} to {max(medians):.3g}",
    )


def _check_parts(records: Sequence[EpochRecord]) -> HealthSign:
    name = "every part of the loss falls"
    if len(records) < 2:
        return HealthSign(name, None, "fewer than 2 epochs with the final loss")
    ce = [record.ce_loss for record in records]
    dice = [record.dice_loss for record in records if record.dice_loss is not None]
    detail = f"cross entropy {ce[0]:.4g} → {ce[-1]:.4g}"
    if not dice:
        # A custom objective records one loss, which need not be a cross entropy.
        is_one_part = ce == [record.train_loss for record in records]
        detail = f"one part, {ce[0]:.4g} → {ce[-1]:.4g}" if is_one_part else detail
        return HealthSign(name, ce[-1] < ce[0], detail)
    both_fall = ce[-1] < ce[0] and dice[-1] < dice[0]
    return HealthSign(name, both_fall, f"{detail}, Dice {dice[0]:.4g} → {dice[-1]:.4g}")


def _check_classes(records: Sequence[EpochRecord]) -> HealthSign:
    """The rare classes are the half that began lowest, as records have no class frequencies."""
    name = "rare classes gain while frequent ones hold"
    pairs = _class_courses(records)
    if len(records) < 2 or len(pairs) < 2:
        return HealthSign(name, None, "fewer than 2 epochs, or 2 classes")
    half = len(pairs) // 2
    rare_before, rare_after = _mean_course(pairs[:half])
    frequent_before, frequent_after = _mean_course(pairs[half:])
    return HealthSign(
        name,
        rare_after > rare_before and frequent_after >= frequent_before - FREQUENT_LOSS,
        f"the lower half at the start {rare_before:.3f} → {rare_after:.3f},"
        f" the upper half {frequent_before:.3f} → {frequent_after:.3f}",
    )


def _class_courses(records: Sequence[EpochRecord]) -> list[tuple[float, float]]:
    """First and last metric of the classes that have both, in ascending order.

    The number of classes may change in records of custom objectives from older versions.
    """
    if not records:
        return []
    ends = zip(records[0].class_metric, records[-1].class_metric, strict=False)
    return sorted((first, last) for first, last in ends if first is not None and last is not None)


def _mean_course(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return fmean(first for first, _ in pairs), fmean(last for _, last in pairs)
