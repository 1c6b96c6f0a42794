"""The words and numbers of the peer pruner's decision."""

from __future__ import annotations

from typing import Any

import pytest

from search.pruners.build import explain_pruning
from search.pruners.robust_stats import estimate_noise
from spaces.config import Direction
from spaces.study import PrunerConfig


def asked(
    own: list[float],
    pruner: PrunerConfig,
    direction: Direction = "maximize",
    peers: tuple[float, ...] = (0.5, 0.3, 0.6, 0.4),
) -> str:
    """The reason for a trial with these metrics, after peers that stood still at theirs."""
    return explain_pruning(dict(enumerate(own, 1)), len(own), pruner, direction, peers)


class TestReason:
    def test_median(self) -> None:
        """Of an even number of peers the median lies between the two in the middle."""
        assert (
            asked([0.1, 0.2], PrunerConfig(noise=0))
            == "median: best metric 0.2000 by epoch 2 against a median of 0.4500 among 4 finished trials"
        )
        assert (
            asked([0.1], PrunerConfig(noise=0), peers=()) == "median: best metric 0.1000 by epoch 1"
        )

    @pytest.mark.parametrize(
        ("direction", "best", "sign"), [("maximize", 0.14, 1), ("minimize", 0.10, -1)]
    )
    def test_margin(self, direction: Any, best: float, sign: int) -> None:
        """Where the noise counted, what was compared is told beside what was measured, and so is the margin."""
        own = [0.10, 0.13, 0.11, 0.14, 0.12]
        held = best + sign * 2.5 * estimate_noise(own)
        told = asked(own, PrunerConfig(noise=2.5), direction)
        assert (
            told
            == f"median: best metric {best:.4f} by epoch 5 ({held:.4f} with 2.5 × its noise) against a median of 0.4500 among 4 finished trials"
        )

    def test_hyperband(self) -> None:
        """Hyperband has rungs of its own, and no margin."""
        assert (
            asked([0.1, 0.2], PrunerConfig(kind="hyperband"))
            == "hyperband: best metric 0.2000 by epoch 2, not among the best of its rung"
        )
