"""When a complete trial counts as clearly worse than its peers."""

from __future__ import annotations

import math

import pytest

from search.diagnosis.peer_gap import find_usual_score, is_clearly_worse


class TestUsualScore:
    def test_median(self) -> None:
        """It is the median of the finite scores."""
        assert find_usual_score([0.1, None, 0.5, math.nan, 0.3, 0.2]) == pytest.approx(0.25)

    def test_too_few(self) -> None:
        """With three scores nothing is compared."""
        assert find_usual_score([0.1, 0.2, 0.3, None]) is None


class TestWorse:
    @pytest.mark.parametrize(
        ("score", "noise", "expected"),
        [
            (0.20, None, True),
            (0.28, None, False),  # within a tenth of the median
            (0.20, 0.06, False),  # within two deviations of its own noise
            (0.40, None, False),
            (None, None, False),
            (math.nan, None, False),
        ],
    )
    def test_maximized(self, score: float | None, noise: float | None, expected: bool) -> None:
        """Worse is below the median 0.3 by more than seeds and noise explain."""
        assert is_clearly_worse(score, 0.3, noise, "maximize") is expected

    def test_minimized(self) -> None:
        """Of a loss, worse is above."""
        assert is_clearly_worse(0.4, 0.3, None, "minimize")
        assert not is_clearly_worse(0.2, 0.3, None, "minimize")

    def test_no_peers(self) -> None:
        """Without a usual score no trial is worse."""
        assert not is_clearly_worse(0.01, None, None, "maximize")
