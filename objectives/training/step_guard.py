"""Watches every optimiser step: the gradient norm before clipping, and whether loss and norm are still sane.

On a CPU every step is judged before it is applied. On CUDA reading a number makes the host wait, so the numbers stay
on the device and are read every `CHECK_EVERY` steps: a broken step is noticed at most that many steps later. The device
itself knows at once, though: from the broken step on, the fused optimiser is told there to leave its steps out.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

CHECK_EVERY = 10

TAIL = 10
"""So many steps up to a broken one are kept for the record: they tell a blow-up from a bolt out of the blue."""

_LEFT_OUT = -1.0
"""Stands for the norm of a step that the loss scaler leaves out; a norm is never negative."""


class StepGuard:
    """The gradient norms of one epoch, clipping, and the first step at which something broke.

    Args:
        model: whose gradients are watched.
        clip_norm: `max_norm` of the global gradient norm; None only measures.
        max_norm: a larger norm, or one that is not finite, breaks the step.
        loss_scaled: float16 with loss scaling, where a norm that overflows is the scaler's business: it leaves the
            step out and scales less, and nothing is broken. A finite norm over the bound breaks the step, but the
            device cannot leave it out by itself then, so that up to `CHECK_EVERY` − 1 further steps are applied.
    """

    def __init__(
        self,
        model: nn.Module,
        clip_norm: float | None,
        max_norm: float,
        *,
        loss_scaled: bool = False,
    ) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.clip_norm, self.max_norm, self.loss_scaled = clip_norm, max_norm, loss_scaled
        self.broken_step: int | None = None
        self.norms: list[float] = []
        self._steps = 0
        self._tail: deque[tuple[float, float]] = deque(maxlen=TAIL)
        self._held: list[Tensor] = []
        self._every = CHECK_EVERY if self.parameters[0].is_cuda else 1
        self._broken = torch.zeros((), device=self.parameters[0].device)
        self._odd_inputs = torch.zeros((), dtype=torch.bool, device=self.parameters[0].device)

    def start_epoch(self) -> None:
        """Forget the epoch before, all but the last steps of it."""
        self.norms, self._held, self.broken_step, self._steps = [], [], None, 0

    def see(self, inputs: Tensor) -> None:
        """Note, on the device, whether a batch's inputs are finite; their sum is, if and only if they all are (but for an overflow)."""
        self._odd_inputs |= ~torch.isfinite(inputs.detach().sum(dtype=torch.float32))

    def check(self, loss: Tensor) -> bool:
        """Measure and clip the gradients of a step. False when the step, or an earlier one, must not be applied."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        loss = loss.detach().to(norm.dtype)
        # A loss that is not finite has to show even where its gradient happens to be finite (a saturated softmax).
        told = torch.where(torch.isfinite(norm), norm, _LEFT_OUT) if self.loss_scaled else norm
        told = torch.where(torch.isfinite(loss), told, math.nan)
        self._broken = torch.maximum(
            self._broken, 1 - (told <= self.max_norm).to(self._broken.dtype)
        )
        self._held.append(torch.stack([told, loss]))
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        if len(self._held) >= self._every:
            self.read()
        return self.broken_step is None

    def hold_back(self, optimizer: torch.optim.Optimizer) -> None:
        """Have a fused optimiser leave out what is broken, decided on the device; a loss scaler does that by itself."""
        if self._every > 1 and not self.loss_scaled:
            optimizer.found_inf = self._broken  # type: ignore[attr-defined]  # what torch's own loss scaler sets

    def read(self) -> None:
        """Bring the norms to the host and look at them."""
        for norm, loss in torch.stack(self._held).tolist() if self._held else []:
            self._steps += 1
            if norm == _LEFT_OUT:
                continue
            self.norms.append(norm)
            if self.broken_step is None:
                self._tail.append((loss, norm))
                if not norm <= self.max_norm:
                    self.broken_step = self._steps
        self._held = []

    def summary(self) -> tuple[float, float, float]:
        """Median and maximum of the norms before clipping, and the share of steps that were clipped."""
        if not self.norms:
            return math.nan, math.nan, 0.0
        worst = next((norm for norm in self.norms if not math.isfinite(norm)), max(self.norms))
        clipped = sum(
            1 for norm in self.norms if self.clip_norm is not None and norm > self.clip_norm
        )
        return median(self.norms), worst, clipped / len(self.norms)

    def state(self) -> dict[str, Any]:
        """For a checkpoint: what outlives an epoch."""
        return {"tail": list(self._tail), "odd_inputs": bool(self._odd_inputs)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._tail.extend((loss, norm) for loss, norm in state["tail"])
        self._odd_inputs.fill_(state["odd_inputs"])

    def epoch_state(self) -> dict[str, Any]:
        """For a checkpoint in the midst of an epoch: what `start_epoch` forgets, with the steps that were not read yet."""
        held = torch.stack(self._held) if self._held else None
        return {
            "norms": list(self.norms),
            "steps": self._steps,
            "held": held,
            "broken": self._broken,
        }

    def restore_epoch(self, state: dict[str, Any]) -> None:
        """Go on in the midst of an epoch."""
        self.norms, self._steps = list(state["norms"]), state["steps"]
        self._held = [] if state["held"] is None else list(state["held"].to(self._broken.device))
        self._broken.copy_(state["broken"])

    def tail(self) -> tuple[tuple[float, float], ...]:
        """Loss and norm of the last steps up to the broken one; nothing where none broke."""
        return tuple(self._tail) if self.broken_step is not None else ()

    def inputs_finite(self) -> bool:
        """Whether every input so far was finite. Waits for the device."""
        return not bool(self._odd_inputs)
