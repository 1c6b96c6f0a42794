"""The losses as pure functions. Each takes logits and targets, or what several losses of one batch share.

Shapes: logits (N, C, …), hard targets (N, …) of integers; inside, every dimension after C is one length L (1 for
plain samples). Whatever the logits' type and whatever autocast says, everything is float32 (float64 for float64).
A batch with nothing valid in it gives a zero that is still part of the graph, with zero gradient. Nothing here waits
for the device: a label outside 0 … C−1 counts like an ignored one (`CombinedLoss.check_targets` names it once an
epoch), and sums of zero are handled by `where`.

Where users' other losses differ: smp's Dice halves the smooth, leaves absent classes in the mean at 0 and is global;
MONAI's and kornia's is per image; smp's focal, and MONAI's by default, is one-versus-rest over sigmoids; kornia's focal
mean divides by ignored pixels, too; torch's cross entropy of nothing valid is NaN.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from objectives.losses import checks
from objectives.losses.checks import Number
from objectives.losses.elements import Numbers, element_sums, modulation
from objectives.losses.softmax import Power, by_class, softmax_sums, wide

Reduction = Literal["global", "image"]


class Batch(NamedTuple):
    """What the losses of one batch share. Where an element does not count, every number of it is 0.

    Attributes:
        row_NL: labels, C where nothing counts.
        nll_NL: −log p of the label.
        spread_NL: −Σ_c w_c/C·log p_c, which label smoothing needs; None without.
        soft_NC: Σ p or Σ p² of every class, which Dice needs; None without.
        hit_NC: Σ p of every class over its own elements, likewise.
        count_NC: elements of every class in every image.
    """

    row_NL: Tensor
    nll_NL: Tensor
    spread_NL: Tensor | None
    soft_NC: Tensor | None
    hit_NC: Tensor | None
    count_NC: Tensor


class Others(NamedTuple):
    """Sums over all batches that are one large batch under gradient accumulation.

    With them a batch's losses are its share of the large batch's: the shares add up to that loss, their gradients to its
    gradient. Dice over the whole batch is no sum; each batch gets an equal share of it and its own part of the gradient.

    Attributes:
        batches: how many they are.
        mass: Σ w_y.
        images: how many hold a valid element.
        overlap_C, total_C, count_C: Dice's sums over all images; None where Dice needs none.
    """

    batches: int
    mass: Tensor
    images: Tensor
    overlap_C: Tensor | None = None
    total_C: Tensor | None = None
    count_C: Tensor | None = None


def prepare(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    *,
    weight: Tensor | None = None,
    smoothed: bool = False,
    power: Power | None = None,
) -> Batch:
    """The shared part of a batch.

    Args:
        logits: (N, C, …), of any floating type.
        target: (N, …), of any integer type.
        ignore_index: label of the elements that count for nothing.
        weight: (C,) class weights, which label smoothing spreads.
        smoothed: whether a loss will smooth labels.
        power: of p in Dice's denominator; None without Dice.

    Raises:
        ConfigError: when the shapes do not fit each other, or the target is not of integers.
    """
    checks.hard_target(logits, target)
    classes = logits.shape[1]
    row_NL = rows(target, classes, ignore_index)
    u_C = None
    if smoothed:
        u_C = (
            logits.new_full((classes,), 1 / classes, dtype=wide(logits.dtype))
            if weight is None
            else _vector("weight", weight, logits) / classes
        )
    sums = softmax_sums(logits, row_NL, u_C, power)
    return Batch(row_NL, *sums, counts(row_NL, classes))


def rows(target: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Labels (N, L) in 0 … C, where C stands for whatever does not count."""
    target_NL = target.long().flatten(1) if target.dim() > 1 else target.long().unsqueeze(1)
    known_NL = (target_NL >= 0) & (target_NL < classes) & (target_NL != ignore_index)
    return torch.where(known_NL, target_NL, classes)


def counts(row_NL: Tensor, classes: int) -> Tensor:
    """Elements of every class in every image, (N, C) in float64."""
    return by_class(torch.ones_like(row_NL, dtype=torch.float64), row_NL, classes)


def others_of(
    counts_NC: list[Tensor], sums: list[tuple[Tensor, ...]], weight: Tensor | None
) -> Others:
    """The sums over batches that are to count as one.

    Args:
        counts_NC: `counts` of each batch.
        sums: `dice_sums` of each; empty where Dice over the whole batch takes no part.
        weight: (C,) class weights.
    """
    count_NC = torch.cat(counts_NC)
    others = Others(len(counts_NC), _mass(count_NC, weight), (count_NC.sum(1) > 0).sum())
    if not sums:
        return others
    overlap_C, total_C, count_C = (
        torch.cat(parts).sum(0, keepdim=True) for parts in zip(*sums, strict=True)
    )
    return others._replace(overlap_C=overlap_C, total_C=total_C, count_C=count_C)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Σ w_y·(−log p_y) / Σ w_y over the valid elements, as `torch.nn.functional.cross_entropy` has it.

    With label smoothing ε an element's numerator is Σ_c w_c·q_c·(−log p_c), q = (1−ε)·onehot + ε/C; the denominator
    stays Σ w_y. That is torch's meaning, too: smoothing spreads the target, and class c's share of it weighs w_c.

    Args:
        logits: (N, C, …). target: (N, …). weight: (C,) or None for equal weights.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ConfigError: when shapes or lengths do not fit.
    """
    batch = prepare(logits, target, ignore_index, weight=weight, smoothed=label_smoothing > 0)
    return cross_entropy_of(batch, weight, label_smoothing)


def cross_entropy_of(
    batch: Batch, weight: Tensor | None, label_smoothing: Number, others: Others | None = None
) -> Tensor:
    """`cross_entropy` of a prepared batch."""
    ce, _ = element_sums(
        batch.nll_NL, batch.spread_NL, batch.row_NL, _numbers(batch, weight, label_smoothing)
    )
    return _mean(ce, batch, weight, others)


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
    """The softmax focal loss (Lin et al. 2017): alpha_y·(1−p_y)^gamma·(−log p_y), mean over the valid elements.

    With class weights w it is Σ w_y·alpha_y·(1−p_y)^gamma·(−log p_y) / Σ w_y, so that gamma 0 without alpha is the
    weighted cross entropy; label smoothing takes the place of w_y·(−log p_y) just as it does there.

    Soft targets are distributions q, shape (N, C) like the logits: the cross entropy is the one against q, while p_t,
    alpha and the denominator's weight are those of the likeliest class, argmax q; p_t is clamped to [1e-6, 1 − 1e-6].

    Args:
        logits: (N, C, …). target: (N, …) integers, or (N, C) floats. alpha: a factor, or (C,). weight: (C,).

    Returns:
        A scalar, float32 or wider.

    Raises:
        ConfigError: when shapes or lengths do not fit, or gamma is negative.
    """
    checks.not_negative("gamma", gamma)
    if target.is_floating_point():
        return _soft_focal(logits, target, gamma, alpha, weight, label_smoothing)
    batch = prepare(logits, target, ignore_index, weight=weight, smoothed=label_smoothing > 0)
    return focal_of(batch, gamma, alpha, weight, label_smoothing)


def focal_of(
    batch: Batch,
    gamma: Number,
    alpha: Number | None,
    weight: Tensor | None,
    label_smoothing: Number,
    others: Others | None = None,
) -> Tensor:
    """`focal` of a prepared batch."""
    numbers = _numbers(batch, weight, label_smoothing, gamma, alpha)
    _, focal = element_sums(batch.nll_NL, batch.spread_NL, batch.row_NL, numbers, ce=False)
    return _mean(focal, batch, weight, others)


def both_of(
    batch: Batch,
    gamma: Number,
    alpha: Number | None,
    weight: Tensor | None,
    label_smoothing: Number,
    others: Others | None = None,
) -> tuple[Tensor, Tensor]:
    """`cross_entropy` and `focal` of a prepared batch, in one pass."""
    ce, focal = element_sums(
        batch.nll_NL,
        batch.spread_NL,
        batch.row_NL,
        _numbers(batch, weight, label_smoothing, gamma, alpha),
    )
    return _mean(ce, batch, weight, others), _mean(focal, batch, weight, others)


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
    """1 − mean over classes of (2·I + s)/(D + s), I = Σ p·g, D = Σ p + Σ g, or Σ p² + Σ g² (Milletari et al. 2016).

    Sums run over the valid elements of the whole batch ("global") or of each image, whose losses are then averaged
    over the images that have a valid element. The mean is over the classes in the target; `keep_absent` takes all.

    Args:
        logits: (N, C, …). target: (N, …). smooth: s.

    Returns:
        A scalar in 0 … 1, float32 or wider.

    Raises:
        ConfigError: when shapes do not fit, smooth is negative, or the reduction is unknown.
    """
    checks.not_negative("smooth", smooth)
    checks.one_of("reduction", reduction, ("global", "image"))
    return dice_of(
        prepare(logits, target, ignore_index, power=2 if square_denominator else 1),
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
    """`dice` of a batch that was prepared with the power of its denominator."""
    sums_NC, pooled = dice_sums(batch), others is not None and others.overlap_C is not None
    if reduction == "global":
        sums_NC = tuple(part.sum(0, keepdim=True) for part in sums_NC)
    if others is not None and pooled:
        of_all = (others.overlap_C, others.total_C, others.count_C)
        # The value of all batches, with this batch's part of the gradient.
        sums_NC = tuple(
            own + (whole - own).detach()
            for own, whole in zip(sums_NC, of_all, strict=True)
            if whole is not None
        )
    overlap_NC, total_NC, count_NC = sums_NC
    numerator_NC, denominator_NC = 2 * overlap_NC + smooth, total_NC + smooth
    # Nothing found of nothing there, without smoothing: 0/0 counts as a perfect score.
    score_NC = _where_positive(denominator_NC, numerator_NC) / _where_positive(
        denominator_NC, denominator_NC
    )
    nonempty_N1 = count_NC.sum(1, keepdim=True) > 0
    kept_NC = (nonempty_N1 if keep_absent else count_NC > 0).expand_as(count_NC)
    loss_N = ((1 - score_NC) * kept_NC).sum(1) / kept_NC.sum(1).clamp_min(1)
    loss = loss_N.sum() / (
        others.images if others is not None and reduction == "image" else nonempty_N1.sum()
    ).clamp_min(1)
    if others is not None and pooled:
        loss = loss - loss.detach() * (1 - 1 / others.batches)
    return loss.to(batch.nll_NL.dtype)


def dice_sums(batch: Batch) -> tuple[Tensor, ...]:
    """Σ p·g, Σ p + Σ g (or of squares; g² is g) and Σ g, each (N, C) in float64 over the valid elements of an image."""
    assert batch.soft_NC is not None, "prepare did not get the power of Dice's denominator"
    assert batch.hit_NC is not None
    return batch.hit_NC, batch.soft_NC + batch.count_NC, batch.count_NC


def _mass(count_NC: Tensor, weight: Tensor | None) -> Tensor:
    """Σ w_y over the valid elements; from the counts, so exact in float64."""
    count_C = count_NC.sum(0)
    return count_C.sum() if weight is None else (count_C * weight.to(count_C.dtype)).sum()


def _mean(
    total: Tensor | None, batch: Batch, weight: Tensor | None, others: Others | None
) -> Tensor:
    """Σ loss / Σ w_y, and 0 with zero gradient when nothing was valid."""
    assert total is not None
    whole = _mass(batch.count_NC, weight) if others is None else others.mass
    return (total / _where_positive(whole, whole)).to(batch.nll_NL.dtype)


def _numbers(
    batch: Batch,
    weight: Tensor | None,
    label_smoothing: Number,
    gamma: Number | None = None,
    alpha: Number | None = None,
) -> Numbers:
    """Checked, and vectors with a last entry for what does not count."""
    vector = isinstance(alpha, Tensor) and alpha.dim() > 0
    table = _table("alpha", alpha, batch) if isinstance(alpha, Tensor) and vector else alpha
    return Numbers(
        None if weight is None else _table("weight", weight, batch), label_smoothing, gamma, table
    )


def _table(name: str, values: Tensor, batch: Batch) -> Tensor:
    """A number for every label, and 0 for what does not count, (C + 1,)."""
    checks.per_class(name, values, batch.count_NC.shape[1])
    return torch.cat([values.to(batch.nll_NL.dtype), batch.nll_NL.new_zeros(1)])


def _soft_focal(
    logits: Tensor,
    target: Tensor,
    gamma: Number,
    alpha: Number | None,
    weight: Tensor | None,
    label_smoothing: float,
) -> Tensor:
    """`focal` against distributions. They are small (N, C), so this is plain autograd."""
    checks.soft_target(logits, target)
    classes = logits.shape[1]
    log_p_NC = torch.log_softmax(logits, 1, dtype=wide(logits.dtype))
    q_NC = target.to(log_p_NC.dtype)
    top_N1 = q_NC.argmax(1, keepdim=True)
    batch = Batch(top_N1, -log_p_NC.gather(1, top_N1), None, None, None, counts(top_N1, classes))
    q_NC = (1 - label_smoothing) * q_NC + label_smoothing / classes
    weighted_NC = q_NC if weight is None else q_NC * _vector("weight", weight, log_p_NC)
    loss_N = -(weighted_NC * log_p_NC).sum(1) * modulation(
        batch.nll_NL, gamma, clamped=True
    ).squeeze(1)
    if alpha is not None:
        loss_N = loss_N * (
            _table("alpha", alpha, batch)[top_N1.squeeze(1)]
            if isinstance(alpha, Tensor) and alpha.dim()
            else alpha
        )
    return _mean(loss_N.sum(dtype=torch.float64), batch, weight, None)


def _vector(name: str, values: Tensor, logits: Tensor) -> Tensor:
    """One number per class, in the type that the loss is computed in."""
    checks.per_class(name, values, logits.shape[1])
    return values.to(wide(logits.dtype))


def _where_positive(denominator: Tensor, value: Tensor) -> Tensor:
    """`value` where the denominator is above 0, else 1: the division is safe, and so is its gradient."""
    return torch.where(denominator > 0, value, 1.0)
