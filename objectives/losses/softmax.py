"""Softmax that all parts of a loss share, and the sums that they need, in two passes over logits.

Plain autograd would allocate some ten tensors of the logits' size. Here the forward pass allocates
one, the probabilities p, and the backward pass overwrites it by the gradient; both process the
batch in pieces that fit a CPU's cache. The losses are formulas over the results, tensors of one
number per element or class. With z the logits, p = softmax(z), y the label:

    nll = −log p_y            ∂nll/∂z_c    = p_c − [c = y]
    spread = −Σ_k u_k·log p_k ∂spread/∂z_c = p_c·Σ_k u_k − u_c
    soft_k = Σ p_k (or p_k²)  ∂soft_k/∂p_k = h_k, which is 1 (or 2·p_k);
                              ∂p_k/∂z_c    = p_k·([k = c] − p_c)
    hit_k = Σ_{y = k} p_k     ∂hit_k/∂nll  = −p_k of the elements with y = k

So with G, S, b and o the incoming gradients of nll, spread, soft and hit, for each element,

    ∂L/∂z_c = p_c·(G' + S·Σ_k u_k + b_c·h_c − Σ_k p_k·b_k·h_k) − [c = y]·G' − S·u_c
    G' = G − p_y·o_y
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE_BYTES = 1 << 20
"""Bytes of logits that a CPU processes at a time: with the results they fit its level-2 cache."""

Power = Literal[1, 2]


class SoftmaxSums(NamedTuple):
    """Sums of logits (N, C, L). Elements that do not count are 0, with zero gradient.

    Attributes:
        nll_NL: −log p of the label.
        spread_NL: −Σ_c u_c·log p_c; None if not requested.
        soft_NC: Σ p over the elements, or Σ p², float64; None if not requested.
        hit_NC: Σ p of every class over the elements of that label, float64; None when soft_NC is.
    """

    nll_NL: Tensor
    spread_NL: Tensor | None
    soft_NC: Tensor | None
    hit_NC: Tensor | None


def softmax_sums(
    logits: Tensor, row_NL: Tensor, u_C: Tensor | None = None, power: Power | None = None
) -> SoftmaxSums:
    """Compute the sums of a batch, differentiable once with respect to the logits.

    They are computed in float32 at least, whatever the logits' type and autocast.

    Args:
        logits: (N, C, …), of any floating type.
        row_NL: labels in 0 … C; C stands for an element that does not count.
        u_C: factors of the spread; None: no spread.
        power: of p in Σ p (1) or Σ p² (2); None: neither that nor the hits.
    """
    # A compiler fuses the plain formulas by itself, and would unroll the pieces.
    if torch.compiler.is_compiling():
        return plain_softmax_sums(logits, row_NL, u_C, power)
    if torch.is_grad_enabled() and logits.requires_grad:
        nll_NL, spread_NL, soft_NC, hit_NC = _SoftmaxSums.apply(logits, row_NL, u_C, power)
    else:  # without a gradient the probabilities are not kept
        nll_NL, spread_NL, soft_NC, hit_NC = _compute_sums(
            flatten_elements(logits), row_NL, u_C, power, None
        )
    return SoftmaxSums(
        nll_NL,
        None if u_C is None else spread_NL,
        None if power is None else soft_NC,
        None if power is None else hit_NC,
    )


def plain_softmax_sums(
    logits: Tensor, row_NL: Tensor, u_C: Tensor | None = None, power: Power | None = None
) -> SoftmaxSums:
    """Compute the same by plain formulas.

    They are for a compiler, for higher derivatives, and for comparing the fast form with.
    """
    z_NCL = flatten_elements(logits)
    valid_NL = row_NL < z_NCL.shape[1]
    log_p_NCL = torch.log_softmax(z_NCL, 1, dtype=compute_dtype(logits.dtype))
    # Filled and not multiplied by 0: an ignored element may be infinite, and infinity · 0 is NaN.
    own_NL = log_p_NCL.gather(1, _class_index(row_NL, z_NCL.shape[1])).squeeze(1)
    nll_NL = -own_NL.masked_fill(~valid_NL, 0)
    spread_NL = None
    if u_C is not None:
        weighted_NL = (log_p_NCL * _as_column(u_C, log_p_NCL)).sum(1)
        spread_NL = -weighted_NL.masked_fill(~valid_NL, 0)
    if power is None:
        return SoftmaxSums(nll_NL, spread_NL, None, None)
    p_NCL = log_p_NCL.exp().masked_fill(~valid_NL.unsqueeze(1), 0)
    soft_NC = (p_NCL if power == 1 else p_NCL * p_NCL).sum(2, dtype=torch.float64)
    hit_NC = sum_by_class((-nll_NL).exp(), row_NL, z_NCL.shape[1])
    return SoftmaxSums(nll_NL, spread_NL, soft_NC, hit_NC)


def sum_by_class(value_NL: Tensor, row_NL: Tensor, classes: int) -> Tensor:
    """Sum by class, (N, C) in float64: float32 would lose digits in large images."""
    zeros = torch.zeros((len(row_NL), classes + 1), dtype=torch.float64, device=value_NL.device)
    return zeros.scatter_add(1, row_NL, value_NL.double())[:, :classes]


def flatten_elements(logits: Tensor) -> Tensor:
    """View (N, C, …) as (N, C, L), without a copy for contiguous and channels_last tensors."""
    return logits.flatten(2) if logits.dim() > 2 else logits.unsqueeze(2)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type to compute in: float32 at least."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def mark_for_torch(pulls: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Make torch refuse second derivatives (`create_graph`) of a function that does not have them.

    Torch refuses only if the incoming gradients have a graph. But what the function saved has one,
    too, and ignoring that would be silently wrong.
    """
    if not torch.is_grad_enabled():
        return pulls
    return tuple(None if pull is None else pull.detach().requires_grad_() for pull in pulls)


def graph_is_kept() -> bool:
    """Return whether another backward pass may need what was saved: it must not be overwritten."""
    # torch's own compiled backward calls the same function.
    return bool(torch._C._autograd._get_current_graph_task_keep_graph())  # noqa: SLF001


class _SoftmaxSums(torch.autograd.Function):
    """See the module's docstring for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, row_NL: Tensor, u_C: Tensor | None, power: Power | None
    ) -> tuple[Tensor, ...]:
        z_NCL = flatten_elements(logits)
        p_NCL = torch.empty_like(z_NCL, dtype=compute_dtype(logits.dtype))
        sums = _compute_sums(z_NCL, row_NL, u_C, power, p_NCL)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(p_NCL, row_NL, u_C)
        ctx.power = power
        ctx.shape = logits.shape
        ctx.dtype = logits.dtype
        return sums

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor, None, None, None]:
        gradient: tuple[Tensor, None, None, None] = _SoftmaxSums._backward_once(
            ctx, *mark_for_torch(slopes)
        )
        return gradient

    @staticmethod
    @once_differentiable
    def _backward_once(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor, None, None, None]:
        p_NCL, row_NL, u_C = ctx.saved_tensors
        if graph_is_kept():
            p_NCL = p_NCL.clone()
        _write_gradient(p_NCL, row_NL, u_C, ctx.power, slopes)
        return p_NCL.view_as(p_NCL).reshape(ctx.shape).to(ctx.dtype), None, None, None


def _compute_sums(
    z_NCL: Tensor, row_NL: Tensor, u_C: Tensor | None, power: Power | None, p_NCL: Tensor | None
) -> tuple[Tensor, ...]:
    """Compute the sums piece by piece, and write the probabilities to `p_NCL`, if it is given."""
    images, classes, _ = z_NCL.shape
    nll_NL = torch.empty(row_NL.shape, dtype=compute_dtype(z_NCL.dtype), device=z_NCL.device)
    spread_NL = torch.empty_like(nll_NL if u_C is not None else nll_NL[:, :0])
    soft_NC = torch.zeros((images, classes), dtype=torch.float64, device=z_NCL.device)
    hit_NC1 = torch.zeros((images, classes + 1), dtype=torch.float64, device=z_NCL.device)
    for ns, ls in iterate_pieces(z_NCL):
        row = row_NL[ns, ls]
        log_p = _log_softmax(z_NCL[ns, :, ls], nll_NL.dtype)
        valid = row < classes
        own = log_p.gather(1, _class_index(row, classes)).squeeze(1)
        nll_NL[ns, ls] = own.masked_fill_(~valid, 0).neg()
        if u_C is not None:
            spread_NL[ns, ls] = (
                (log_p * _as_column(u_C, log_p)).sum(1).masked_fill_(~valid, 0).neg_()
            )
        if p_NCL is None and power is None:
            continue
        p = log_p.exp_() if p_NCL is None else torch.exp(log_p, out=p_NCL[ns, :, ls])
        # NaN · 0 is NaN, and an ignored element may be NaN; a valid one that is shows in its nll.
        p.nan_to_num_(0.0).mul_(valid.unsqueeze(1))
        if power is not None:
            soft_NC[ns].add_((p if power == 1 else p * p).sum(2))
            hit_NC1[ns].scatter_add_(1, row, own.exp_().double())
    return nll_NL, spread_NL, soft_NC, hit_NC1[:, :classes]


def _write_gradient(
    p_NCL: Tensor,
    row_NL: Tensor,
    u_C: Tensor | None,
    power: Power | None,
    slopes: tuple[Tensor | None, ...],
) -> None:
    """Overwrite the probabilities by the gradient at the logits; ignored elements are 0 in both."""
    classes = p_NCL.shape[1]
    g_NL, s_NL, b_NC, o_NC = slopes
    b_NC = None if b_NC is None else b_NC.to(p_NCL.dtype) * (power or 1)
    for ns, ls in iterate_pieces(p_NCL):
        p = p_NCL[ns, :, ls]
        row = row_NL[ns, ls]
        valid = row < classes
        label = _class_index(row, classes)
        g = None if g_NL is None else (g_NL[ns, ls] * valid).unsqueeze(1)
        s = None if s_NL is None else (s_NL[ns, ls] * valid).unsqueeze(1)
        if o_NC is not None:
            pull = o_NC[ns].to(p.dtype).gather(1, label.squeeze(1)).unsqueeze(1)
            hit = p.gather(1, label).mul_(pull)
            g = hit.neg_() if g is None else g.sub_(hit)
        common = p.new_zeros(()) if g is None else g  # the same for all classes of an element
        if s is not None and u_C is not None:
            common = common + s * u_C.sum().to(p.dtype)
        if b_NC is None:
            p.mul_(common)
        else:
            pulled = p * b_NC[ns].unsqueeze(2)
            if power != 1:
                pulled.mul_(p)
            torch.addcmul(pulled, p, common - pulled.sum(1, keepdim=True), out=p)
        if g is not None:
            p.scatter_add_(1, label, -g)
        if s is not None and u_C is not None:
            p.sub_(s * _as_column(u_C, p))


def iterate_pieces(z_NCL: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield the images and elements of each piece; a GPU has one piece, to save launches."""
    images, classes, length = z_NCL.shape
    if z_NCL.device.type == "cpu":
        most = max(1, PIECE_BYTES // (4 * classes))
    else:
        most = max(1, images * length)
    step = max(1, most // max(1, length))
    for first in range(0, images, step):
        for start in range(0, length, most):
            yield slice(first, first + step), slice(start, start + most)


def _log_softmax(z_nCl: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute log-softmax over the classes."""
    # In channels_last torch would first copy the tensor.
    if z_nCl.stride(1) == 1:
        return torch.log_softmax(z_nCl.transpose(1, 2), 2, dtype=dtype).transpose(1, 2)
    return torch.log_softmax(z_nCl, 1, dtype=dtype)


def _class_index(row_nl: Tensor, classes: int) -> Tensor:
    """Return a class per element, (N, 1, L), to look up; some class for ignored elements."""
    return row_nl.clamp(max=classes - 1).unsqueeze(1)


def _as_column(u_C: Tensor, like: Tensor) -> Tensor:
    return u_C.to(like.dtype).unsqueeze(1)
