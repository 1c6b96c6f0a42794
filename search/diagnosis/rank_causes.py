"""Rank the causes for which a trial may have failed: the diagnosis, its confidence, remedies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.diagnosis.causes import APPLIES, CAUSES, SUSPECTS, SUSPICION
from search.diagnosis.class_changes import describe_changes
from search.diagnosis.facts import Facts
from search.diagnosis.observation import Observation
from search.diagnosis.remedies import find_remedies, harmless_remedies
from spaces.config_tree import ConfigTree
from spaces.records import CLEAR_CONFIDENCE, ClassCounts, Diagnosis, EpochRecord, Evidence

UNKNOWN_CAUSE = 1.0
"""Weight of an unknown cause, so that a single weak observation gives no certainty."""

CONFIGURED_ONLY = 0.5
"""Largest sum of a cause that only the configuration speaks for: a value that harms one training is
usual in another, so it makes no cause clear."""

TEMPERATURE = 0.8
"""Divisor of the summed weights, which makes the confidence the share that is right.

`python -m benchmarks.calibration` gave 0.7 for 90 trials with planted faults and seeds from 100 on,
with the weight of the unknown cause kept at 1; 0.8 leaves room for seeds that it has not seen.
"""

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
    totals = _sum_observations(observations)
    first, *rest = sorted(totals, key=lambda cause: -totals[cause])
    likelihoods = weigh_likelihoods(totals)
    others = [(cause, likelihoods[cause]) for cause in rest[:MOST_OTHERS]]
    because = _sorted_texts(observations[first], 1)
    if changes := describe_changes(facts):
        because = (*because, changes)
    confidence = likelihoods[first]
    find = find_remedies if confidence >= CLEAR_CONFIDENCE else harmless_remedies
    return Diagnosis(
        cause=first,
        because=because,
        remedies=find(first, facts),
        confidence=confidence,
        against=_sorted_texts(observations[first], -1),
        others=tuple(other for other in others if other[1] >= SHOWN_LIKELY),
    )


def _collect_observations(facts: Facts) -> dict[str, list[Observation]]:
    """The observations for and against every cause that applies to the trial.

    Those whose weight is NaN are left out.
    """
    found = {
        cause: [item for item in observe(facts) if math.isfinite(item.weight)]
        for cause, observe in CAUSES.items()
        if cause not in APPLIES or APPLIES[cause](facts)
    }
    for cause in SUSPECTS.get(facts.signal_name, ()):
        if cause in found:
            found[cause].append(SUSPICION)
    return found


def _sum_observations(observations: Mapping[str, Sequence[Observation]]) -> dict[str, float]:
    return {cause: _sum_weights(found) for cause, found in observations.items()}


def _sum_weights(observations: Sequence[Observation]) -> float:
    total = sum(item.weight for item in observations)
    if any(item.measured and item.weight > 0 for item in observations):
        return total
    return min(total, CONFIGURED_ONLY)


def sum_weights(
    evidence: Evidence | None,
    records: Sequence[EpochRecord],
    config: Mapping[str, Any],
    counts: ClassCounts | None = None,
) -> dict[str, float]:
    """Sum the weights of the observations for and against every cause; see `diagnose`."""
    facts = Facts(records, ConfigTree(config), evidence, counts)
    return _sum_observations(_collect_observations(facts))


def weigh_likelihoods(
    totals: Mapping[str, float], temperature: float = TEMPERATURE, unknown: float = UNKNOWN_CAUSE
) -> dict[str, float]:
    """Compute each cause's likelihood among all causes and an unknown one.

    It is the softmax of the summed weights, divided by a temperature (Guo et al. 2017).

    Args:
        totals: cause → sum of its weights.
        temperature: above 1 where weights claim more than they show.
        unknown: sum of the weights of the unknown cause.
    """
    odds = {cause: math.exp(min(total, 30.0) / temperature) for cause, total in totals.items()}
    everything = sum(odds.values()) + math.exp(unknown / temperature)
    return {cause: odd / everything for cause, odd in odds.items()}


def _sorted_texts(observations: Sequence[Observation], sign: int) -> tuple[str, ...]:
    """The observations whose weight has the sign, the strongest first."""
    side = [item for item in observations if sign * item.weight > 0]
    return tuple(item.text for item in sorted(side, key=lambda item: -abs(item.weight)))
