"""The best epoch, and the epochs since the validation loss was lowest."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from objectives.training.best_epoch import BestEpoch
from spaces.config import Direction


def model_with(weight: float) -> nn.Module:
    """A model whose one weight is this number."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    return model


class TestUpdate:
    @pytest.mark.parametrize(
        ("direction", "kept"), [("maximize", 2.0), ("minimize", 3.0)], ids=["maximize", "minimize"]
    )
    def test_weights(self, direction: Direction, kept: float) -> None:
        """The weights of the epoch with the best metric are kept, by the metric's direction."""
        best = BestEpoch(direction)
        for epoch, metric in ((1.0, 0.5), (2.0, 0.9), (3.0, 0.1)):
            best.update(metric, 1.0, model_with(epoch))
        assert best.weights["weight"].item() == kept

    def test_copied(self) -> None:
        """Kept weights do not change when the training continues."""
        best, model = BestEpoch("maximize"), model_with(1.0)
        best.update(0.5, 1.0, model)
        nn.init.constant_(model.weight, 7.0)  # type: ignore[arg-type]
        assert best.weights["weight"].item() == 1.0

    def test_nan_first(self) -> None:
        """The weights of a first epoch without a metric are kept until an epoch has one."""
        best = BestEpoch("maximize")
        best.update(math.nan, math.nan, model_with(1.0))
        assert best.weights["weight"].item() == 1.0
        best.update(0.1, 1.0, model_with(2.0))
        assert best.weights["weight"].item() == 2.0

    def test_epochs_without_gain(self) -> None:
        """They are counted from the epoch with the lowest validation loss, whatever the metric."""
        best, counts = BestEpoch("maximize"), []
        for val_loss in (1.0, 0.8, 0.8, 0.9, math.nan, 0.7):
            best.update(0.5, val_loss, model_with(1.0))
            counts.append(best.epochs_without_gain)
        assert counts == [0, 0, 1, 2, 3, 0]


class TestState:
    def test_restored(self) -> None:
        """A restored object continues as the first one does."""
        first, second = BestEpoch("maximize"), BestEpoch("maximize")
        first.update(0.5, 1.0, model_with(1.0))
        first.update(0.4, 1.5, model_with(2.0))
        second.restore(first.state())
        assert (second.metric, second.val_loss, second.epochs_without_gain) == (0.5, 1.0, 1)
        assert torch.equal(second.weights["weight"], first.weights["weight"])
