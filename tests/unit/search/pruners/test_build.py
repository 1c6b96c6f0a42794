"""The reason for which the peer pruner ends a trial."""

from __future__ import annotations

from typing import Any

import pytest

from search.pruners.build import explain_pruning
from search.pruners.robust_stats import estimate_noise
from spaces.config import Direction
from spaces.study import PrunerConfig


def explain(
    own: list[float],
    pruner: PrunerConfig,
    direction: Direction = "maximize",
    peers: tuple[float, ...] = (0.5, 0.3, 0.6, 0.4),
) -> str:
    """The reason for a trial with these metrics, after peers with constant ones."""
    return explain_pruning(dict(enumerate(own, 1)), len(own), pruner, direction, peers)


class TestExplainPruning:
    def test_median(self) -> None:
        """Of an even number of peers the median is the mean of the two in the middle."""
        assert (
            explain([0.1, 0.2], PrunerConfig(noise=0)) == "median: best metric 0.2000 by epoch 2"
            " against a median of 0.4500 among 4 finished trials"
        )
        assert (
            explain([0.1], PrunerConfig(noise=0), peers=())
            == "median: best metric 0.1000 by epoch 1"
        )

    @pytest.mark.parametrize(
        ("direction", "best", "sign"), [("maximize", 0.14, 1), ("minimize", 0.10, -1)]
    )
    def test_margin(self, direction: Any, best: float, sign: int) -> None:
        """With a margin, the reason has the improved value next to the measured one."""
        own = [0.10, 0.13, 0.11, 0.14, 0.12]
        improved = best + sign * 2.5 * estimate_noise(own)
        reason = explain(own, PrunerConfig(noise=2.5), direction)
        assert (
            reason
            == f"median: best metric {best:.4f} by epoch 5 ({improved:.4f} with 2.5 × its noise)"
            " against a median of 0.4500 among 4 finished trials"
        )

    def test_hyperband(self) -> None:
        """Hyperband has rungs, and no margin."""
        assert (
            explain([0.1, 0.2], PrunerConfig(kind="hyperband"))
            == "hyperband: best metric 0.2000 by epoch 2, not among the best of its rung"
        )
