"""How a short, noisy series moves, told from its own noise. Values are one an epoch, the newest last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median

_NORMAL = 0.6745 * math.sqrt(6)
"""Median of |a − 2b + c| for three values with normal noise of deviation 1 around a straight line."""

NOISE_EPOCHS = 20
"""A trial's noise is that of so many last values: what it was long ago says little."""


def slope(values: Sequence[float]) -> float:
    """The median of the slopes between any two values (Theil 1950, Sen 1968), per epoch: one wild value does not turn it.

    >>> slope([1.0, 2.0, 3.0, 90.0, 5.0])
    1.0
    """
    return median(
        [
            (values[right] - values[left]) / (right - left)
            for left, right in combinations(range(len(values)), 2)
        ]
    )


def rising_share(values: Sequence[float]) -> float:
    """The share of all pairs of which the later value is the higher one; 1 when every value is above the one before.

    >>> rising_share([1.0, 3.0, 2.0])
    0.6666666666666666
    """
    pairs = list(combinations(values, 2))
    return sum(later > earlier for earlier, later in pairs) / len(pairs)


def noise(values: Sequence[float]) -> float:
    """The deviation of one value from the local trend, by the median of the second differences; 0 for fewer than four values.

    Trends drop out, a jump or two do not count, and no more is assumed than that most of the series is noise around a course.
    """
    bends = [
        abs(values[at - 1] - 2 * values[at] + values[at + 1]) for at in range(1, len(values) - 1)
    ]
    return median(bends) / _NORMAL if len(bends) > 1 else 0.0


def smoothed(values: Sequence[float]) -> list[float]:
    """The running median of three, of the values so far: one lucky or unlucky epoch is not a course."""
    if len(values) < 3:
        return [median(values[: at + 1]) for at in range(len(values))]
    middles = [
        sorted((a, b, c))[1] for a, b, c in zip(values, values[1:], values[2:], strict=False)
    ]
    return [values[0], (values[0] + values[1]) / 2, *middles]
