"""Which trials the signals spare: those almost over, still improving, or among the best."""

from __future__ import annotations

import math

import pytest

from search.pruners.sparing import is_improving, score_so_far, spare_by_course, spare_by_peers
from spaces.config import MetricConfig
from spaces.thresholds import Sparing
from tests.unit.search.pruners.conftest import NAN, Series

SPARING = Sparing()
OFF = Sparing(enabled=False)


class TestCourse:
    @pytest.mark.parametrize(
        ("epoch", "epochs", "spared"),
        [
            (10, 12, None),
            (11, 12, "only 1 of 12 epochs is left"),
            (12, 12, "only 0 of 12 epochs are left"),
            (25, 30, None),
            (26, 30, "only 4 of 30 epochs are left"),
            (3, 4, "only 1 of 4 epochs is left"),
            (2, 4, None),
            (26, None, None),
        ],
    )
    def test_left(self, series: Series, epoch: int, epochs: int | None, spared: str | None) -> None:
        """A trial with fewer than 2 epochs or 15% of them left is spared, if that is known."""
        records = series(metric=[0.3] * epoch)
        assert spare_by_course("loss_rising", records, SPARING, epochs, "maximize") == spared

    def test_improving(self, series: Series) -> None:
        """A trial that improves is spared, in the direction of its metric."""
        records = series(metric=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        reason = "the metric is still improving"
        assert spare_by_course("class_collapse", records, SPARING, 30, "maximize") == reason
        assert spare_by_course("class_collapse", records, SPARING, 30, "minimize") is None

    @pytest.mark.parametrize("name", ["nonfinite_loss", "gradient_explosion"])
    def test_steps(self, series: Series, name: str) -> None:
        """Signals on single steps spare nothing."""
        records = series(metric=[0.1 * epoch for epoch in range(12)])
        assert spare_by_course(name, records, SPARING, 12, "maximize") is None
        assert spare_by_peers(name, 0.9, None, SPARING, "maximize") is None

    def test_disabled(self, series: Series) -> None:
        """Disabled, no trial is spared."""
        records = series(metric=[0.1 * epoch for epoch in range(12)])
        assert spare_by_course("loss_rising", records, OFF, 12, "maximize") is None
        assert spare_by_peers("not_learning", 0.9, (), OFF, "maximize") is None


class TestPeers:
    PEERS = (0.6, 0.1, 0.5, 0.2, 0.4, 0.3)

    @pytest.mark.parametrize(
        ("best", "spared"), [(0.7, True), (0.55, True), (0.5, True), (0.45, False), (0.1, False)]
    )
    def test_best_third(self, best: float, spared: bool) -> None:
        """A trial that fewer than a third of its peers exceed at that epoch is spared."""
        found = spare_by_peers("metric_falling", best, self.PEERS, SPARING, "maximize")
        assert (found is not None) == spared
        flipped = [-peer for peer in self.PEERS]
        lower = spare_by_peers("metric_falling", -best, flipped, SPARING, "minimize")
        assert (lower is not None) == spared

    def test_reason(self) -> None:
        """The reason has the score, and the number of peers."""
        assert (
            spare_by_peers("metric_falling", 0.55, self.PEERS, SPARING, "maximize")
            == "its score so far, 0.5500, is among the best 33% of its 6 peers"
        )

    def test_few(self) -> None:
        """With few peers none counts as among the best, and a slow trial is not judged."""
        for peers in ((), (0.1, 0.2), (0.1, 0.2, NAN)):
            assert spare_by_peers("class_collapse", 0.9, peers, SPARING, "maximize") is None
            found = spare_by_peers("not_learning", 0.1, peers, SPARING, "maximize")
            known = sum(not math.isnan(peer) for peer in peers)
            assert found == f"only {known} of the 3 complete peers that it needs"
        assert spare_by_peers("not_learning", 0.1, (0.2,) * 3, SPARING, "maximize") is None

    def test_unknown(self) -> None:
        """While the peers cannot be read no trial is ended; one without a score has no place."""
        found = spare_by_peers("class_collapse", 0.1, None, SPARING, "maximize")
        assert found == "its peers are unknown, as the store does not answer"
        assert spare_by_peers("class_collapse", None, self.PEERS, SPARING, "maximize") is None


class TestScoreSoFar:
    def test_rules(self, series: Series) -> None:
        """It is the score by the rule of the study, of the epochs that have a metric."""
        records = series(metric=[0.1, 0.5, 0.3, NAN])
        assert score_so_far(records, MetricConfig()) == 0.5
        assert score_so_far(records, MetricConfig(score="last")) == 0.3
        assert score_so_far(records[3:], MetricConfig()) is None


class TestIsImproving:
    @pytest.mark.parametrize(
        ("metrics", "improving"),
        [
            ([0.1, 0.2], True),
            ([0.3], False),
            ([NAN, NAN, NAN], False),
            ([0.3] * 8, False),
            ([0.30, 0.30, 0.30, 0.32, 0.32, 0.32], True),
            ([0.30, 0.30, 0.30, 0.305, 0.305, 0.305], False),
            ([0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.2, 0.35, 0.2], True),
            ([0.4, 0.3, 0.2, 0.1, 0.05, 0.01], False),
            ([0.2, 0.4, 0.2, 0.4, 0.2, 0.4, 0.3, 0.42, 0.3], False),
        ],
    )
    def test_courses(self, series: Series, metrics: list[float], improving: bool) -> None:
        """By the mean of the last epochs, or a new best among them, beyond gain and noise."""
        assert is_improving(series(metric=metrics), SPARING, 1.0) == improving
        falling = series(metric=[-metric for metric in metrics])
        assert is_improving(falling, SPARING, -1.0) == improving
