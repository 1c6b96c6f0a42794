"""Sums of cross entropy and focal loss over the elements, in one pass over −log p, with slopes.

With autograd a focal loss allocates a dozen tensors of one number per element and passes over
memory once for each. Here the elements are processed in pieces that fit a CPU's cache, and only one
slope per sum is kept. With n = −log p of the label y, u the spread, ε the label smoothing, w and a
the classes' weights and alphas, and x = 1 − p = 1 − e^(−n):

    c = (1−ε)·w_y·n + ε·u     ∂c/∂n = (1−ε)·w_y                       ∂c/∂u = ε
    f = a_y·x^γ·c             ∂f/∂n = a_y·x^γ·∂c/∂n + γ·(1−x)/x·f     ∂f/∂u = ε·a_y·x^γ

x is computed as −expm1(−n), which keeps its digits near p = 1. It is bounded away from 0, where
x^(γ−1) with γ < 1 is unbounded: without smoothing c is 0 there and so is the limit; with smoothing
x is clamped to [1e-6, 1 − 1e-6], outside of which x^γ has no slope.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from objectives.losses import softmax
from objectives.losses.checks import Number

SMALLEST_P = 1e-6
"""p_t is clamped to [this, 1 − this] if the target is not a single class."""


class Numbers(NamedTuple):
    """Numbers of the formulas.

    Attributes:
        weight: one per label and a last one, 0, for elements that do not count, (C + 1,); None for
            equal weights.
        smoothing: ε.
        gamma: None without a focal loss.
        alpha: one factor, or one per label and a last one, 0, (C + 1,).
    """

    weight: Tensor | None
    smoothing: Number
    gamma: Number | None = None
    alpha: Number | None = None


def element_sums(
    nll_NL: Tensor, spread_NL: Tensor | None, row_NL: Tensor, numbers: Numbers, *, ce: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """Compute Σ c and Σ f in float64, differentiable once; None for what is not requested.

    Args:
        nll_NL: −log p of the label.
        spread_NL: −Σ_c w_c/C·log p_c, or None without label smoothing.
        row_NL: labels in 0 … C; C stands for an element that does not count.
        numbers: of the formulas; with a gamma Σ f is computed.
        ce: whether to compute Σ c.
    """
    learned = any(isinstance(number, Tensor) and number.requires_grad for number in numbers)
    if learned or torch.compiler.is_compiling():  # a compiler fuses the plain formulas by itself
        c_NL, f_NL = plain_elements(nll_NL, spread_NL, row_NL, numbers)
        c_sum = _sum_float64(c_NL) if ce else None
        f_sum = None if f_NL is None else _sum_float64(f_NL)
    else:
        c_sum, f_sum = _ElementSums.apply(nll_NL, spread_NL, row_NL, numbers, ce)
    return (c_sum if ce else None), (f_sum if numbers.gamma is not None else None)


def plain_elements(
    nll: Tensor, spread: Tensor | None, row: Tensor, numbers: Numbers
) -> tuple[Tensor, Tensor | None]:
    """Compute c and f of every element by plain formulas.

    They are for a compiler, for numbers that are learned, and for comparing the fast form with.
    """
    c = nll if numbers.weight is None else nll * _look_up(numbers.weight, row, nll)
    if spread is not None:
        c = ((1 - numbers.smoothing) * c + numbers.smoothing * spread).to(nll.dtype)
    if numbers.gamma is None:
        return c, None
    f = focal_factor(nll, numbers.gamma, clamped=spread is not None) * c
    if numbers.alpha is not None:
        f = f * _look_up(numbers.alpha, row, nll)
    return c, f


def focal_factor(nll: Tensor, gamma: Number, *, clamped: bool) -> Tensor:
    """Compute (1−p)^gamma from −log p, with a finite gradient for every gamma ≥ 0 even at p = 1."""
    low, high = _clamp_limits(nll, clamped)
    return (-torch.expm1(-nll)).clamp(low, high).pow(gamma)


class _ElementSums(torch.autograd.Function):
    """See the module's docstring for the slopes."""

    @staticmethod
    def forward(
        ctx: Any,
        nll_NL: Tensor,
        spread_NL: Tensor | None,
        row_NL: Tensor,
        numbers: Numbers,
        ce: bool,
    ) -> tuple[Tensor, Tensor]:
        sums = nll_NL.new_zeros(2, dtype=torch.float64)
        wanted = ctx.needs_input_grad[0]
        focal = numbers.gamma is not None
        c_n = torch.empty_like(nll_NL) if wanted and ce else None
        f_n = torch.empty_like(nll_NL) if wanted and focal else None
        f_u = torch.empty_like(nll_NL) if wanted and focal and spread_NL is not None else None
        n_P = nll_NL.reshape(-1)
        row_P = row_NL.reshape(-1)
        u_P = None if spread_NL is None else spread_NL.reshape(-1)
        for piece in _iterate_pieces(n_P):
            found = _compute_piece(
                n_P[piece], None if u_P is None else u_P[piece], row_P[piece], numbers
            )
            sums += (
                torch.stack([_sum_float64(found.c), _sum_float64(found.f)])
                if focal
                else _sum_float64(found.c)
            )
            for kept, slope in ((c_n, found.c_n), (f_n, found.f_n), (f_u, found.f_u)):
                if kept is not None:
                    kept.view(-1)[piece] = slope
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(c_n, f_n, f_u)
        ctx.smoothing = None if spread_NL is None else numbers.smoothing
        ctx.dtype = nll_NL.dtype
        ctx.shape = nll_NL.shape
        return sums[0], sums[1]

    @staticmethod
    def backward(
        ctx: Any, *pulls: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        gradients: tuple[Tensor | None, Tensor | None, None, None, None] = (
            _ElementSums._backward_once(ctx, *softmax.mark_for_torch(pulls))
        )
        return gradients

    @staticmethod
    @once_differentiable
    def _backward_once(
        ctx: Any, c_pull: Tensor | None, f_pull: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        c_n, f_n, f_u = ctx.saved_tensors
        if softmax.graph_is_kept():
            c_n = None if c_n is None else c_n.clone()
            f_n = None if f_n is None else f_n.clone()
            f_u = None if f_u is None else f_u.clone()
        of_n = _apply_chain_rule(c_n, c_pull, f_n, f_pull)
        if ctx.smoothing is None:
            return of_n, None, None, None, None
        of_u = _apply_chain_rule(f_u, f_pull)
        if c_pull is not None:
            constant = (c_pull * ctx.smoothing).to(ctx.dtype).expand(ctx.shape)
            of_u = constant if of_u is None else of_u.add_(constant)
        return of_n, of_u, None, None, None


class _PieceLosses(NamedTuple):
    """Losses of a piece and their slopes; a number stands for a constant tensor."""

    c: Tensor
    c_n: Number
    f: Tensor
    f_n: Number
    f_u: Number


def _compute_piece(n: Tensor, u: Tensor | None, row: Tensor, numbers: Numbers) -> _PieceLosses:
    """Compute the formulas of the module's docstring, one per line."""
    w = 1.0 if numbers.weight is None else _look_up(numbers.weight, row, n)
    c = n * w
    c_n = w
    if u is not None:
        c = c.mul_(1 - numbers.smoothing).add_(u * numbers.smoothing)
        c_n = w * (1 - numbers.smoothing)
    if numbers.gamma is None:
        return _PieceLosses(c, c_n, c, 0.0, 0.0)
    low, high = _clamp_limits(n, clamped=u is not None)
    raw = torch.expm1(-n).neg_()
    x = raw.clamp(low, high)
    factor = x.pow(numbers.gamma)
    if numbers.alpha is not None:
        factor.mul_(_look_up(numbers.alpha, row, n))
    f = factor * c
    bend = (f / x).mul_((1 - x).mul_(numbers.gamma))
    if u is not None:
        bend.mul_((raw >= low) & (raw <= high))
    return _PieceLosses(c, c_n, f, bend.add_(factor * c_n), factor * numbers.smoothing)


def _clamp_limits(nll: Tensor, clamped: bool) -> tuple[float, float]:
    """Return the bounds to which 1 − p is clamped."""
    return (SMALLEST_P, 1 - SMALLEST_P) if clamped else (torch.finfo(nll.dtype).tiny, 1.0)


def _look_up(values: Number, row: Tensor, like: Tensor) -> Any:
    """Look up every element's number in a table of the labels; a single number applies to all."""
    if not isinstance(values, Tensor) or not values.dim():
        return values
    return values.index_select(0, row.reshape(-1)).view(row.shape).to(like.dtype)


def _iterate_pieces(n_P: Tensor) -> Iterator[slice]:
    """Yield slices of the elements; some ten tensors of a piece's size are alive at a time."""
    size = max(1, softmax.PIECE_BYTES // 32) if n_P.device.type == "cpu" else max(1, len(n_P))
    for start in range(0, len(n_P), size):
        yield slice(start, start + size)


def _sum_float64(values: Tensor) -> Tensor:
    return values.sum(dtype=torch.float64)


def _apply_chain_rule(
    slope: Tensor | None,
    pull: Tensor | None,
    other: Tensor | None = None,
    other_pull: Tensor | None = None,
) -> Tensor | None:
    """Compute slope·pull + other·other_pull in place of one of the slopes; None counts as 0."""
    found = None if slope is None or pull is None else slope.mul_(pull)
    if other is None or other_pull is None:
        return found
    if found is None:
        return other.mul_(other_pull)
    return found.addcmul_(other, other_pull.to(other.dtype))
