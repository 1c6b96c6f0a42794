"""Normalized combined loss, whose scale depends neither on class weights nor on CE/Dice weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from objectives.losses import checks
from objectives.losses.batch_sums import Others
from objectives.losses.combined import CombinedLoss, LossParts
from objectives.schedules import EpochValues


class NormalizedCombinedLoss(nn.Module):
    """Combined loss with each part divided by a running mean of itself.

    The mean is exponential, m ← momentum·m + (1 − momentum)·part, divided by the sum of its weights
    so far (bias correction); no gradient flows through it. It is updated in training mode only, and
    not by a batch whose part is 0 (nothing valid) or not finite. If several batches count as one
    large batch, it is updated once, by the large batch's part, in `pooled`. Its state is part of a
    checkpoint.

    Args:
        combined: the loss to normalize.
        momentum: of the running means, in [0, 1).

    Raises:
        ConfigError: when the momentum is outside [0, 1).
    """

    momentum: Tensor
    mean_2: Tensor
    mass_2: Tensor

    def __init__(self, combined: CombinedLoss, momentum: float = 0.99) -> None:
        super().__init__()
        checks.check_share("momentum", momentum)
        self.combined = combined
        device = combined.ce_weight.device
        self.register_buffer(
            "momentum", torch.tensor(momentum, dtype=torch.float64, device=device), persistent=False
        )
        self.register_buffer("mean_2", torch.zeros(2, dtype=torch.float64, device=device))
        self.register_buffer("mass_2", torch.zeros(2, dtype=torch.float64, device=device))

    def forward(self, logits: Tensor, target: Tensor, others: Others | None = None) -> LossParts:
        """Compute the normalized total and plain parts of logits (N, C, …) and target (N, …)."""
        main, dice = self.combined.parts(logits, target, others)
        if others is None:  # else `pooled` has included the large batch already
            self._update_means(main.value, dice)
        scale_2 = self.scale_2
        total = self.combined.ce_weight * scale_2[0] * main.value
        if dice is not None:
            total = total + self.combined.dice_weight * scale_2[1] * dice
        return LossParts.detach(total, main, dice)

    @torch.no_grad()
    def pooled(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Others:
        """Compute the sums of a large batch, and update the running means by its parts."""
        kept = list(batches)
        others = self.combined.pooled(kept)
        parts = [self.combined.parts(logits, target, others) for logits, target in kept]
        overlaps = [dice for _, dice in parts if dice is not None]
        self._update_means(
            torch.stack([main.value for main, _ in parts]).sum(),
            torch.stack(overlaps).sum() if overlaps else None,
        )
        return others

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return self.combined.class_count

    @property
    def needs_logits_to_pool(self) -> bool:
        """True: the value of the large batch's parts has to be known before its first gradient."""
        return True

    @property
    def weight_ratio(self) -> float:
        """Largest over smallest current class weight; 1 without class weights."""
        return self.combined.weight_ratio

    def set_epoch(self, values: EpochValues) -> None:
        """Set the epoch's CE/Dice weights, smooth and clip ratio."""
        self.combined.set_epoch(values)

    def check_targets(self) -> None:
        """Check the labels seen so far; see `CombinedLoss.check_targets`."""
        self.combined.check_targets()

    def used(self) -> dict[str, Any]:
        """Return dotted path → final value of what has an effect; see `CombinedLoss.used`."""
        return self.combined.used() | {
            "loss.normalize": True,
            "loss.normalize_momentum": self.momentum.item(),
        }

    def _update_means(self, main: Tensor, dice: Tensor | None) -> None:
        """Update the running means by the parts of a batch."""
        for index, part in enumerate((main, dice)):
            if part is None or not self.training:
                continue
            value = part.detach().double()
            step = torch.where((value > 0) & value.isfinite(), 1 - self.momentum, 0.0)
            # NaN times a step of 0 would still be NaN: hence the second `where`.
            change = torch.where(step > 0, value, 0.0) - self.mean_2[index]
            self.mean_2[index].add_(step * change)
            self.mass_2[index].add_(step * (1 - self.mass_2[index]))

    @property
    def scale_2(self) -> Tensor:
        """Current factors of the parts: one over their running means, 1 before there is one."""
        return torch.where(self.mass_2 > 0, self.mass_2 / self.mean_2, 1.0)
