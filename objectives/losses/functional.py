"""Losses as pure functions, of logits and targets or of what several losses of one batch share.

Shapes: logits (N, C, …), hard targets (N, …) of integers; internally, all dimensions after C are
one length L (1 for plain samples). Whatever the logits' type and autocast, everything is computed
in float32 (float64 for float64). A batch with nothing valid in it gives a zero that is part of the
graph, with zero gradient. Nothing here waits for the device: a label outside 0 … C−1 counts like an
ignored one (`CombinedLoss.check_targets` reports it once per epoch), and sums of zero are handled
by `where`.

Differences to other libraries: smp's Dice halves the smooth, keeps absent classes in the mean at 0
and is global; MONAI's and kornia's is per image; smp's focal, and MONAI's by default, is
one-versus-rest over sigmoids; kornia's focal mean divides by ignored pixels, too; torch's cross
entropy of nothing valid is NaN.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from objectives.losses import checks
from objectives.losses.batch_sums import (
    Batch,
    Others,
    class_vector,
    count_elements,
    prepare_batch,
    weight_mass,
)
from objectives.losses.checks import Number
from objectives.losses.elements import Numbers, element_sums, focal_factor
from objectives.losses.softmax import compute_dtype

Reduction = Literal["global", "image"]


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute Σ w_y·(−log p_y) / Σ w_y over the valid elements, as torch's `cross_entropy` does.

    With label smoothing ε an element's numerator is Σ_c w_c·q_c·(−log p_c), q = (1−ε)·onehot + ε/C;
    the denominator remains Σ w_y. Torch defines it in the same way: smoothing spreads the target,
    and class c's share of it has the weight w_c.

    Args:
        logits: (N, C, …).
        target: (N, …).
        weight: (C,), or None for equal weights.
        ignore_index: label of the elements that are left out.
        label_smoothing: ε.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ConfigError: when shapes or lengths do not match.
    """
    batch = prepare_batch(logits, target, ignore_index, weight=weight, smoothed=label_smoothing > 0)
    return cross_entropy_of(batch, weight, label_smoothing)


def cross_entropy_of(
    batch: Batch, weight: Tensor | None, label_smoothing: Number, others: Others | None = None
) -> Tensor:
    """Compute `cross_entropy` of a prepared batch."""
    ce, _ = element_sums(
        batch.nll_NL, batch.spread_NL, batch.row_NL, _check_numbers(batch, weight, label_smoothing)
    )
    return _mean_loss(ce, batch, weight, others)


def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: Number = 2.0,
    alpha: Number | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute the softmax focal loss (Lin et al. 2017), mean over the valid elements.

    With class weights w it is Σ w_y·alpha_y·(1−p_y)^gamma·(−log p_y) / Σ w_y, so that gamma 0
    without alpha is the weighted cross entropy; label smoothing replaces w_y·(−log p_y) just as it
    does there.

    Soft targets are distributions q of shape (N, C), like the logits: the cross entropy is against
    q, while p_t, alpha and the denominator's weight are those of the likeliest class, argmax q; p_t
    is clamped to [1e-6, 1 − 1e-6].

    Args:
        logits: (N, C, …).
        target: (N, …) integers, or (N, C) floats.
        gamma: focusing exponent.
        alpha: one factor, or (C,).
        weight: (C,), or None for equal weights.
        ignore_index: label of the elements that are left out.
        label_smoothing: ε.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ConfigError: when shapes or lengths do not match, or gamma is negative.
    """
    checks.check_not_negative("gamma", gamma)
    if target.is_floating_point():
        return _soft_focal(logits, target, gamma, alpha, weight, label_smoothing)
    batch = prepare_batch(logits, target, ignore_index, weight=weight, smoothed=label_smoothing > 0)
    return focal_of(batch, gamma, alpha, weight, label_smoothing)


def focal_of(
    batch: Batch,
    gamma: Number,
    alpha: Number | None,
    weight: Tensor | None,
    label_smoothing: Number,
    others: Others | None = None,
) -> Tensor:
    """Compute `focal` of a prepared batch."""
    numbers = _check_numbers(batch, weight, label_smoothing, gamma, alpha)
    _, focal = element_sums(batch.nll_NL, batch.spread_NL, batch.row_NL, numbers, ce=False)
    return _mean_loss(focal, batch, weight, others)


def cross_entropy_and_focal_of(
    batch: Batch,
    gamma: Number,
    alpha: Number | None,
    weight: Tensor | None,
    label_smoothing: Number,
    others: Others | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute `cross_entropy` and `focal` of a prepared batch, in one pass."""
    ce, focal = element_sums(
        batch.nll_NL,
        batch.spread_NL,
        batch.row_NL,
        _check_numbers(batch, weight, label_smoothing, gamma, alpha),
    )
    return _mean_loss(ce, batch, weight, others), _mean_loss(focal, batch, weight, others)


def dice(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: Number = 1.0,
    square_denominator: bool = False,
    reduction: Reduction = "global",
    keep_absent: bool = False,
    ignore_index: int = -100,
) -> Tensor:
    """Compute the soft Dice loss, 1 − mean of (2·I + s)/(D + s) (Milletari et al. 2016).

    I = Σ p·g, and D = Σ p + Σ g or Σ p² + Σ g². Sums run over the valid elements of the whole batch
    ("global") or of each image ("image"); in the latter case the loss is the mean over the images
    that contain a valid element. The mean is over the classes in the target, or over all classes.

    Args:
        logits: (N, C, …).
        target: (N, …).
        smooth: s.
        square_denominator: use squares in D.
        reduction: "global" or "image".
        keep_absent: include classes that the target does not contain.
        ignore_index: label of the elements that are left out.

    Returns:
        A scalar in 0 … 1, float32 or wider.

    Raises:
        ConfigError: when shapes do not match, smooth is negative, or the reduction is unknown.
    """
    checks.check_not_negative("smooth", smooth)
    checks.check_choice("reduction", reduction, ("global", "image"))
    return dice_of(
        prepare_batch(logits, target, ignore_index, power=2 if square_denominator else 1),
        smooth,
        reduction,
        keep_absent,
    )


def dice_of(
    batch: Batch,
    smooth: Number,
    reduction: Reduction,
    keep_absent: bool,
    others: Others | None = None,
) -> Tensor:
    """Compute `dice` of a batch that was prepared with the power of its denominator."""
    sums_NC = dice_sums(batch)
    pooled = others is not None and others.overlap_C is not None
    if reduction == "global":
        sums_NC = tuple(part.sum(0, keepdim=True) for part in sums_NC)
    if others is not None and pooled:
        of_all = (others.overlap_C, others.total_C, others.count_C)
        # The value of all batches, with this batch's part of the gradient.
        sums_NC = tuple(
            own + (total - own).detach()
            for own, total in zip(sums_NC, of_all, strict=True)
            if total is not None
        )
    overlap_NC, total_NC, count_NC = sums_NC
    numerator_NC = 2 * overlap_NC + smooth
    denominator_NC = total_NC + smooth
    # Nothing predicted and nothing in the target, without smoothing: 0/0 is a perfect score.
    score_NC = _where_positive(denominator_NC, numerator_NC) / _where_positive(
        denominator_NC, denominator_NC
    )
    nonempty_N1 = count_NC.sum(1, keepdim=True) > 0
    kept_NC = (nonempty_N1 if keep_absent else count_NC > 0).expand_as(count_NC)
    loss_N = ((1 - score_NC) * kept_NC).sum(1) / kept_NC.sum(1).clamp_min(1)
    images = nonempty_N1.sum()
    if others is not None and reduction == "image":
        images = others.images
    loss = loss_N.sum() / images.clamp_min(1)
    if others is not None and pooled:
        loss = loss - loss.detach() * (1 - 1 / others.batches)
    return loss.to(batch.nll_NL.dtype)


def dice_sums(batch: Batch) -> tuple[Tensor, ...]:
    """Return Σ p·g, Σ p + Σ g (or of squares) and Σ g over valid elements, (N, C) in float64."""
    assert batch.soft_NC is not None, "prepare did not get the power of Dice's denominator"
    assert batch.hit_NC is not None
    return batch.hit_NC, batch.soft_NC + batch.count_NC, batch.count_NC


def _mean_loss(
    total: Tensor | None, batch: Batch, weight: Tensor | None, others: Others | None
) -> Tensor:
    """Compute Σ loss / Σ w_y, and 0 with zero gradient if nothing was valid."""
    assert total is not None
    mass = weight_mass(batch.count_NC, weight) if others is None else others.mass
    return (total / _where_positive(mass, mass)).to(batch.nll_NL.dtype)


def _check_numbers(
    batch: Batch,
    weight: Tensor | None,
    label_smoothing: Number,
    gamma: Number | None = None,
    alpha: Number | None = None,
) -> Numbers:
    """Check the numbers, and give vectors a last entry for elements that do not count."""
    if isinstance(alpha, Tensor) and alpha.dim() > 0:
        alpha = _label_table("alpha", alpha, batch)
    if weight is not None:
        weight = _label_table("weight", weight, batch)
    return Numbers(weight, label_smoothing, gamma, alpha)


def _label_table(name: str, values: Tensor, batch: Batch) -> Tensor:
    """Make a table of a number per label, and 0 for elements that do not count, (C + 1,)."""
    checks.check_per_class(name, values, batch.count_NC.shape[1])
    return torch.cat([values.to(batch.nll_NL.dtype), batch.nll_NL.new_zeros(1)])


def _soft_focal(
    logits: Tensor,
    target: Tensor,
    gamma: Number,
    alpha: Number | None,
    weight: Tensor | None,
    label_smoothing: float,
) -> Tensor:
    """Compute `focal` against distributions, by plain autograd, as they are small."""
    checks.check_soft_target(logits, target)
    classes = logits.shape[1]
    log_p_NC = torch.log_softmax(logits, 1, dtype=compute_dtype(logits.dtype))
    q_NC = target.to(log_p_NC.dtype)
    top_N1 = q_NC.argmax(1, keepdim=True)
    batch = Batch(
        top_N1, -log_p_NC.gather(1, top_N1), None, None, None, count_elements(top_N1, classes)
    )
    q_NC = (1 - label_smoothing) * q_NC + label_smoothing / classes
    if weight is not None:
        q_NC = q_NC * class_vector("weight", weight, log_p_NC)
    factor_N = focal_factor(batch.nll_NL, gamma, clamped=True).squeeze(1)
    loss_N = -(q_NC * log_p_NC).sum(1) * factor_N
    if isinstance(alpha, Tensor) and alpha.dim():
        loss_N = loss_N * _label_table("alpha", alpha, batch)[top_N1.squeeze(1)]
    elif alpha is not None:
        loss_N = loss_N * alpha
    return _mean_loss(loss_N.sum(dtype=torch.float64), batch, weight, None)


def _where_positive(denominator: Tensor, value: Tensor) -> Tensor:
    """Return `value` where the denominator is above 0, else 1: division and gradient are safe."""
    return torch.where(denominator > 0, value, 1.0)
