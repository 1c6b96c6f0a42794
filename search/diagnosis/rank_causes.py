"""Rank the causes for which a trial may have failed: the diagnosis, its confidence, remedies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.diagnosis.causes import CAUSES, SUSPECTS, SUSPICION
from search.diagnosis.facts import Facts
from search.diagnosis.observation import Observation
from search.diagnosis.remedies import find_remedies
from spaces.config_tree import ConfigTree
from spaces.records import ClassCounts, Diagnosis, EpochRecord, Evidence

UNKNOWN_CAUSE = 1.0
"""Weight of an unknown cause, so that a single weak observation gives no certainty."""

SHOWN_LIKELY = 0.05
"""Likelihood from which on another cause is named."""

MOST_OTHERS = 3
"""Number of other causes that are named at most."""


def diagnose(
    evidence: Evidence | None,
    records: Sequence[EpochRecord],
    config: Mapping[str, Any],
    counts: ClassCounts | None = None,
) -> Diagnosis:
    """Find the likely cause of a trial's divergence, or of a complete trial's poor training.

    Args:
        evidence: of the signal that ended the trial; None where no signal fired.
        records: of the trial, in order of epochs; at least one.
        config: the trial's configuration, nested.
        counts: pixels of the classes in the training split, which separate rare from frequent
            classes and give their names.
    """
    facts = Facts(records, ConfigTree(config), evidence, counts)
    observations = _collect_observations(facts)
    totals = {cause: sum(item.weight for item in found) for cause, found in observations.items()}
    first, *rest = sorted(totals, key=lambda cause: -totals[cause])
    likelihoods = _softmax_weights(totals)
    others = [(cause, likelihoods[cause]) for cause in rest[:MOST_OTHERS]]
    because = _sorted_texts(observations[first], 1)
    if facts.complete_epochs:
        because = (*because, facts.describe_gains())
    return Diagnosis(
        cause=first,
        because=because,
        remedies=find_remedies(first, facts),
        confidence=likelihoods[first],
        against=_sorted_texts(observations[first], -1),
        others=tuple(other for other in others if other[1] >= SHOWN_LIKELY),
    )


def _collect_observations(facts: Facts) -> dict[str, list[Observation]]:
    """The observations for and against every cause; those whose weight is NaN are left out."""
    found = {
        cause: [item for item in observe(facts) if math.isfinite(item.weight)]
        for cause, observe in CAUSES.items()
    }
    for cause in SUSPECTS.get(facts.signal_name, ()):
        found[cause].append(SUSPICION)
    return found


def _softmax_weights(totals: Mapping[str, float]) -> dict[str, float]:
    """Each cause's likelihood among all causes and an unknown one (softmax of the totals)."""
    odds = {cause: math.exp(min(total, 30.0)) for cause, total in totals.items()}
    everything = sum(odds.values()) + math.exp(UNKNOWN_CAUSE)
    return {cause: odd / everything for cause, odd in odds.items()}


def _sorted_texts(observations: Sequence[Observation], sign: int) -> tuple[str, ...]:
    """The observations whose weight has the sign, the strongest first."""
    side = [item for item in observations if sign * item.weight > 0]
    return tuple(item.text for item in sorted(side, key=lambda item: -abs(item.weight)))
