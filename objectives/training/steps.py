"""Parts of an epoch: batches grouped into optimizer steps, their common sums, and means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from objectives.data.loading import Batch
from objectives.losses import Criterion, GradientShares, LossParts
from objectives.losses.batch_sums import Others
from objectives.training.data_figures import DataFigures

SHARES_OF = 4
"""Steps per epoch whose gradient shares are computed: enough to compare classes, and cheap."""


def group_batches(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield `size` batches at a time; the last group has what is left."""
    left = iter(batches)
    while group := list(islice(left, size)):
        yield group


def pool_batches(
    criterion: Criterion, model: nn.Module, predict: Callable[[Tensor], Tensor], group: list[Batch]
) -> Others | None:
    """Compute the sums with which a step's batches count as one large batch; None for a single one.

    Cross entropy and focal need the labels only. Dice over the whole batch, and a normalized loss,
    need all logits before the first gradient, and so a forward pass of their own, which leaves
    batch statistics and random numbers unchanged. Batch normalization still normalizes each batch
    by its own statistics.
    """
    if len(group) == 1:
        return None
    if not criterion.needs_logits_to_pool:
        classes = criterion.class_count
        return criterion.pooled(
            (_logits_shaped_like(target, classes), target) for _, target in group
        )
    device = group[0][0].device
    with (
        torch.no_grad(),
        _unchanged_statistics(model),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
    ):
        return criterion.pooled((predict(inputs), target) for inputs, target in group)


def _logits_shaped_like(target: Tensor, classes: int) -> Tensor:
    """Return logits of the right shape that take no memory."""
    count, *size = target.shape
    return torch.zeros((), device=target.device).expand(count, classes, *size)


@contextmanager
def _unchanged_statistics(model: nn.Module) -> Iterator[None]:
    """Restore the statistics of batch normalization after the block."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    buffers = [buffer for layer in layers for buffer in layer.buffers()]
    copies = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, before in zip(buffers, copies, strict=True):
            buffer.copy_(before)


@dataclass
class Means:
    """Sums over an epoch's steps, kept on the device: one read per epoch, none per step.

    Attributes:
        total: loss.
        ce: cross entropy or focal part.
        dice: Dice part, or another overlap.
        steps: optimizer steps so far.
        samples: samples so far.
        weight_ratio: largest over smallest class weight.
        shares: gradient shares of the first steps.
        smallest_batch: samples of the smallest batch; None before the first one.
        data: figures of inputs and targets.
    """

    total: Tensor
    ce: Tensor
    dice: Tensor
    steps: int = 0
    samples: int = 0
    weight_ratio: float = 1.0
    shares: list[GradientShares] = field(default_factory=list)
    smallest_batch: int | None = None
    data: DataFigures = field(default_factory=DataFigures)

    @classmethod
    def zero(cls, device: torch.device) -> Means:
        """Start with zeros on the device."""
        total, ce, dice = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))
        return cls(total, ce, dice)

    def add_parts(self, parts: LossParts, samples: int) -> None:
        """Add a batch, or its share of a step's large batch: shares add up."""
        self.total += parts.total.detach().double()
        self.ce += parts.ce.double()
        if parts.dice is not None:
            self.dice += parts.dice.double()
        self.samples += samples
        self.smallest_batch = min(samples, self.smallest_batch or samples)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint within an epoch stores."""
        return {
            "total": self.total,
            "ce": self.ce,
            "dice": self.dice,
            "steps": self.steps,
            "samples": self.samples,
            "shares": [list(shares) for shares in self.shares],
            "smallest_batch": self.smallest_batch,
            "data": self.data.state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> Means:
        """Continue from the state of a checkpoint."""
        return cls(
            state["total"].to(device),
            state["ce"].to(device),
            state["dice"].to(device),
            steps=state["steps"],
            samples=state["samples"],
            shares=[_to_device(shares, device) for shares in state["shares"]],
            # Checkpoints of an earlier version lack the next two.
            smallest_batch=state.get("smallest_batch") or None,
            data=DataFigures.from_state(state.get("data", {}), device),
        )

    def divide_by_steps(self, weight_ratio: float) -> None:
        """Divide the sums by the steps; a state that was taken before keeps its sums."""
        steps = max(self.steps, 1)
        self.total = self.total / steps
        self.ce = self.ce / steps
        self.dice = self.dice / steps
        self.weight_ratio = weight_ratio

    def part_shares(self) -> dict[str, float]:
        """Return each part's share of the gradient at the logits; empty if zero or not finite."""
        shares = _normalize_shares([shares.parts for shares in self.shares])
        return {} if shares is None else dict(zip(("ce", "dice"), shares, strict=True))

    def class_shares(self) -> tuple[float | None, ...]:
        """Return the same for the elements of every class."""
        shares = _normalize_shares([shares.classes for shares in self.shares])
        return () if shares is None else tuple(shares)


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a layer normalizes by the statistics of the batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _to_device(shares: list[Tensor], device: torch.device) -> GradientShares:
    parts, classes = shares
    return GradientShares(parts.to(device), classes.to(device))


def _normalize_shares(norms: list[Tensor]) -> list[float] | None:
    if not norms:
        return None
    total = torch.stack(norms).sum(0)
    shares = (total / total.sum()).tolist()
    return shares if all(share == share for share in shares) else None
