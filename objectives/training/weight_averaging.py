"""Stochastic weight averaging (Izmailov et al. 2018): from an epoch on, the mean of the epochs' weights is what counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn


class Averager:
    """Torch's own averaged model, begun at an epoch of a schedule.

    Args:
        model: whose weights are averaged.
        from_epoch: the first epoch that takes part; None: never.
    """

    def __init__(self, model: nn.Module, from_epoch: int | None) -> None:
        self.model, self.from_epoch = model, from_epoch
        self._averaged: AveragedModel | None = None if from_epoch is None else AveragedModel(model)

    def takes(self, epoch: int) -> bool:
        """Whether the weights of that epoch take part."""
        return (
            self._averaged is not None and self.from_epoch is not None and epoch >= self.from_epoch
        )

    def add(self, epoch: int, inputs: Iterable[tuple[torch.Tensor, Any]]) -> None:
        """Take the weights of a finished epoch in, and measure the batch statistics of the mean anew.

        Args:
            inputs: batches of the training split whose first item goes through the model.
        """
        if self._averaged is not None and self.takes(epoch):
            self._averaged.update_parameters(self.model)
            device = next(self.model.parameters()).device
            update_bn(inputs, self._averaged.module, device)

    def counting(self, epoch: int) -> nn.Module:
        """The model that is validated and kept after this epoch."""
        return (
            self._averaged.module
            if self._averaged is not None and self.takes(epoch)
            else self.model
        )

    def state(self) -> dict[str, Any] | None:
        """For a checkpoint; None when nothing is averaged."""
        return None if self._averaged is None else self._averaged.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on from a checkpoint."""
        if self._averaged is not None and state is not None:
            self._averaged.load_state_dict(state)
