"""Guard of optimizer steps: gradient norm before clipping, and whether loss and norm are usable.

On a CPU every step is judged before it is applied. On CUDA, reading a number makes the host wait,
so the numbers stay on the device and are read every `CHECK_EVERY` steps: a broken step is noticed
at most that many steps later. The device itself knows at once: from the broken step on, the fused
optimizer skips its steps there.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CHECK_EVERY = 10

LAST_STEPS = 10
"""Steps recorded up to a broken one: enough to distinguish a slow blow-up from a jump."""

_SKIPPED = -1.0
"""Marks the norm of a step that the loss scaler skips; a norm is never negative."""


class NormSummary(NamedTuple):
    """Gradient norms of an epoch, before clipping; NaN where there was no step."""

    median: float
    largest: float
    clipped_share: float


class StepGuard:
    """Gradient norms of one epoch, clipping, and the first broken step.

    Args:
        model: whose gradients are checked.
        clip_norm: `max_norm` of the global gradient norm; None only measures.
        max_norm: a norm that is larger or not finite breaks the step.
        loss_scaled: float16 with loss scaling. A norm that overflows is then no broken step: the
            scaler skips the step and scales less. A finite norm above the bound breaks the step,
            but the device cannot skip it by itself, so that up to `CHECK_EVERY` − 1 more are
            applied.
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
        self.clip_norm = clip_norm
        self.max_norm = max_norm
        self.loss_scaled = loss_scaled
        self.broken_step: int | None = None
        self.norms: list[float] = []
        self._steps = 0
        self._last: deque[tuple[float, float]] = deque(maxlen=LAST_STEPS)
        self._unread: list[Tensor] = []
        self._every = CHECK_EVERY if self.parameters[0].is_cuda else 1
        self._broken = torch.zeros((), device=self.parameters[0].device)
        self._odd_inputs = torch.zeros((), dtype=torch.bool, device=self.parameters[0].device)

    def start_epoch(self) -> None:
        """Forget the previous epoch, except for its last steps."""
        self.norms = []
        self.broken_step = None
        self._unread = []
        self._steps = 0

    def check_inputs(self, inputs: Tensor) -> None:
        """Note on the device whether a batch's inputs are finite, by their sum (overflow aside)."""
        self._odd_inputs |= ~torch.isfinite(inputs.detach().sum(dtype=torch.float32))

    def check_step(self, loss: Tensor) -> bool:
        """Measure and clip the gradients; return False if this step or an earlier one is broken."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        loss = loss.detach().to(norm.dtype)
        noted = torch.where(torch.isfinite(norm), norm, _SKIPPED) if self.loss_scaled else norm
        # A loss that is not finite must show even if its gradient is (a saturated softmax).
        noted = torch.where(torch.isfinite(loss), noted, math.nan)
        self._broken = torch.maximum(
            self._broken, 1 - (noted <= self.max_norm).to(self._broken.dtype)
        )
        self._unread.append(torch.stack([noted, loss]))
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        if len(self._unread) >= self._every:
            self.read_norms()
        return self.broken_step is None

    def skip_broken_steps(self, optimizer: torch.optim.Optimizer) -> None:
        """Make a fused optimizer skip broken steps on the device; a loss scaler does so itself."""
        if self._every > 1 and not self.loss_scaled:
            # torch's own loss scaler sets this attribute.
            optimizer.found_inf = self._broken  # type: ignore[attr-defined]

    def read_norms(self) -> None:
        """Copy the norms to the host and judge them."""
        if not self._unread:
            return
        for norm, loss in torch.stack(self._unread).tolist():
            self._steps += 1
            if norm == _SKIPPED:
                continue
            self.norms.append(norm)
            if self.broken_step is None:
                self._last.append((loss, norm))
                if not norm <= self.max_norm:
                    self.broken_step = self._steps
        self._unread = []

    @property
    def skipped_steps(self) -> int:
        """Steps of this epoch that the loss scaler skipped, because a gradient overflowed."""
        return self._steps - len(self.norms)

    def summarize_norms(self) -> NormSummary:
        """Return median and largest norm before clipping, and the share of clipped steps."""
        if not self.norms:
            return NormSummary(math.nan, math.nan, 0.0)
        largest = next((norm for norm in self.norms if not math.isfinite(norm)), max(self.norms))
        clipped = 0
        if self.clip_norm is not None:
            clipped = sum(norm > self.clip_norm for norm in self.norms)
        return NormSummary(median(self.norms), largest, clipped / len(self.norms))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint stores of all epochs."""
        return {"tail": list(self._last), "odd_inputs": bool(self._odd_inputs)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the state of a checkpoint."""
        self._last.extend((loss, norm) for loss, norm in state["tail"])
        self._odd_inputs.fill_(state["odd_inputs"])

    def epoch_state(self) -> dict[str, Any]:
        """Return what a checkpoint within an epoch stores: all that `start_epoch` forgets."""
        return {
            "norms": list(self.norms),
            "steps": self._steps,
            # The key is part of the file format.
            "held": torch.stack(self._unread) if self._unread else None,
            "broken": self._broken,
        }

    def restore_epoch(self, state: dict[str, Any]) -> None:
        """Continue within an epoch."""
        self.norms = list(state["norms"])
        self._steps = state["steps"]
        unread = state["held"]
        self._unread = [] if unread is None else list(unread.to(self._broken.device))
        self._broken.copy_(state["broken"])

    def last_steps(self) -> tuple[tuple[float, float], ...]:
        """Return loss and norm of the last steps up to the broken one; nothing if none broke."""
        return tuple(self._last) if self.broken_step is not None else ()

    def inputs_finite(self) -> bool:
        """Return whether every input so far was finite. Waits for the device."""
        return not bool(self._odd_inputs)
