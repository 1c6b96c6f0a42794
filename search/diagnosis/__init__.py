"""From a trial's records and configuration to its likely cause, how sure that is, and what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.diagnosis.causes import CAUSES, SUSPECTS, SUSPICION, Point
from search.diagnosis.facts import Facts
from search.diagnosis.remedies import remedies
from spaces.config_tree import ConfigTree
from spaces.records import ClassCounts, Diagnosis, EpochRecord, Evidence

NONE_OF_THESE = 1.0
"""Points of the possibility that it was something else: a lone lean is no certainty."""

SHOWN_LIKELY = 0.05
"""Other causes are named down to this likelihood."""


def diagnose(
    evidence: Evidence | None,
    records: Sequence[EpochRecord],
    config: Mapping[str, Any],
    counts: ClassCounts | None = None,
) -> Diagnosis:
    """The likely cause of a kill, or of a complete trial's trouble, with what speaks for and against it and what to try.

    Args:
        evidence: of the signal that killed the trial; None for one that ended by itself.
        records: of the trial, in order of epochs; at least one.
        config: the trial's configuration, nested.
        counts: pixels of the classes in the training split: they tell rare from frequent classes, and name them.
    """
    facts = Facts(records, ConfigTree(config), evidence, counts)
    held = {
        cause: [point for point in ask(facts) if math.isfinite(point.weight)]
        for cause, ask in CAUSES.items()
    }
    for cause in SUSPECTS.get(facts.signal, ()):
        held[cause].append(SUSPICION)
    sums = {cause: sum(point.weight for point in points) for cause, points in held.items()}
    ranked = sorted(sums, key=lambda cause: -sums[cause])
    odds = {cause: math.exp(min(total, 30.0)) for cause, total in sums.items()}
    whole = sum(odds.values()) + math.exp(NONE_OF_THESE)
    first = ranked[0]
    others = tuple(
        (cause, odds[cause] / whole) for cause in ranked[1:4] if odds[cause] / whole >= SHOWN_LIKELY
    )
    return Diagnosis(
        cause=first,
        because=(*_told(held[first], 1), *([facts.gains()] if facts.whole else [])),
        remedies=remedies(first, facts),
        confidence=odds[first] / whole,
        against=_told(held[first], -1),
        others=others,
    )


def _told(points: Sequence[Point], sign: int) -> tuple[str, ...]:
    """The points on one side, the strongest first."""
    side = sorted(
        (point for point in points if sign * point.weight > 0), key=lambda point: -abs(point.weight)
    )
    return tuple(point.text for point in side)
