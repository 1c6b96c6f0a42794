"""The sums of an epoch's steps."""

from __future__ import annotations

import torch

from objectives.losses import LossParts
from objectives.training.steps import Means

CPU = torch.device("cpu")


def add_batch(means: Means, samples: int) -> None:
    """Add a batch whose losses do not matter."""
    means.add_parts(LossParts(total=torch.ones(()), ce=torch.ones(()), dice=None), samples)


class TestSmallestBatch:
    def test_smallest(self) -> None:
        """It is the size of the smallest batch, also after a checkpoint."""
        means = Means.zero(CPU)
        for samples in (8, 3):
            add_batch(means, samples)
        means = Means.from_state(means.state(), CPU)
        add_batch(means, 8)
        assert means.smallest_batch == 3

    def test_older_checkpoint(self) -> None:
        """It is unknown after a checkpoint that lacks it, as one before validation may."""
        state = Means.zero(CPU).state()
        del state["smallest_batch"]
        assert Means.from_state(state, CPU).smallest_batch is None
        assert Means.from_state(state | {"smallest_batch": 0}, CPU).smallest_batch is None
