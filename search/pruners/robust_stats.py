"""Robust statistics of a short, noisy series with one value per epoch, the latest last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median

_NORMAL = 0.6745 * math.sqrt(6)
"""Median of |a − 2b + c| for three values with normal noise of deviation 1 around a line."""

NOISE_EPOCHS = 20
"""Number of latest values from which a trial's noise is estimated, as noise changes over time."""


def median_slope(values: Sequence[float]) -> float:
    """The Theil–Sen slope per epoch: the median of the slopes between any two values.

    A single outlier does not change it (Theil 1950, Sen 1968).

    >>> median_slope([1.0, 2.0, 3.0, 90.0, 5.0])
    1.0
    """
    pairs = combinations(range(len(values)), 2)
    return median([(values[right] - values[left]) / (right - left) for left, right in pairs])


def rising_share(values: Sequence[float]) -> float:
    """The share of all pairs in which the later value is higher; 1 for an increasing series.

    >>> rising_share([1.0, 3.0, 2.0])
    0.6666666666666666
    """
    pairs = list(combinations(values, 2))
    return sum(later > earlier for earlier, later in pairs) / len(pairs)


def estimate_noise(values: Sequence[float]) -> float:
    """Estimate the standard deviation of a value around the local trend.

    The median of the absolute second differences, scaled for normal noise: trends and single jumps
    do not count. 0 for fewer than four values.
    """
    bends = [
        abs(values[at - 1] - 2 * values[at] + values[at + 1]) for at in range(1, len(values) - 1)
    ]
    return median(bends) / _NORMAL if len(bends) > 1 else 0.0


def running_median(values: Sequence[float]) -> list[float]:
    """The running median of the last three values, of fewer at the start."""
    if len(values) < 3:
        return [median(values[: at + 1]) for at in range(len(values))]
    triples = zip(values, values[1:], values[2:], strict=False)
    return [values[0], (values[0] + values[1]) / 2, *(sorted(triple)[1] for triple in triples)]
