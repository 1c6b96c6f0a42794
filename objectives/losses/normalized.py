"""A combined loss on a scale of its own, whatever its weights and split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from objectives.losses import checks
from objectives.losses.combined import CombinedLoss, LossParts
from objectives.losses.functional import Others
from objectives.schedules import EpochValues


class NormalizedCombinedLoss(nn.Module):
    """A combined loss whose parts are each divided by a running mean of themselves, so that no weight or split moves its scale.

    The mean is an exponential one, m ← momentum·m + (1 − momentum)·part, divided by the sum of its weights so far (bias
    correction); no gradient flows through it. It moves in training mode only, and not by a batch whose part is 0 (nothing
    valid) or not finite. Where several batches count as one large batch, it moves once, by the large one's part, when
    their sums are gathered. Its state belongs to a checkpoint.

    Args:
        combined: the loss to normalise.
        momentum: of the running means, in [0, 1).

    Raises:
        ConfigError: when the momentum lies outside [0, 1).
    """

    momentum: Tensor
    mean_2: Tensor
    mass_2: Tensor

    def __init__(self, combined: CombinedLoss, momentum: float = 0.99) -> None:
        super().__init__()
        checks.share("momentum", momentum)
        self.combined, device = combined, combined.ce_weight.device
        self.register_buffer(
            "momentum", torch.tensor(momentum, dtype=torch.float64, device=device), persistent=False
        )
        self.register_buffer("mean_2", torch.zeros(2, dtype=torch.float64, device=device))
        self.register_buffer("mass_2", torch.zeros(2, dtype=torch.float64, device=device))

    def forward(self, logits: Tensor, target: Tensor, others: Others | None = None) -> LossParts:
        """The normalised total, and the parts as they are, of logits (N, C, …) and target (N, …)."""
        main, dice = self.combined.parts(logits, target, others)
        if others is None:  # of a share, `pooled` has taken in the whole
            self._take_in(main.value, dice)
        scale_2 = self.scale_2
        total = self.combined.ce_weight * scale_2[0] * main.value
        if dice is not None:
            total = total + self.combined.dice_weight * scale_2[1] * dice
        return CombinedLoss.told(total, main, dice)

    @torch.no_grad()
    def pooled(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Others:
        """As the combined loss does; the running means take in the parts of all batches together."""
        held = list(batches)
        others = self.combined.pooled(held)
        parts = [self.combined.parts(logits, target, others) for logits, target in held]
        overlaps = [dice for _, dice in parts if dice is not None]
        self._take_in(
            torch.stack([main.value for main, _ in parts]).sum(),
            torch.stack(overlaps).sum() if overlaps else None,
        )
        return others

    @property
    def class_count(self) -> int:
        """As the combined loss has it."""
        return self.combined.class_count

    @property
    def needs_logits_to_pool(self) -> bool:
        """They do: the value of the large batch's parts is to be known before the first of its gradients."""
        return True

    @property
    def weight_ratio(self) -> float:
        """As the combined loss has it."""
        return self.combined.weight_ratio

    def set_epoch(self, values: EpochValues) -> None:
        """As the combined loss does."""
        self.combined.set_epoch(values)

    def check_targets(self) -> None:
        """As the combined loss does."""
        self.combined.check_targets()

    def used(self) -> dict[str, Any]:
        """As the combined loss does."""
        return self.combined.used() | {
            "loss.normalize": True,
            "loss.normalize_momentum": self.momentum.item(),
        }

    def _take_in(self, main: Tensor, dice: Tensor | None) -> None:
        """Move the running means by the parts of a batch."""
        for place, part in enumerate((main, dice)):
            if part is None or not self.training:
                continue
            value = part.detach().double()
            step = torch.where((value > 0) & value.isfinite(), 1 - self.momentum, 0.0)
            # a NaN times a step of 0 would still be NaN: hence the second `where`
            self.mean_2[place].add_(step * (torch.where(step > 0, value, 0.0) - self.mean_2[place]))
            self.mass_2[place].add_(step * (1 - self.mass_2[place]))

    @property
    def scale_2(self) -> Tensor:
        """What the parts are multiplied by now: one over their running means, 1 as long as there is none."""
        return torch.where(self.mass_2 > 0, self.mass_2 / self.mean_2, 1.0)
