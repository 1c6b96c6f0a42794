"""The losses as pure functions. Each takes logits and targets, or what several losses of one batch share.

Shapes: logits (N, C, …), hard targets (N, …) of integers; inside, every dimension after C is one length L (1 for
plain samples). Whatever the logits' type and whatever autocast says, everything is float32 (float64 for float64).
A batch with nothing valid in it gives a zero that is still part of the graph, with zero gradient. Nothing here waits
for the device: labels outside 0 … C−1 are the caller's to keep out, and sums of zero are handled by `where`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.errors import ConfigError

Reduction = Literal["global", "image"]
Number = float | Tensor
"""A Python number, or a tensor without dimensions that can be changed in place between epochs."""

SMALLEST_P = 1e-6
"""p_t stays in [this, 1 − this] where the target is not one class: there (1−p_t)^gamma with gamma < 1 has no bounded slope."""


class Batch(NamedTuple):
    """What the losses of one batch share: the one log-softmax, labels with 0 at ignored places, and which are valid."""

    log_p_NCL: Tensor
    target_NL: Tensor
    valid_NL: Tensor


def prepare(logits: Tensor, target: Tensor, ignore_index: int) -> Batch:
    """The shared part of a batch.

    Args:
        logits: (N, C, …), of any floating type.
        target: (N, …), of any integer type.
        ignore_index: label of the elements that count for nothing.

    Raises:
        ConfigError: when the shapes do not fit each other, or the target is not of integers.
    """
    _check_target(logits, target)
    log_p = _log_softmax(logits)
    log_p_NCL = log_p.flatten(2) if log_p.dim() > 2 else log_p.unsqueeze(2)
    target_NL = target.long().flatten(1) if target.dim() > 1 else target.long().unsqueeze(1)
    valid_NL = target_NL != ignore_index
    return Batch(log_p_NCL, target_NL.masked_fill(~valid_NL, 0), valid_NL)


def cross_entropy(
    logits: Tensor, target: Tensor, *, weight: Tensor | None = None, ignore_index: int = -100, label_smoothing: float = 0.0
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
    return cross_entropy_of(prepare(logits, target, ignore_index), weight, label_smoothing)


def cross_entropy_of(batch: Batch, weight: Tensor | None, label_smoothing: float) -> Tensor:
    """`cross_entropy` of a prepared batch."""
    loss_NL, weight_NL = _weighted_nll(batch, _nll(batch), weight, label_smoothing)
    return _ratio(loss_NL.sum(), weight_NL.sum())


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
    not_negative("gamma", gamma)
    if target.is_floating_point():
        return _soft_focal(logits, target, gamma, alpha, weight, label_smoothing)
    return focal_of(prepare(logits, target, ignore_index), gamma, alpha, weight, label_smoothing)


def focal_of(batch: Batch, gamma: Number, alpha: Number | None, weight: Tensor | None, label_smoothing: float) -> Tensor:
    """`focal` of a prepared batch."""
    nll_NL = _nll(batch)
    loss_NL, weight_NL = _weighted_nll(batch, nll_NL, weight, label_smoothing)
    factor_NL = _modulation(nll_NL, gamma, clamped=label_smoothing > 0)
    return _ratio(_balanced(factor_NL * loss_NL, alpha, batch).sum(), weight_NL.sum())


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
    not_negative("smooth", smooth)
    one_of("reduction", reduction, ("global", "image"))
    return dice_of(prepare(logits, target, ignore_index), smooth, square_denominator, reduction, keep_absent)


def dice_of(batch: Batch, smooth: Number, square_denominator: bool, reduction: Reduction, keep_absent: bool) -> Tensor:
    """`dice` of a prepared batch."""
    overlap_NC, total_NC, count_NC = _dice_sums(batch, square_denominator)
    if reduction == "global":
        overlap_NC, total_NC, count_NC = (sums.sum(0, keepdim=True) for sums in (overlap_NC, total_NC, count_NC))
    numerator_NC, denominator_NC = 2 * overlap_NC + smooth, total_NC + smooth
    # Nothing found of nothing there, without smoothing: 0/0 counts as a perfect score.
    score_NC = _where_positive(denominator_NC, numerator_NC) / _where_positive(denominator_NC, denominator_NC)
    nonempty_N1 = count_NC.sum(1, keepdim=True) > 0
    kept_NC = (nonempty_N1 if keep_absent else count_NC > 0).expand_as(count_NC)
    loss_N = ((1 - score_NC) * kept_NC).sum(1) / kept_NC.sum(1).clamp_min(1)
    return (loss_N.sum() / nonempty_N1.sum().clamp_min(1)).to(batch.log_p_NCL.dtype)


def not_negative(name: str, value: Number) -> None:
    """Refuse a negative number; a tensor is left alone, as a look at it would wait for the device.

    Raises:
        ConfigError: when `value` is negative or NaN.
    """
    if not isinstance(value, Tensor) and not value >= 0:
        raise ConfigError(f"{name} must not be negative, but is {value}", where=name, found=str(value), allowed="0 or more")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that is not among those allowed.

    Raises:
        ConfigError: when it is not.
    """
    if value not in allowed:
        raise ConfigError(f"unknown {name} {value!r}", where=name, found=value, allowed=", ".join(allowed))


def _log_softmax(logits: Tensor) -> Tensor:
    """In float32 at least: converted inside the kernel, without a wide copy of the logits."""
    narrow = logits.dtype in (torch.float16, torch.bfloat16)
    return F.log_softmax(logits, dim=1, dtype=torch.float32 if narrow else None)


def _nll(batch: Batch) -> Tensor:
    """−log p of every element's class, (N, L); finite but meaningless at ignored places."""
    return -batch.log_p_NCL.gather(1, batch.target_NL.unsqueeze(1)).squeeze(1)


def _weighted_nll(batch: Batch, nll_NL: Tensor, weight: Tensor | None, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Every element's weighted cross entropy and its weight w_y, both (N, L) and 0 at ignored places."""
    log_p_NCL, target_NL, valid_NL = batch
    weight_NL, weight_C1 = valid_NL.to(log_p_NCL.dtype), None
    if weight is not None:
        weight_C = _per_class("weight", weight, log_p_NCL)
        weight_NL, weight_C1 = weight_C[target_NL] * valid_NL, weight_C.unsqueeze(1)
    loss_NL = nll_NL * weight_NL
    if label_smoothing > 0:
        spread_NL = -(log_p_NCL if weight_C1 is None else log_p_NCL * weight_C1).mean(1)
        loss_NL = (1 - label_smoothing) * loss_NL + label_smoothing * spread_NL * valid_NL
    return loss_NL, weight_NL


def _modulation(nll: Tensor, gamma: Number, *, clamped: bool) -> Tensor:
    """(1−p)^gamma from −log p, with a finite gradient for every gamma ≥ 0 even at p = 1.

    1 − p is −expm1(−nll), which keeps its digits near p = 1. The floor under it makes the slope gamma·(1−p)^(gamma−1)
    large but finite; it then meets −log p = 0 and leaves 0, which is the limit, where infinity would have left NaN.
    """
    one_minus_p = -torch.expm1(-nll)
    if clamped:
        return one_minus_p.clamp(SMALLEST_P, 1 - SMALLEST_P).pow(gamma)
    return one_minus_p.clamp_min(torch.finfo(nll.dtype).tiny).pow(gamma)


def _balanced(loss_NL: Tensor, alpha: Number | None, batch: Batch) -> Tensor:
    """Every element's loss times its alpha_y, or times the one alpha of all."""
    if alpha is None:
        return loss_NL
    if not isinstance(alpha, Tensor) or alpha.dim() == 0:
        return loss_NL * alpha
    return loss_NL * _per_class("alpha", alpha, batch.log_p_NCL)[batch.target_NL]


def _soft_focal(
    logits: Tensor, target: Tensor, gamma: Number, alpha: Number | None, weight: Tensor | None, label_smoothing: float
) -> Tensor:
    """`focal` against distributions."""
    if logits.dim() != 2 or target.shape != logits.shape:
        found, allowed = str(tuple(target.shape)), f"(N, C) like the logits, {tuple(logits.shape)}"
        raise ConfigError(
            f"soft targets have shape {found}, but the logits {tuple(logits.shape)}", where="target", found=found, allowed=allowed
        )
    log_p_NC = _log_softmax(logits)
    q_NC = target.to(log_p_NC.dtype)
    top_N1 = q_NC.argmax(1, keepdim=True)
    batch = Batch(log_p_NC.unsqueeze(2), top_N1, torch.ones_like(top_N1, dtype=torch.bool))
    weight_C = log_p_NC.new_ones(log_p_NC.shape[1]) if weight is None else _per_class("weight", weight, batch.log_p_NCL)
    q_NC = (1 - label_smoothing) * q_NC + label_smoothing / q_NC.shape[1]
    loss_N1 = -(q_NC * weight_C * log_p_NC).sum(1, keepdim=True)
    factor_N1 = _modulation(_nll(batch), gamma, clamped=True)
    return _ratio(_balanced(factor_N1 * loss_N1, alpha, batch).sum(), weight_C[top_N1].sum())


def _dice_sums(batch: Batch, square_denominator: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Σ p·g, Σ p + Σ g (or of squares; g² is g) and Σ g, each (N, C) in float64 over the valid elements of an image.

    The scattered sums run one after the other, where float32 would lose digits in large images.
    """
    log_p_NCL, target_NL, valid_NL = batch
    p_NCL = log_p_NCL.exp() * valid_NL.unsqueeze(1)
    hit_NL = p_NCL.gather(1, target_NL.unsqueeze(1)).squeeze(1)
    zeros_NC = torch.zeros(p_NCL.shape[:2], dtype=torch.float64, device=p_NCL.device)
    overlap_NC = zeros_NC.scatter_add(1, target_NL, hit_NL.double())
    count_NC = zeros_NC.scatter_add(1, target_NL, valid_NL.double())
    soft_NC = (p_NCL * p_NCL if square_denominator else p_NCL).sum(2)
    return overlap_NC, soft_NC + count_NC, count_NC


def _where_positive(denominator: Tensor, value: Tensor) -> Tensor:
    """`value` where the denominator is above 0, else 1: the division is safe, and so is its gradient."""
    return torch.where(denominator > 0, value, 1.0)


def _ratio(total: Tensor, weight: Tensor) -> Tensor:
    """total/weight, and 0 with zero gradient when nothing was valid."""
    return total / _where_positive(weight, weight)


def _per_class(name: str, values: Tensor, log_p_NCL: Tensor) -> Tensor:
    """One number per class in the type of the log-probabilities, after a look at how many there are."""
    classes = log_p_NCL.shape[1]
    if tuple(values.shape) != (classes,):
        found = f"{values.numel()} values of shape {tuple(values.shape)}"
        raise ConfigError(
            f"{name} has {values.numel()} values, but the logits have {classes} classes",
            where=name,
            found=found,
            allowed=f"{classes} values",
        )
    return values.to(log_p_NCL.dtype)


def _check_target(logits: Tensor, target: Tensor) -> None:
    expected = (*logits.shape[:1], *logits.shape[2:])
    if logits.dim() < 2 or tuple(target.shape) != expected:
        found, allowed = str(tuple(target.shape)), str(expected)
        raise ConfigError(
            f"the target has shape {found}, but logits {tuple(logits.shape)} need {allowed}", where="target", found=found, allowed=allowed
        )
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ConfigError(
            f"hard targets are integers, not {target.dtype}", where="target", found=str(target.dtype), allowed="an integer type"
        )
