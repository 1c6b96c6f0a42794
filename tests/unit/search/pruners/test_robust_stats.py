"""Robust statistics of short series."""

from __future__ import annotations

import numpy as np
import pytest

from search.pruners.robust_stats import estimate_noise, median_slope, rising_share, running_median


class TestMedianSlope:
    def test_line(self) -> None:
        """The slope of a straight line is exact, per value."""
        assert median_slope([5.0, 4.5, 4.0, 3.5]) == -0.5

    def test_by_hand(self) -> None:
        """The median of all slopes: of 0, 3, 1 these are 3, 0.5 and -2."""
        assert median_slope([0.0, 3.0, 1.0]) == 0.5

    def test_wild_value(self) -> None:
        """One outlier in six does not change it."""
        assert median_slope([1.0, 2.0, 3.0, 4.0, 5.0, -100.0]) == 1.0


class TestRisingShare:
    @pytest.mark.parametrize(
        ("values", "share"), [([1, 2, 3], 1.0), ([3, 2, 1], 0.0), ([1, 3, 2], 2 / 3), ([1, 1], 0.0)]
    )
    def test_share(self, values: list[float], share: float) -> None:
        """Of the pairs, how many rise; equal values do not."""
        assert rising_share(values) == share


class TestEstimateNoise:
    def test_trend(self) -> None:
        """A trend is no noise, and neither is a single jump in it."""
        assert estimate_noise([0.5 * step for step in range(12)]) == 0
        assert estimate_noise([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 97.0, 98.0, 99.0, 100.0]) == 0

    @pytest.mark.parametrize("deviation", [0.01, 3.0])
    def test_normal(self, deviation: float) -> None:
        """For normal noise on a slope it is the standard deviation."""
        values = (
            np.random.default_rng(0).normal(0, deviation, 5000) + np.arange(5000) * deviation / 10
        )
        assert estimate_noise(list(values)) == pytest.approx(deviation, rel=0.05)

    @pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0, 9.0, 2.0]])
    def test_few(self, values: list[float]) -> None:
        """Fewer than four values have none."""
        assert estimate_noise(values) == 0


class TestRunningMedian:
    def test_by_hand(self) -> None:
        """The median of the last three values, of fewer at the start."""
        assert running_median([1.0, 3.0, 2.0, 9.0, 4.0]) == [1.0, 2.0, 2.0, 3.0, 4.0]

    @pytest.mark.parametrize("values", [[], [1.0], [1.0, 3.0]])
    def test_few(self, values: list[float]) -> None:
        """A short series has as many values as it had."""
        assert len(running_median(values)) == len(values)
