"""Who pulls at the logits: the share of the gradient there that each part of a loss, and each class, carries.

A diagnosis asks for it: with extreme weights a class of few pixels carries most of the gradient, with an unstable Dice
that part does. The gradients at the logits are known in closed form, so this needs no pass through the network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from objectives.losses import functional
from objectives.losses.combined import CombinedLoss
from objectives.losses.normalized import NormalizedCombinedLoss
from objectives.losses.softmax import wide


class GradientShares(NamedTuple):
    """L1 norms of gradients at the logits, over one batch or summed over several.

    Attributes:
        parts: (2,) of ce_weight·(the main part) and of dice_weight·(the overlap), each by itself.
        classes: (C,) of the total, by the label of the element at whose logits it is.
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
    """The norms of one batch, float64, on its device; nothing is left at `logits`, no running mean moves, nothing waits.

    Args:
        criterion: the loss, with the split and the weights that hold now.
        logits: (N, C, …). target: (N, …).

    Raises:
        ConfigError: when the shapes do not fit.
    """
    combined = criterion.combined if isinstance(criterion, NormalizedCombinedLoss) else criterion
    scale_2 = (
        criterion.scale_2
        if isinstance(criterion, NormalizedCombinedLoss)
        else combined.ce_weight.new_ones(2)
    )
    with torch.enable_grad():
        leaf = logits.detach().to(wide(logits.dtype)).requires_grad_()
        main, dice = combined.parts(leaf, target)
        (pull,) = torch.autograd.grad(
            combined.ce_weight * scale_2[0] * main.value, leaf, retain_graph=dice is not None
        )
        norms, total = [pull.abs().sum(dtype=torch.float64)], pull
        if dice is None:
            norms.append(torch.zeros_like(norms[0]))
        else:
            (pull,) = torch.autograd.grad(combined.dice_weight * scale_2[1] * dice, leaf)
            norms.append(pull.abs().sum(dtype=torch.float64))
            total = total + pull
    classes = logits.shape[1]
    row_P = functional.rows(target, classes, combined.main.ignore_index).flatten()
    norm_P = total.abs().sum(1, dtype=torch.float64).flatten()
    by_class = torch.zeros(classes + 1, dtype=torch.float64, device=logits.device).scatter_add(
        0, row_P, norm_P
    )
    return GradientShares(torch.stack(norms), by_class[:classes])
