"""Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights from an epoch on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn


class Averager:
    """Running mean of a model's weights, by torch's `AveragedModel`, from one epoch on.

    Args:
        model: the model that is trained.
        from_epoch: the first epoch that is included; None: never.
    """

    def __init__(self, model: nn.Module, from_epoch: int | None) -> None:
        self.model = model
        self.from_epoch = from_epoch
        self._averaged: AveragedModel | None = None if from_epoch is None else AveragedModel(model)

    def includes(self, epoch: int) -> bool:
        """Return whether the mean includes the weights of that epoch."""
        return self.from_epoch is not None and epoch >= self.from_epoch

    def add_epoch(self, epoch: int, inputs: Iterable[tuple[torch.Tensor, Any]]) -> None:
        """Include the weights of an epoch and measure the batch statistics of the mean again.

        Args:
            epoch: which epoch was trained; without effect before `from_epoch`.
            inputs: batches of the training split; the first item of each is the model's input.
        """
        if self._averaged is not None and self.includes(epoch):
            self._averaged.update_parameters(self.model)
            device = next(self.model.parameters()).device
            update_bn(inputs, self._averaged.module, device)

    def model_of(self, epoch: int) -> nn.Module:
        """Return the model that is validated and kept after this epoch."""
        if self._averaged is not None and self.includes(epoch):
            return self._averaged.module
        return self.model

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint stores; None when nothing is averaged."""
        return None if self._averaged is None else self._averaged.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Continue from the state of a checkpoint."""
        if self._averaged is not None and state is not None:
            self._averaged.load_state_dict(state)
