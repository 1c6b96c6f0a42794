"""Gradient shares: the part of the gradient at the logits that a loss part, or a class, causes.

Diagnosis uses them: with extreme weights most of the gradient comes from a class of few pixels,
with an unstable Dice from that part. Gradients at the logits need no pass through the network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from objectives.losses.batch_sums import label_rows
from objectives.losses.combined import CombinedLoss
from objectives.losses.normalized_combined import NormalizedCombinedLoss
from objectives.losses.softmax import compute_dtype


class GradientShares(NamedTuple):
    """L1 norms of gradients at the logits, over one batch or summed over several.

    Attributes:
        parts: (2,) of ce_weight·(cross entropy or focal) and of dice_weight·(the overlap), each
            alone.
        classes: (C,) of the total, by the label of the element.
    """

    parts: Tensor
    classes: Tensor

    def __add__(self, other: object) -> GradientShares:
        if not isinstance(other, GradientShares):
            return NotImplemented
        return GradientShares(self.parts + other.parts, self.classes + other.classes)


def gradient_shares(
    criterion: CombinedLoss | NormalizedCombinedLoss, logits: Tensor, target: Tensor
) -> GradientShares:
    """Compute the norms of one batch, in float64 on its device.

    It leaves no gradient at `logits`, changes no running mean and does not wait for the device.

    Args:
        criterion: the loss, with its current CE/Dice weights and class weights.
        logits: (N, C, …).
        target: (N, …).

    Raises:
        ConfigError: when the shapes do not match.
    """
    if isinstance(criterion, NormalizedCombinedLoss):
        combined = criterion.combined
        scale_2 = criterion.scale_2
    else:
        combined = criterion
        scale_2 = combined.ce_weight.new_ones(2)
    with torch.enable_grad():
        leaf = logits.detach().to(compute_dtype(logits.dtype)).requires_grad_()
        main, dice = combined.parts(leaf, target)
        (pull,) = torch.autograd.grad(
            combined.ce_weight * scale_2[0] * main.value, leaf, retain_graph=dice is not None
        )
        norms = [pull.abs().sum(dtype=torch.float64)]
        total = pull
        if dice is None:
            norms.append(torch.zeros_like(norms[0]))
        else:
            (pull,) = torch.autograd.grad(combined.dice_weight * scale_2[1] * dice, leaf)
            norms.append(pull.abs().sum(dtype=torch.float64))
            total = total + pull
    classes = logits.shape[1]
    row_P = label_rows(target, classes, combined.main.ignore_index).flatten()
    norm_P = total.abs().sum(1, dtype=torch.float64).flatten()
    by_class = torch.zeros(classes + 1, dtype=torch.float64, device=logits.device).scatter_add(
        0, row_P, norm_P
    )
    return GradientShares(torch.stack(norms), by_class[:classes])
