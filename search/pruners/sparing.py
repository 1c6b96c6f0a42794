"""Which trials a signal spares: ending one is worth what it saves, and never costs a good trial.

A trial that is spared continues with a warning. Its own course is judged first, then its peers: the
complete trials of the study, by their metrics at the same epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from search.pruners.epoch_windows import Records, has_metric, last_validated
from search.pruners.robust_stats import NOISE_EPOCHS, estimate_noise
from spaces.config import Direction, MetricConfig
from spaces.records import score
from spaces.thresholds import SLOW_SIGNALS, STEP_SIGNALS, Sparing


def spare_by_course(
    signal: str, records: Records, sparing: Sparing, epochs: int | None, direction: Direction
) -> str | None:
    """Why a trial is spared for its own course: it is almost over, or still improving.

    Args:
        signal: that fired; none on single steps spares a trial.
        records: of the trial, in order of epochs.
        sparing: the thresholds.
        epochs: of a complete trial; None where it is not known, so that no trial is almost over.
        direction: of the metric.
    """
    if not sparing.enabled or signal in STEP_SIGNALS:
        return None
    if epochs is not None:
        left = max(0, epochs - records[-1].epoch)
        if left < max(sparing.least_epochs_left, sparing.least_share_left * epochs):
            return f"only {left} of {epochs} epochs {'is' if left == 1 else 'are'} left"
    if is_improving(records, sparing, 1.0 if direction == "maximize" else -1.0):
        return "the metric is still improving"
    return None


def spare_by_peers(
    signal: str,
    best: float | None,
    peers: Sequence[float] | None,
    sparing: Sparing,
    direction: Direction,
) -> str | None:
    """Why a trial is spared for its place among its peers.

    Args:
        signal: that fired; none on single steps spares a trial.
        best: score of the trial so far, see `score_so_far`.
        peers: metrics of the complete trials at the same epoch, in any order; None where they are
            unknown for now, and the trial then is spared.
        sparing: the thresholds.
        direction: of the metric.
    """
    if not sparing.enabled or signal in STEP_SIGNALS:
        return None
    if peers is None:
        return "its peers are unknown, as the store does not answer"
    known = [metric for metric in peers if not math.isnan(metric)]
    if len(known) < sparing.least_peers:
        if signal in SLOW_SIGNALS:
            return f"only {len(known)} of the {sparing.least_peers} complete peers that it needs"
        return None
    if best is None:
        return None
    better = sum(metric > best if direction == "maximize" else metric < best for metric in known)
    if better >= sparing.best_share * len(known):
        return None
    return (
        f"its score so far, {best:.4f}, is among the best {sparing.best_share:.0%} of"
        f" its {len(known)} peers"
    )


def score_so_far(records: Records, metric: MetricConfig) -> float | None:
    """The score with which the trial would end now; None before its first validated epoch."""
    validated = [record for record in records if has_metric(record)]
    return score(validated, metric) if validated else None


def is_improving(records: Records, sparing: Sparing, sign: float) -> bool:
    """Whether the metric has improved over the last epochs, by enough and beyond its noise.

    Either its mean has, against as many epochs before, or the best one is among them.

    Args:
        records: of the trial, in order of epochs.
        sparing: the thresholds; disabled, nothing is improving.
        sign: 1 where the metric is maximized, -1 where it is minimized.
    """
    if not sparing.enabled:
        return False
    past = last_validated(records, max(NOISE_EPOCHS, 2 * sparing.improving_epochs))
    gains = [sign * record.metric for record in past]
    count = min(sparing.improving_epochs, len(gains) // 2)
    if count == 0:
        return False
    noise = sparing.improving_noise * estimate_noise(gains[-NOISE_EPOCHS:])
    least = sparing.improving_gain * abs(max(gains))
    latest = gains[-count:]
    before = gains[-2 * count : -count]
    if fmean(latest) - fmean(before) > max(least, noise * math.sqrt(2 / count)):
        return True
    return max(latest) - max(gains[:-count]) > max(least, noise)
