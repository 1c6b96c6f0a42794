"""Best epoch of a training: its weights and metric, and the epochs without a lower loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from spaces.config import Direction
from spaces.records import better


@dataclass
class BestEpoch:
    """What is kept of the best epoch so far.

    Attributes:
        direction: whether a larger or a smaller metric is better.
        metric: of the best epoch; NaN before the first one.
        weights: of the best epoch, on the CPU.
        val_loss: lowest validation loss so far.
        epochs_without_gain: epochs since the validation loss was lowest.
    """

    direction: Direction
    metric: float = math.nan
    weights: dict[str, Tensor] = field(default_factory=dict)
    val_loss: float = math.nan
    epochs_without_gain: int = 0

    def update(self, metric: float, val_loss: float, model: nn.Module) -> None:
        """Keep the weights if the metric is the best so far, and count epochs without gain."""
        if not self.weights or better(metric, self.metric, self.direction):
            self.metric = metric
            self.weights = {
                name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()
            }
        if better(val_loss, self.val_loss, "minimize"):
            self.val_loss = val_loss
            self.epochs_without_gain = 0
        else:
            self.epochs_without_gain += 1

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        return {
            "best_weights": self.weights,
            "best_metric": self.metric,
            "best_val_loss": self.val_loss,
            "epochs_without_gain": self.epochs_without_gain,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the state of a checkpoint."""
        self.weights = state["best_weights"]
        self.metric = state["best_metric"]
        self.val_loss = state["best_val_loss"]
        self.epochs_without_gain = state["epochs_without_gain"]
