"""Reads the base learning rate from the loss of a range test (`objectives.training.rate_probe`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from spaces.rate_probe import ProbeStep, RateProbe

SMOOTHING = 0.8
"""Share of the past in the moving average of the loss, which then covers about five steps."""

FIRST = 4
"""Steps whose rate is too small to change the loss; a probe that breaks within them has no stable
rate."""

FALLEN = 0.8
"""Share of the loss's whole fall at which its rate is read. There the loss falls steeply, so that
the rate depends little on the batches. The rise depends on them, and it may be missing: on
imbalanced data and with batch normalization a large rate leaves the loss where the model finds the
frequent classes only."""

MULTIPLES = {"sgd": 4.0, "adamw": 0.3}
"""Optimizer → base rate over that rate. Chosen on the embedded digits: 4 gives about 0.1 there,
the rate that suits SGD; a step of AdamW is as long as its rate, however small the gradient is."""

RISE = 0.3
"""The loss is clearly above its minimum when it has lost this share of its fall …"""

NOISE = 4.0
"""… and the distance is this many standard deviations of the smoothed loss."""

LARGEST_SHARE = 0.25
"""The base rate is at most this share of the largest stable one (Smith 2017: a third or a quarter).
"""

MOST_POINTS = 100
"""Points of the curve that are stored."""


def find_base_lr(steps: Sequence[ProbeStep], optimizer: str = "sgd") -> RateProbe | None:
    """Find the base learning rate from the steps of a range test.

    Args:
        steps: by increasing learning rate; at least one.
        optimizer: sgd or adamw.

    Returns:
        None when no rate was stable.
    """
    smoothed = _smooth_losses(steps)
    end = _find_rise(steps, smoothed)
    if end < min(FIRST, len(steps)):
        return None
    stable_lr = steps[end - 1].lr
    fallen_lr = _find_fallen(steps, smoothed[:end])
    base_lr = min(MULTIPLES[optimizer] * fallen_lr, LARGEST_SHARE * stable_lr)
    return RateProbe(
        base_lr=_round_to(base_lr, 2),
        stable_lr=_round_to(stable_lr, 2),
        is_bounded=end < len(steps),
        epochs=round(steps[-1].epochs, 2),
        curve=_thin_curve(steps, smoothed),
    )


def _smooth_losses(steps: Sequence[ProbeStep]) -> list[float]:
    """Average the losses up to each step, weighted by recency, without bias to the first one."""
    smoothed = []
    total = weight = 0.0
    for step in steps:
        total = SMOOTHING * total + (1 - SMOOTHING) * step.loss
        weight = SMOOTHING * weight + 1 - SMOOTHING
        smoothed.append(total / weight)
    return smoothed


def _find_rise(steps: Sequence[ProbeStep], smoothed: Sequence[float]) -> int:
    """Return the index of the first step whose rate is unstable; their number if none is."""
    usable = sum(step.is_usable and math.isfinite(step.loss) for step in steps)
    if usable <= FIRST:
        return usable
    lowest = min(range(usable), key=smoothed.__getitem__)
    fall = smoothed[FIRST - 1] - smoothed[lowest]
    margin = max(RISE * fall, NOISE * _estimate_noise(steps[:usable]))
    risen = (
        index for index in range(lowest, usable) if smoothed[index] - smoothed[lowest] > margin
    )
    return next(risen, usable)


def _find_fallen(steps: Sequence[ProbeStep], smoothed: Sequence[float]) -> float:
    """Return the first rate at which the loss has made most of its fall.

    Args:
        steps: of the probe.
        smoothed: loss of the stable ones.
    """
    start, lowest = smoothed[min(FIRST, len(smoothed)) - 1], min(smoothed)
    if start - lowest <= NOISE * _estimate_noise(steps[: len(smoothed)]):
        return steps[len(smoothed) - 1].lr  # it has not fallen: any stable rate may be too small
    bound = start - FALLEN * (start - lowest)
    return next(step.lr for step, loss in zip(steps, smoothed, strict=False) if loss <= bound)


def _estimate_noise(steps: Sequence[ProbeStep]) -> float:
    """Estimate the standard deviation of the smoothed loss, from the steps' median difference."""
    pairs = pairwise(steps)
    difference = median(abs(after.loss - before.loss) for before, after in pairs)
    deviation = 1.4826 * difference / math.sqrt(2)
    return deviation * math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING))


def _thin_curve(
    steps: Sequence[ProbeStep], smoothed: Sequence[float]
) -> tuple[tuple[float, float], ...]:
    """Return rate and smoothed loss of evenly spaced steps, the last one included."""
    stride = math.ceil(len(steps) / MOST_POINTS)
    chosen = range((len(steps) - 1) % stride, len(steps), stride)
    return tuple((_round_to(steps[index].lr, 4), _round_to(smoothed[index], 4)) for index in chosen)


def _round_to(value: float, digits: int) -> float:
    """Round to significant digits; what is not finite stays as it is."""
    return float(f"{value:.{digits}g}")
