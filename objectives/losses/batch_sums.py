"""What the losses of one batch share, and the sums of batches that count as one large batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from objectives.losses import checks
from objectives.losses.softmax import Power, compute_dtype, softmax_sums, sum_by_class


class Batch(NamedTuple):
    """What the losses of one batch share. All numbers of an element that does not count are 0.

    Attributes:
        row_NL: labels; C for an element that does not count.
        nll_NL: −log p of the label.
        spread_NL: −Σ_c w_c/C·log p_c, for label smoothing; None without.
        soft_NC: Σ p or Σ p² of every class, for Dice; None without.
        hit_NC: Σ p of every class over its own elements, for Dice; None without.
        count_NC: elements of every class in every image.
    """

    row_NL: Tensor
    nll_NL: Tensor
    spread_NL: Tensor | None
    soft_NC: Tensor | None
    hit_NC: Tensor | None
    count_NC: Tensor


class Others(NamedTuple):
    """Sums over the batches that count as one large batch under gradient accumulation.

    With them a batch's losses are its share of the large batch's: the shares add up to that loss,
    and their gradients to its gradient. Dice over the whole batch is not a sum; each batch gets an
    equal share of it and its own part of the gradient.

    Attributes:
        batches: number of batches.
        mass: Σ w_y.
        images: number of images that contain a valid element.
        overlap_C: Σ p·g over all images; None if Dice does not need it.
        total_C: Dice's denominator over all images; None likewise.
        count_C: elements of every class; None likewise.
    """

    batches: int
    mass: Tensor
    images: Tensor
    overlap_C: Tensor | None = None
    total_C: Tensor | None = None
    count_C: Tensor | None = None


def prepare_batch(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    *,
    weight: Tensor | None = None,
    smoothed: bool = False,
    power: Power | None = None,
) -> Batch:
    """Compute what the losses of a batch share.

    Args:
        logits: (N, C, …), of any floating type.
        target: (N, …), of any integer type.
        ignore_index: label of the elements that are left out.
        weight: (C,) class weights, which label smoothing spreads.
        smoothed: whether a loss will smooth labels.
        power: of p in Dice's denominator; None without Dice.

    Raises:
        ConfigError: when the shapes do not match, or the target is not of integers.
    """
    checks.check_hard_target(logits, target)
    classes = logits.shape[1]
    row_NL = label_rows(target, classes, ignore_index)
    u_C = None
    if smoothed and weight is None:
        u_C = logits.new_full((classes,), 1 / classes, dtype=compute_dtype(logits.dtype))
    elif smoothed and weight is not None:
        u_C = class_vector("weight", weight, logits) / classes
    sums = softmax_sums(logits, row_NL, u_C, power)
    return Batch(row_NL, *sums, count_elements(row_NL, classes))


def label_rows(target: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Return labels (N, L) in 0 … C; C stands for an element that does not count."""
    target_NL = target.long().flatten(1) if target.dim() > 1 else target.long().unsqueeze(1)
    known_NL = (target_NL >= 0) & (target_NL < classes) & (target_NL != ignore_index)
    return torch.where(known_NL, target_NL, classes)


def count_elements(row_NL: Tensor, classes: int) -> Tensor:
    """Count the elements of every class in every image, (N, C) in float64."""
    return sum_by_class(torch.ones_like(row_NL, dtype=torch.float64), row_NL, classes)


def combine_sums(
    counts_NC: list[Tensor], sums: list[tuple[Tensor, ...]], weight: Tensor | None
) -> Others:
    """Add up the sums of batches that count as one.

    Args:
        counts_NC: `count_elements` of each batch.
        sums: `dice_sums` of each; empty without Dice over the whole batch.
        weight: (C,) class weights.
    """
    count_NC = torch.cat(counts_NC)
    others = Others(len(counts_NC), weight_mass(count_NC, weight), (count_NC.sum(1) > 0).sum())
    if not sums:
        return others
    overlap_C, total_C, count_C = (
        torch.cat(parts).sum(0, keepdim=True) for parts in zip(*sums, strict=True)
    )
    return others._replace(overlap_C=overlap_C, total_C=total_C, count_C=count_C)


def weight_mass(count_NC: Tensor, weight: Tensor | None) -> Tensor:
    """Compute Σ w_y over the valid elements; from the counts, so exact in float64."""
    count_C = count_NC.sum(0)
    return count_C.sum() if weight is None else (count_C * weight.to(count_C.dtype)).sum()


def class_vector(name: str, values: Tensor, logits: Tensor) -> Tensor:
    """Convert one number per class to the type in which the loss is computed."""
    checks.check_per_class(name, values, logits.shape[1])
    return values.to(compute_dtype(logits.dtype))
