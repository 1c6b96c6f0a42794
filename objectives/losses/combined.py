"""Cross entropy or focal, plus Dice, as one criterion that follows a schedule and can be asked what it really uses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from objectives.class_weights import Floats, class_weights, focal_alpha
from objectives.losses import functional
from objectives.losses.modules import CrossEntropyLoss, DiceLoss, FocalLoss
from objectives.schedules import EpochValues
from spaces.config import WeightMethod, WeightsConfig
from spaces.errors import ConfigError
from spaces.records import ClassCounts

METHODS: tuple[WeightMethod, ...] = get_args(WeightMethod)


class LossParts(NamedTuple):
    """The loss to differentiate, and its parts for the record: detached, unweighted, Dice None where not computed."""

    total: Tensor
    ce: Tensor
    dice: Tensor | None


@dataclass(frozen=True)
class Balance:
    """Where class weights and alphas come from, so that they can follow a schedule and be recognised in the loss."""

    counts: ClassCounts
    weights: WeightsConfig
    alpha_tau: float | None = None

    def class_weights(self, clip_ratio: float | None) -> Floats:
        """The weights (C,) under another clip ratio."""
        return class_weights(self.counts, self.weights.model_copy(update={"clip_ratio": clip_ratio})).weights

    def recognise(self, live: Floats) -> dict[str, Any]:
        """The method and numbers that give exactly the weights `live` (C,): the configured ones if they do."""
        for config in self._candidates():
            if np.array_equal(live, class_weights(self.counts, config).weights):
                found: dict[str, Any] = {"weights.method": config.method}
                if config.method != "uniform":
                    found["weights.clip_ratio"] = config.clip_ratio
                if config.method == "effective_number":
                    found["weights.beta"] = config.beta
                return found
        return {}

    def _candidates(self) -> Iterator[WeightsConfig]:
        yield self.weights
        for method, clip_ratio in itertools.product(METHODS, (self.weights.clip_ratio, None)):
            yield self.weights.model_copy(update={"method": method, "clip_ratio": clip_ratio})


class _Snapshot(NamedTuple):
    """The scheduled numbers as the buffers hold them."""

    ce_weight: float
    dice_weight: float
    smooth: float
    class_weight_C: Floats | None


class CombinedLoss(nn.Module):
    """ce_weight·(cross entropy or focal) + dice_weight·Dice, over one log-softmax.

    Split, smooth and class weights are buffers that `set_epoch` changes in place. Dice is left out of the
    computation in an epoch where its weight is 0, which is known on the host.

    Args:
        main: the cross entropy or focal part.
        dice: the Dice part.
        ce_weight: its share, not negative.
        dice_weight: its share, not negative.
        balance: where `main`'s class weights and alpha come from; needed to change the clip ratio and to name them.

    Raises:
        ConfigError: when a share is negative, or the parts ignore different labels.
    """

    ce_weight: Tensor
    dice_weight: Tensor

    def __init__(
        self,
        main: CrossEntropyLoss | FocalLoss,
        dice: DiceLoss,
        *,
        ce_weight: float = 0.6,
        dice_weight: float = 0.4,
        balance: Balance | None = None,
    ) -> None:
        super().__init__()
        if main.ignore_index != dice.ignore_index:
            found = f"{main.ignore_index} and {dice.ignore_index}"
            raise ConfigError(
                f"both parts must ignore the same label, but ignore {found}", where="ignore_index", found=found, allowed="the same for both"
            )
        functional.not_negative("ce_weight", ce_weight)
        functional.not_negative("dice_weight", dice_weight)
        self.main, self.dice, self.balance = main, dice, balance
        self.register_buffer("ce_weight", torch.tensor(ce_weight, dtype=torch.float64), persistent=False)
        self.register_buffer("dice_weight", torch.tensor(dice_weight, dtype=torch.float64), persistent=False)
        self._dice_now = self._dice_ever = dice_weight > 0
        self._final: _Snapshot | None = None  # None while the buffers themselves hold the final values

    def forward(self, logits: Tensor, target: Tensor) -> LossParts:
        """The loss of logits (N, C, …) and target (N, …).

        Raises:
            ConfigError: when the shapes do not fit.
        """
        main, dice = self.parts(logits, target)
        total = self.ce_weight * main if dice is None else self.ce_weight * main + self.dice_weight * dice
        return LossParts(total.to(main.dtype), main.detach(), None if dice is None else dice.detach())

    def parts(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both parts, unweighted and still in the graph; Dice is None where its weight is 0 now."""
        batch = functional.prepare(logits, target, self.main.ignore_index)
        return self.main.of(batch), self.dice.of(batch) if self._dice_now else None

    def set_epoch(self, values: EpochValues) -> None:
        """Take over an epoch's split, smooth and clip ratio.

        Raises:
            ConfigError: when one of them is negative.
        """
        for name in ("ce_weight", "dice_weight", "smooth"):
            functional.not_negative(name, getattr(values, name))
        if values.settled:
            self._final = None
        elif self._final is None:
            self._final = self._snapshot()
        self.ce_weight.fill_(values.ce_weight)
        self.dice_weight.fill_(values.dice_weight)
        self.dice.smooth.fill_(values.smooth)
        if self.main.weight is not None and self.balance is not None:
            self.main.weight.copy_(torch.from_numpy(self.balance.class_weights(values.clip_ratio)))
        self._dice_now = values.dice_weight > 0
        self._dice_ever = self._dice_ever or self._dice_now

    @property
    def weight_ratio(self) -> float:
        """max/min of the class weights in use now; 1 without any."""
        weight_C = self.main.weight
        return 1.0 if weight_C is None else float(weight_C.max() / weight_C.min())

    def used(self) -> dict[str, Any]:
        """Dotted path → final value of every hyperparameter that takes part, read back from the live module.

        Numbers come from the buffers that `forward` uses; while a schedule holds other ones there, from what they
        were before it. A method or a tau has no place in a loss: it is named only if it gives exactly the weights or
        alphas that are there. What cannot reach the loss is absent. Waits for the device, so call it once an epoch.
        """
        final = self._final or self._snapshot()
        used = {"loss.kind": "focal" if isinstance(self.main, FocalLoss) else "ce", "loss.label_smoothing": self.main.label_smoothing}
        return used | self._used_focal() | self._used_weights(final.class_weight_C) | self._used_dice(final)

    def _used_focal(self) -> dict[str, Any]:
        if not isinstance(self.main, FocalLoss):
            return {}
        used: dict[str, Any] = {"loss.gamma": self.main.gamma.item()}
        if self.main.alpha is None:
            return used
        alpha, tau = self.main.alpha.cpu(), self.balance.alpha_tau if self.balance else None
        if self.balance is None or tau is None:
            return used | {"loss.alpha": tuple(alpha.tolist()) if alpha.dim() else alpha.item()}
        return used | ({"loss.alpha_tau": tau} if np.array_equal(alpha.numpy(), focal_alpha(self.balance.counts, tau)) else {})

    def _used_weights(self, weight_C: Floats | None) -> dict[str, Any]:
        if weight_C is None:
            return {"weights.method": "uniform"}
        return self.balance.recognise(weight_C) if self.balance else {}

    def _used_dice(self, final: _Snapshot) -> dict[str, Any]:
        split = {"loss.ce_weight": final.ce_weight, "loss.dice_weight": final.dice_weight}
        if not self._dice_ever:
            return split
        return split | {
            "loss.smooth": final.smooth,
            "loss.square_denominator": self.dice.square_denominator,
            "loss.dice_reduction": self.dice.reduction,
        }

    def _snapshot(self) -> _Snapshot:
        weight_C = None if self.main.weight is None else self.main.weight.detach().cpu().numpy().copy()
        return _Snapshot(self.ce_weight.item(), self.dice_weight.item(), self.dice.smooth.item(), weight_C)


class NormalizedCombinedLoss(nn.Module):
    """A combined loss whose parts are each divided by a running mean of themselves, so that no weight or split moves its scale.

    The mean is an exponential one, m ← momentum·m + (1 − momentum)·part, divided by the sum of its weights so far (bias
    correction); no gradient flows through it. It moves in training mode only, and not by a batch whose part is 0 (nothing
    valid) or not finite. Its state belongs to a checkpoint.

    Args:
        combined: the loss to normalise.
        momentum: of the running means, in [0, 1).

    Raises:
        ConfigError: when the momentum lies outside [0, 1).
    """

    mean_2: Tensor
    mass_2: Tensor

    def __init__(self, combined: CombinedLoss, momentum: float = 0.99) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ConfigError(
                f"momentum must lie in [0, 1), but is {momentum}", where="momentum", found=str(momentum), allowed="0 or more, below 1"
            )
        self.combined, self.momentum = combined, momentum
        device = combined.ce_weight.device
        self.register_buffer("mean_2", torch.zeros(2, dtype=torch.float64, device=device))
        self.register_buffer("mass_2", torch.zeros(2, dtype=torch.float64, device=device))

    def forward(self, logits: Tensor, target: Tensor) -> LossParts:
        """The normalised total, and the parts as they are, of logits (N, C, …) and target (N, …)."""
        main, dice = self.combined.parts(logits, target)
        total = self.combined.ce_weight * self._normalised(main, 0)
        if dice is not None:
            total = total + self.combined.dice_weight * self._normalised(dice, 1)
        return LossParts(total.to(main.dtype), main.detach(), None if dice is None else dice.detach())

    def set_epoch(self, values: EpochValues) -> None:
        """As the combined loss does."""
        self.combined.set_epoch(values)

    def used(self) -> dict[str, Any]:
        """As the combined loss does."""
        return self.combined.used()

    def _normalised(self, part: Tensor, place: int) -> Tensor:
        if self.training:
            value = part.detach().double()
            step = torch.where((value > 0) & value.isfinite(), 1 - self.momentum, 0.0)
            # a NaN times a step of 0 would still be NaN: hence the second `where`
            self.mean_2[place].add_(step * (torch.where(step > 0, value, 0.0) - self.mean_2[place]))
            self.mass_2[place].add_(step * (1 - self.mass_2[place]))
        mean, mass = self.mean_2[place], self.mass_2[place]
        return part / torch.where(mass > 0, mean / mass, 1.0)
