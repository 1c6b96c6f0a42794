"""Cross entropy and focal loss, summed over the elements: both in one pass over −log p, each with its slope.

Under autograd a focal loss leaves a dozen tensors of one number an element behind, and goes through memory once for
each. Here a piece of the elements that fits a CPU's cache is gone through to the end, and all that stays of it is one
slope for each sum. With n = −log p of the label y, u the spread, ε the label smoothing, w and a the classes' weights and
alphas, and x = 1 − p = 1 − e^(−n):

    c = (1−ε)·w_y·n + ε·u     ∂c/∂n = (1−ε)·w_y                                 ∂c/∂u = ε
    f = a_y·x^γ·c             ∂f/∂n = a_y·x^γ·∂c/∂n + γ·(1−x)/x·f               ∂f/∂u = ε·a_y·x^γ

x is −expm1(−n), which keeps its digits near p = 1, and is kept from 0, where x^(γ−1) with γ < 1 has no bound: without
smoothing c is 0 there and so is the limit; with it x stays in [1e-6, 1 − 1e-6], outside of which x^γ has no slope.
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
"""p_t stays in [this, 1 − this] where the target is not one class."""


class Numbers(NamedTuple):
    """What the formulas take.

    Attributes:
        weight: one for every label and a last one, 0, for what does not count, (C + 1,); None for equal ones.
        smoothing: ε.
        gamma: None where there is no focal loss.
        alpha: a factor, or one for every label and a last one, 0, (C + 1,).
    """

    weight: Tensor | None
    smoothing: Number
    gamma: Number | None = None
    alpha: Number | None = None


def element_sums(
    nll_NL: Tensor, spread_NL: Tensor | None, row_NL: Tensor, numbers: Numbers, *, ce: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """Σ c and Σ f in float64, differentiable once with respect to `nll_NL` and `spread_NL`; None for what is not asked for.

    Args:
        nll_NL: −log p of the label. spread_NL: −Σ_c w_c/C·log p_c, or None without label smoothing.
        row_NL: labels in 0 … C; C stands for an element that does not count.
        numbers: of the formulas; a gamma asks for Σ f.
        ce: asks for Σ c.
    """
    learned = any(isinstance(number, Tensor) and number.requires_grad for number in numbers)
    if learned or torch.compiler.is_compiling():  # a compiler fuses the plain formulas by itself
        c_NL, f_NL = plain_elements(nll_NL, spread_NL, row_NL, numbers)
        return _total(c_NL) if ce else None, None if f_NL is None else _total(f_NL)
    c_sum, f_sum = _ElementSums.apply(nll_NL, spread_NL, row_NL, numbers, ce)
    return c_sum if ce else None, None if numbers.gamma is None else f_sum


def plain_elements(
    nll: Tensor, spread: Tensor | None, row: Tensor, numbers: Numbers
) -> tuple[Tensor, Tensor | None]:
    """c and f of every element as plain formulas: for a compiler, for numbers that are learned, and to hold the fast form against."""
    c = nll if numbers.weight is None else nll * _looked_up(numbers.weight, row, nll)
    if spread is not None:
        c = ((1 - numbers.smoothing) * c + numbers.smoothing * spread).to(nll.dtype)
    if numbers.gamma is None:
        return c, None
    f = modulation(nll, numbers.gamma, clamped=spread is not None) * c
    return c, f if numbers.alpha is None else f * _looked_up(numbers.alpha, row, nll)


def modulation(nll: Tensor, gamma: Number, *, clamped: bool) -> Tensor:
    """(1−p)^gamma from −log p, with a finite gradient for every gamma ≥ 0 even at p = 1."""
    low, high = _limits(nll, clamped)
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
        c_n, f_n = (torch.empty_like(nll_NL) if wanted and asked else None for asked in (ce, focal))
        f_u = torch.empty_like(nll_NL) if wanted and focal and spread_NL is not None else None
        n_P, row_P, u_P = (
            nll_NL.reshape(-1),
            row_NL.reshape(-1),
            None if spread_NL is None else spread_NL.reshape(-1),
        )
        for piece in _pieces(n_P):
            found = _piece(n_P[piece], None if u_P is None else u_P[piece], row_P[piece], numbers)
            sums += torch.stack([_total(found.c), _total(found.f)]) if focal else _total(found.c)
            for kept, slope in ((c_n, found.c_n), (f_n, found.f_n), (f_u, found.f_u)):
                if kept is not None:
                    kept.view(-1)[piece] = slope
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(c_n, f_n, f_u)
        ctx.smoothing, ctx.dtype, ctx.shape = (
            (None if spread_NL is None else numbers.smoothing),
            nll_NL.dtype,
            nll_NL.shape,
        )
        return sums[0], sums[1]

    @staticmethod
    def backward(
        ctx: Any, *pulls: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        gradients: tuple[Tensor | None, Tensor | None, None, None, None] = _ElementSums._once(
            ctx, *softmax.seen_by_torch(pulls)
        )
        return gradients

    @staticmethod
    @once_differentiable
    def _once(
        ctx: Any, c_pull: Tensor | None, f_pull: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        c_n, f_n, f_u = ctx.saved_tensors
        if softmax.graph_is_kept():
            c_n, f_n, f_u = (None if slope is None else slope.clone() for slope in (c_n, f_n, f_u))
        of_n = _pulled(c_n, c_pull, f_n, f_pull)
        if ctx.smoothing is None:
            return of_n, None, None, None, None
        constant = (
            None if c_pull is None else (c_pull * ctx.smoothing).to(ctx.dtype).expand(ctx.shape)
        )
        of_u = _pulled(f_u, f_pull)
        return (
            of_n,
            constant if of_u is None else of_u if constant is None else of_u.add_(constant),
            None,
            None,
            None,
        )


class _Found(NamedTuple):
    """Losses of a piece and their slopes; numbers stand for tensors that hold the same throughout."""

    c: Tensor
    c_n: Number
    f: Tensor
    f_n: Number
    f_u: Number


def _piece(n: Tensor, u: Tensor | None, row: Tensor, numbers: Numbers) -> _Found:
    """The formulas of the module's docstring, a line each."""
    w = 1.0 if numbers.weight is None else _looked_up(numbers.weight, row, n)
    c, c_n = n * w, w
    if u is not None:
        c, c_n = (
            c.mul_(1 - numbers.smoothing).add_(u * numbers.smoothing),
            w * (1 - numbers.smoothing),
        )
    if numbers.gamma is None:
        return _Found(c, c_n, c, 0.0, 0.0)
    low, high = _limits(n, clamped=u is not None)
    raw = torch.expm1(-n).neg_()
    x = raw.clamp(low, high)
    factor = x.pow(numbers.gamma)
    if numbers.alpha is not None:
        factor.mul_(_looked_up(numbers.alpha, row, n))
    f = factor * c
    bend = (f / x).mul_((1 - x).mul_(numbers.gamma))
    if u is not None:
        bend.mul_((raw >= low) & (raw <= high))
    return _Found(c, c_n, f, bend.add_(factor * c_n), factor * numbers.smoothing)


def _limits(nll: Tensor, clamped: bool) -> tuple[float, float]:
    """Between which 1 − p is kept."""
    return (SMALLEST_P, 1 - SMALLEST_P) if clamped else (torch.finfo(nll.dtype).tiny, 1.0)


def _looked_up(values: Number, row: Tensor, like: Tensor) -> Any:
    """Every element's entry of a table of the labels; a single number is everybody's."""
    if not isinstance(values, Tensor) or not values.dim():
        return values
    return values.index_select(0, row.reshape(-1)).view(row.shape).to(like.dtype)


def _pieces(n_P: Tensor) -> Iterator[slice]:
    """Of the elements; some ten tensors of a piece's size are alive at a time."""
    size = max(1, softmax.PIECE_BYTES // 32) if n_P.device.type == "cpu" else max(1, len(n_P))
    for start in range(0, len(n_P), size):
        yield slice(start, start + size)


def _total(values: Tensor) -> Tensor:
    return values.sum(dtype=torch.float64)


def _pulled(
    slope: Tensor | None,
    pull: Tensor | None,
    other: Tensor | None = None,
    other_pull: Tensor | None = None,
) -> Tensor | None:
    """slope·pull + other·other_pull, written over one of the slopes; what is None counts for nothing."""
    found = None if slope is None or pull is None else slope.mul_(pull)
    if other is None or other_pull is None:
        return found
    return (
        other.mul_(other_pull)
        if found is None
        else found.addcmul_(other, other_pull.to(other.dtype))
    )
