"""What every loss here needs of the logits, in two passes over them: the one softmax that all parts of a loss share.

Plain autograd would leave some ten tensors of the logits' size behind. Here the forward pass leaves one, the
probabilities p, and the backward pass writes the gradient over it; both walk through the batch in pieces that fit a
CPU's cache. The losses themselves are formulas over what comes out, tensors of one number an element or a class, and
stay with autograd. With z the logits, p = softmax(z), y the label:

    nll = −log p_y            ∂nll/∂z_c    = p_c − [c = y]
    spread = −Σ_k u_k·log p_k ∂spread/∂z_c = p_c·Σ_k u_k − u_c
    soft_k = Σ p_k (or p_k²)  ∂soft_k/∂p_k = h_k, which is 1 (or 2·p_k); and ∂p_k/∂z_c = p_k·([k = c] − p_c)

So with G, S and b the gradients that arrive at nll, spread and soft, element by element,

    ∂L/∂z_c = p_c·(G + S·Σ_k u_k + b_c·h_c − Σ_k p_k·b_k·h_k) − [c = y]·G − S·u_c
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE_BYTES = 1 << 20
"""Of logits that a CPU works on at a time: they and what is made of them stay in its second-level cache."""

Power = Literal[1, 2]


class SoftmaxSums(NamedTuple):
    """Of logits (N, C, L). Elements that do not count have 0 and zero gradient everywhere.

    Attributes:
        nll_NL: −log p of the label.
        spread_NL: −Σ_c u_c·log p_c; None when not asked for.
        soft_NC: Σ p over the elements, or Σ p², float64; None when not asked for.
    """

    nll_NL: Tensor
    spread_NL: Tensor | None
    soft_NC: Tensor | None


def softmax_sums(logits: Tensor, row_NL: Tensor, u_C: Tensor | None = None, power: Power | None = None) -> SoftmaxSums:
    """The sums of a batch, differentiable once with respect to the logits.

    Computed in float32 at least, whatever the logits' type and whatever autocast says.

    Args:
        logits: (N, C, …), of any floating type.
        row_NL: labels in 0 … C; C stands for an element that does not count.
        u_C: asks for the spread under these factors.
        power: asks for Σ p (1) or Σ p² (2).
    """
    if torch.compiler.is_compiling():  # a compiler fuses the plain formulas by itself, and would unroll the pieces
        return plain_softmax_sums(logits, row_NL, u_C, power)
    if torch.is_grad_enabled() and logits.requires_grad:
        nll_NL, spread_NL, soft_NC = _SoftmaxSums.apply(logits, row_NL, u_C, power)
    else:  # nobody will ask for a gradient, so the probabilities need no place
        nll_NL, spread_NL, soft_NC = _forward(elements(logits), row_NL, u_C, power, None)
    return SoftmaxSums(nll_NL, None if u_C is None else spread_NL, None if power is None else soft_NC)


def plain_softmax_sums(logits: Tensor, row_NL: Tensor, u_C: Tensor | None = None, power: Power | None = None) -> SoftmaxSums:
    """The same as plain formulas: for a compiler, for derivatives of higher order, and as what the fast form is held against."""
    z_NCL = elements(logits)
    valid_NL = row_NL < z_NCL.shape[1]
    log_p_NCL = torch.log_softmax(z_NCL, 1, dtype=wide(logits.dtype))
    nll_NL = -log_p_NCL.gather(1, _labels(row_NL, z_NCL).unsqueeze(1)).squeeze(1) * valid_NL
    spread_NL = None if u_C is None else -(log_p_NCL * _column(u_C, log_p_NCL)).sum(1) * valid_NL
    if power is None:
        return SoftmaxSums(nll_NL, spread_NL, None)
    p_NCL = log_p_NCL.exp() * valid_NL.unsqueeze(1)
    return SoftmaxSums(nll_NL, spread_NL, (p_NCL if power == 1 else p_NCL * p_NCL).sum(2, dtype=torch.float64))


def elements(logits: Tensor) -> Tensor:
    """(N, C, …) as (N, C, L): a view of contiguous and of channels_last tensors."""
    return logits.flatten(2) if logits.dim() > 2 else logits.unsqueeze(2)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type to compute in: float32 at least."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class _SoftmaxSums(torch.autograd.Function):
    """See the module's docstring for the gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, row_NL: Tensor, u_C: Tensor | None, power: Power | None) -> tuple[Tensor, Tensor, Tensor]:
        z_NCL = elements(logits)
        p_NCL = torch.empty_like(z_NCL, dtype=wide(logits.dtype))
        sums = _forward(z_NCL, row_NL, u_C, power, p_NCL)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(p_NCL, row_NL, u_C)
        ctx.power, ctx.shape, ctx.dtype = power, logits.shape, logits.dtype
        return sums

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():  # create_graph: torch refuses a second derivative only if a slope has one, but p has one, too
            slopes = tuple(None if slope is None else slope.detach().requires_grad_() for slope in slopes)
        gradient: tuple[Tensor, None, None, None] = _SoftmaxSums._once(ctx, *slopes)
        return gradient

    @staticmethod
    @once_differentiable
    def _once(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor, None, None, None]:
        p_NCL, row_NL, u_C = ctx.saved_tensors
        if torch._C._autograd._get_current_graph_task_keep_graph():  # noqa: SLF001 - as torch's own compiled backward asks
            p_NCL = p_NCL.clone()  # the graph is kept, so somebody may come back for the probabilities
        _write_gradient(p_NCL, row_NL, u_C, ctx.power, slopes)
        return p_NCL.view_as(p_NCL).reshape(ctx.shape).to(ctx.dtype), None, None, None


def _forward(z_NCL: Tensor, row_NL: Tensor, u_C: Tensor | None, power: Power | None, p_NCL: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Piece by piece; the probabilities go to `p_NCL`, where there is a place for them."""
    valid_NL, label_NL, dtype = row_NL < z_NCL.shape[1], _labels(row_NL, z_NCL), wide(z_NCL.dtype)
    nll_NL = torch.empty(row_NL.shape, dtype=dtype, device=z_NCL.device)
    spread_NL = torch.empty_like(nll_NL if u_C is not None else nll_NL[:, :0])
    soft_NC = torch.zeros(z_NCL.shape[:2], dtype=torch.float64, device=z_NCL.device)
    for ns, ls in pieces(z_NCL):
        log_p = _log_softmax(z_NCL[ns, :, ls], dtype)
        nll_NL[ns, ls] = log_p.gather(1, label_NL[ns, ls].unsqueeze(1)).squeeze(1)
        if u_C is not None:
            spread_NL[ns, ls] = (log_p * _column(u_C, log_p)).sum(1)
        if p_NCL is None and power is None:
            continue
        p = log_p.exp_() if p_NCL is None else torch.exp(log_p, out=p_NCL[ns, :, ls])
        p.mul_(valid_NL[ns, ls].unsqueeze(1))
        if power is not None:
            soft_NC[ns] += (p if power == 1 else p * p).sum(2)
    return nll_NL.neg_().mul_(valid_NL), spread_NL.neg_().mul_(valid_NL if u_C is not None else 1), soft_NC


def _write_gradient(p_NCL: Tensor, row_NL: Tensor, u_C: Tensor | None, power: Power | None, slopes: tuple[Tensor | None, ...]) -> None:
    """The gradient at the logits, over the probabilities; those are 0 where nothing counts, and so is their gradient."""
    g_NL, s_NL, b_NC = slopes
    valid_NL, label_NL = row_NL < p_NCL.shape[1], _labels(row_NL, p_NCL)
    g_NL = None if g_NL is None else g_NL * valid_NL
    s_NL = None if s_NL is None else s_NL * valid_NL
    b_NC = None if b_NC is None else b_NC.to(p_NCL.dtype) * (power or 1)
    for ns, ls in pieces(p_NCL):
        p, factor = p_NCL[ns, :, ls], p_NCL.new_zeros(())
        if b_NC is not None:
            slope = b_NC[ns].unsqueeze(2) if power == 1 else b_NC[ns].unsqueeze(2) * p
            factor = slope - (p * slope).sum(1, keepdim=True)
        if g_NL is not None:
            factor = factor + g_NL[ns, ls].unsqueeze(1)
        if s_NL is not None and u_C is not None:
            factor = factor + (s_NL[ns, ls] * u_C.sum().to(p.dtype)).unsqueeze(1)
        p.mul_(factor)
        if g_NL is not None:
            p.scatter_add_(1, label_NL[ns, ls].unsqueeze(1), -g_NL[ns, ls].unsqueeze(1))
        if s_NL is not None and u_C is not None:
            p.sub_(s_NL[ns, ls].unsqueeze(1) * _column(u_C, p))


def pieces(z_NCL: Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and elements of each piece. Only a CPU has a cache to fit: elsewhere the batch stays whole, as pieces cost launches."""
    images, classes, length = z_NCL.shape
    most = max(1, PIECE_BYTES // (4 * classes)) if z_NCL.device.type == "cpu" else max(1, images * length)
    step = max(1, most // max(1, length))
    for first in range(0, images, step):
        for start in range(0, length, most):
            yield slice(first, first + step), slice(start, start + most)


def _log_softmax(z_nCl: Tensor, dtype: torch.dtype) -> Tensor:
    """Over the classes. In channels_last they lie side by side, where torch would first copy the tensor."""
    if z_nCl.stride(1) == 1:
        return torch.log_softmax(z_nCl.transpose(1, 2), 2, dtype=dtype).transpose(1, 2)
    return torch.log_softmax(z_nCl, 1, dtype=dtype)


def _labels(row_NL: Tensor, z_NCL: Tensor) -> Tensor:
    """A class for every element, also where none counts: something to look up."""
    return row_NL.clamp(max=z_NCL.shape[1] - 1)


def _column(u_C: Tensor, like: Tensor) -> Tensor:
    return u_C.to(like.dtype).unsqueeze(1)
