"""What an epoch is made of: batches gathered for an optimiser step, their common sums, and the means for the record."""

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
from objectives.losses.functional import Others

SHARES_OF = 4
"""So many steps of an epoch are asked who pulls at the logits: enough to tell the classes apart, cheap enough to forget."""


def gathered(batches: Iterable[Batch], steps: int) -> Iterator[list[Batch]]:
    """`steps` batches at a time; the last time those that are left."""
    left = iter(batches)
    while group := list(islice(left, steps)):
        yield group


def pool(
    criterion: Criterion, model: nn.Module, predict: Callable[[Tensor], Tensor], group: list[Batch]
) -> Others | None:
    """The sums that make the batches of one optimiser step count as one large batch; None for a single one.

    Cross entropy and focal need the labels alone. Dice over the whole batch, and a normalised loss, need all the
    logits before the first gradient, and so a forward pass of their own; it leaves batch statistics and random numbers
    as they were. Batch normalisation itself still normalises each batch by its own statistics.
    """
    if len(group) == 1:
        return None
    if not criterion.needs_logits_to_pool:
        classes = criterion.class_count
        return criterion.pooled((_of_shape(target, classes), target) for _, target in group)
    device = group[0][0].device
    with (
        torch.no_grad(),
        _statistics_kept(model),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
    ):
        return criterion.pooled((predict(inputs), target) for inputs, target in group)


def _of_shape(target: Tensor, classes: int) -> Tensor:
    """Logits of the right shape that take no memory."""
    count, *size = target.shape
    return torch.zeros((), device=target.device).expand(count, classes, *size)


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """What batch normalisation learns of the batches within is forgotten."""
    buffers = [
        buffer
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        for buffer in module.buffers()
    ]
    held = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, before in zip(buffers, held, strict=True):
            buffer.copy_(before)


@dataclass
class Means:
    """Sums over an epoch's steps, kept on the device: one read an epoch, none a step."""

    total: Tensor
    ce: Tensor
    dice: Tensor
    steps: int = 0
    samples: int = 0
    weight_ratio: float = 1.0
    shares: list[GradientShares] = field(default_factory=list)

    @classmethod
    def zero(cls, device: torch.device) -> Means:
        """Three zeros on the device."""
        total, ce, dice = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))
        return cls(total, ce, dice)

    def add(self, parts: LossParts, samples: int) -> None:
        """A batch, or its share of a step's large one: shares add up."""
        self.total += parts.total.detach().double()
        self.ce += parts.ce.double()
        if parts.dice is not None:
            self.dice += parts.dice.double()
        self.samples += samples

    def state(self) -> dict[str, Any]:
        """For a checkpoint in the midst of an epoch."""
        sums = {"total": self.total, "ce": self.ce, "dice": self.dice}
        return sums | {
            "steps": self.steps,
            "samples": self.samples,
            "shares": [list(held) for held in self.shares],
        }

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> Means:
        """As they were when a checkpoint was written."""
        total, ce, dice = (state[name].to(device) for name in ("total", "ce", "dice"))
        shares = [GradientShares(*(part.to(device) for part in held)) for held in state["shares"]]
        return cls(total, ce, dice, steps=state["steps"], samples=state["samples"], shares=shares)

    def close(self, weight_ratio: float) -> None:
        """Sums become means over the steps; whoever holds a state of before keeps its sums."""
        self.total, self.ce, self.dice = (
            total / max(self.steps, 1) for total in (self.total, self.ce, self.dice)
        )
        self.weight_ratio = weight_ratio

    def part_shares(self) -> dict[str, float]:
        """Part → its share of the gradient at the logits; empty when there was none, or it was not finite."""
        shares = self._normalised([held.parts for held in self.shares])
        return {} if shares is None else dict(zip(("ce", "dice"), shares, strict=True))

    def class_shares(self) -> tuple[float | None, ...]:
        """The same for the elements of every class."""
        shares = self._normalised([held.classes for held in self.shares])
        return () if shares is None else tuple(shares)

    @staticmethod
    def _normalised(norms: list[Tensor]) -> list[float] | None:
        if not norms:
            return None
        total = torch.stack(norms).sum(0)
        shares = (total / total.sum()).tolist()
        return shares if all(share == share for share in shares) else None
