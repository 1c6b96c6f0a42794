"""Which classes gained and lost since the best epoch, beyond their own noise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from search.diagnosis.facts import Facts
from spaces.records import EpochRecord, best_record

NOISE_MULTIPLE = 2.0
"""A change counts from this multiple of its standard error on: 5% of noise alone is larger."""

LEAST_CHANGE = 0.02
"""Change of a class metric that always counts as none, as the noise of a few epochs is unknown."""

MOST_NAMED = 2
"""Number of classes that are named at most, of those that gained and of those that lost."""


def describe_changes(facts: Facts) -> str:
    """Name the classes that gained and lost most between the best epoch and the last one.

    Returns:
        One sentence; empty if the best epoch is the last one, or no class changed beyond its noise.
    """
    epochs = facts.complete_epochs
    if not epochs:
        return ""
    best = best_record(epochs, facts.direction)
    changes = _changes_beyond_noise(epochs, best)
    ranked = sorted(changes.items(), key=lambda item: -abs(item[1]))
    parts = []
    for verb, sign in (("gained", 1), ("lost", -1)):
        moved = [item for item in ranked if sign * item[1] > 0]
        if moved:
            parts.append(f"{verb} {_list_changes(facts, moved)}")
    return f"since epoch {best.epoch}, the best one: {'; '.join(parts)}" if parts else ""


def _changes_beyond_noise(epochs: Sequence[EpochRecord], best: EpochRecord) -> dict[int, float]:
    """Index → change from the best epoch to the last one, where it is more than noise."""
    changes = {}
    for index, column in enumerate(zip(*(record.class_metric for record in epochs), strict=True)):
        before, after = best.class_metric[index], column[-1]
        known = [value for value in column if value is not None]
        if before is None or after is None:
            continue
        change = after - before
        if abs(change) > max(LEAST_CHANGE, NOISE_MULTIPLE * estimate_noise(known)):
            changes[index] = change
    return changes


def estimate_noise(values: Sequence[float]) -> float:
    """Estimate the standard deviation of the difference of two epochs without a trend.

    It is 1.48 times the median deviation of successive differences from their median, which a
    steady trend and single jumps do not change (Rousseeuw & Croux 1993); 0 for fewer than 3 values.
    """
    steps = [after - before for before, after in pairwise(values)]
    if len(steps) < 2:
        return 0.0
    center = median(steps)
    return 1.4826 * median([abs(step - center) for step in steps])


def _list_changes(facts: Facts, changes: Sequence[tuple[int, float]]) -> str:
    named = [f"{facts.class_name(index)} {change:+.3f}" for index, change in changes[:MOST_NAMED]]
    more = len(changes) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
