"""References for the losses: the formulas written out in float64, and batches to compare on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

IGNORED = 255
Loss = Callable[[Tensor, Tensor], Tensor]

WEIGHT_4 = torch.tensor([0.2, 0.5, 1.3, 2.0], dtype=torch.float64)
ALPHA_4 = torch.tensor([0.11, 0.45, 0.12, 0.32], dtype=torch.float64)


def batch(
    seed: int = 0,
    shape: tuple[int, ...] = (2, 4, 3, 5),
    ignored: float = 0.2,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Random logits that want a gradient, and labels of which a share is ignored."""
    random = torch.Generator().manual_seed(seed)
    logits = (
        (3 * torch.randn(shape, generator=random, dtype=torch.float64)).to(dtype).requires_grad_()
    )
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=random)
    holes = torch.rand(target.shape, generator=random) < ignored
    return logits, target.masked_fill(holes, IGNORED)


def gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """The gradient of a loss at the logits."""
    (found,) = torch.autograd.grad(loss(logits, target), logits)
    return found


def assert_same(loss: Loss, expected: Loss, logits: Tensor, target: Tensor) -> None:
    """Values and gradients agree to float64's digits."""
    torch.testing.assert_close(
        loss(logits, target), expected(logits, target), rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(
        gradient(loss, logits, target), gradient(expected, logits, target), rtol=1e-9, atol=1e-12
    )


def reference_softmax(logits: Tensor) -> Tensor:
    """exp z_c / Σ exp z over the second dimension, in float64."""
    powers = (logits.double() - logits.detach().double().amax(1, keepdim=True)).exp()
    return powers / powers.sum(1, keepdim=True)


def reference_focal(
    logits: Tensor,
    target: Tensor,
    gamma: float = 0.0,
    alpha: Tensor | None = None,
    weight: Tensor | None = None,
    ε: float = 0.0,
) -> Tensor:
    """Σ alpha_y·(1−p_y)^gamma·Σ_c w_c·q_c·(−log p_c) / Σ w_y, element after element."""
    classes = logits.shape[1]
    ones = torch.ones(classes, dtype=torch.float64)
    alpha, weight = ones if alpha is None else alpha, ones if weight is None else weight
    total, mass = torch.zeros((), dtype=torch.float64), 0.0
    for scores, y in zip(
        logits.movedim(1, -1).reshape(-1, classes), target.flatten().tolist(), strict=True
    ):
        if y == IGNORED:
            continue
        p = scores.double().softmax(0)
        q = torch.full((classes,), ε / classes, dtype=torch.float64)
        q[y] += 1 - ε
        total = total + alpha[y] * (1 - p[y]) ** gamma * -(weight * q * p.log()).sum()
        mass += float(weight[y])
    return total / mass if mass else total


def reference_dice(
    logits: Tensor,
    target: Tensor,
    smooth: float,
    square: bool,
    reduction: str,
    keep_absent: bool = False,
) -> Tensor:
    """1 − mean of (2·I + s)/(D + s), image after image and class after class."""
    if reduction == "image":
        images = [
            (x[None], t[None]) for x, t in zip(logits, target, strict=True) if (t != IGNORED).any()
        ]
        return torch.stack(
            [reference_dice(x, t, smooth, square, "global", keep_absent) for x, t in images]
        ).mean()
    p, power, scores = reference_softmax(logits), 2 if square else 1, []
    for c in range(logits.shape[1]):
        truth, chance = (target == c).double(), p[:, c] * (target != IGNORED)
        if truth.sum() > 0 or keep_absent:
            scores.append(
                (2 * (chance * truth).sum() + smooth)
                / ((chance**power).sum() + truth.sum() + smooth)
            )
    return 1 - torch.stack(scores).mean()
