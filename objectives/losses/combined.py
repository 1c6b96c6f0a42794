"""Combined loss: cross entropy or focal, plus Dice; follows a schedule and reports its values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from objectives.losses import checks, functional
from objectives.losses.balance import Balance
from objectives.losses.batch_sums import (
    Batch,
    Others,
    combine_sums,
    count_elements,
    label_rows,
    prepare_batch,
)
from objectives.losses.class_weights import Floats
from objectives.losses.library import LibraryLoss
from objectives.losses.modules import CrossEntropyLoss, DiceLoss, FocalLoss, Terms
from objectives.schedules import EpochValues
from spaces.errors import ConfigError, DataError


class LossParts(NamedTuple):
    """The loss to differentiate, and its parts for the record: detached, unweighted.

    Attributes:
        total: the loss, with its graph.
        ce: cross entropy, focal, or the mixture of both.
        dice: Dice, or the overlap in its place; None if it was not computed.
        focal: the focal term alone, if `ce` is a mixture.
    """

    total: Tensor
    ce: Tensor
    dice: Tensor | None
    focal: Tensor | None = None

    @classmethod
    def detach(cls, total: Tensor, main: Terms, dice: Tensor | None) -> LossParts:
        """Detach the parts."""
        return cls(
            total.to(main.value.dtype),
            main.value.detach(),
            None if dice is None else dice.detach(),
            None if main.focal is None else main.focal.detach(),
        )


class _Snapshot(NamedTuple):
    """Scheduled numbers, read from the buffers."""

    ce_weight: float
    dice_weight: float
    smooth: float
    class_weight_C: Floats | None


class CombinedLoss(nn.Module):
    """ce_weight·(cross entropy or focal) + dice_weight·Dice, over one softmax.

    CE/Dice weights, smooth and class weights are buffers that `set_epoch` changes in place. Dice is
    not computed in epochs in which its weight is 0.

    Args:
        main: the cross entropy or focal part.
        dice: the Dice part, or another overlap in its place.
        ce_weight: weight of `main`, not negative.
        dice_weight: weight of `dice`, not negative.
        balance: origin of `main`'s class weights and alpha; needed to change the clip ratio and for
            `used` to name them.

    Raises:
        ConfigError: when a weight is negative, or the parts ignore different labels.

    >>> parts = FocalLoss(2.0, ignore_index=255), DiceLoss(5.0, ignore_index=255)
    >>> loss = CombinedLoss(*parts, ce_weight=0.7, dice_weight=0.3)
    >>> _, focal, dice, _ = loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    >>> round(float(focal), 4)  # (2/3)²·ln 3
    0.4883
    >>> round(float(dice), 4)  # 1 − (2·16/3 + 5)/(16/3 + 16 + 5)
    0.4051
    """

    ce_weight: Tensor
    dice_weight: Tensor
    label_range: Tensor

    def __init__(
        self,
        main: CrossEntropyLoss | FocalLoss | LibraryLoss,
        dice: DiceLoss | LibraryLoss,
        *,
        ce_weight: float = 0.6,
        dice_weight: float = 0.4,
        balance: Balance | None = None,
    ) -> None:
        super().__init__()
        if main.ignore_index != dice.ignore_index:
            found = f"{main.ignore_index} and {dice.ignore_index}"
            raise ConfigError(
                f"both parts must ignore the same label, but ignore {found}",
                where="ignore_index",
                found=found,
                allowed="the same for both",
            )
        checks.check_not_negative("ce_weight", ce_weight)
        checks.check_not_negative("dice_weight", dice_weight)
        self.main = main
        self.dice = dice
        self.balance = balance
        self.classes = 0
        self.register_buffer(
            "ce_weight", torch.tensor(ce_weight, dtype=torch.float64), persistent=False
        )
        self.register_buffer(
            "dice_weight", torch.tensor(dice_weight, dtype=torch.float64), persistent=False
        )
        self.register_buffer("label_range", torch.zeros(2, dtype=torch.int64), persistent=False)
        self._dice_now = self._dice_ever = dice_weight > 0
        # None while the buffers themselves have the final values.
        self._final: _Snapshot | None = None

    def forward(self, logits: Tensor, target: Tensor, others: Others | None = None) -> LossParts:
        """Compute the loss of logits (N, C, …) and target (N, …).

        Args:
            logits: of any floating type.
            target: integers.
            others: from `pooled`, if this batch is a share of a larger one.

        Raises:
            ConfigError: when the shapes do not match.
        """
        main, dice = self.parts(logits, target, others)
        total = self.ce_weight * main.value
        if dice is not None:
            total = total + self.dice_weight * dice
        return LossParts.detach(total, main, dice)

    def parts(
        self, logits: Tensor, target: Tensor, others: Others | None = None
    ) -> tuple[Terms, Tensor | None]:
        """Compute both parts, unweighted, with their graph; Dice is None while its weight is 0."""
        self._track_labels(target, logits.shape[1])
        batches = 1 if others is None else others.batches
        dice = self.dice if self._dice_now else None
        batch: Batch | None = None
        # The library's losses have a softmax of their own.
        if not isinstance(self.main, LibraryLoss) or isinstance(dice, DiceLoss):
            batch = self._prepare_batch(logits, target)
        if not isinstance(self.main, LibraryLoss) and batch:
            main = self.main.terms_of(batch, others)
        else:
            main = Terms(self.main(logits, target) / batches)
        if dice is None:
            return main, None
        if isinstance(dice, DiceLoss) and batch:
            return main, dice.loss_of(batch, others)
        return main, dice(logits, target) / batches

    def _prepare_batch(self, logits: Tensor, target: Tensor) -> Batch:
        """Compute what the parts share."""
        main, dice = self.main, self.dice
        return prepare_batch(
            logits,
            target,
            main.ignore_index,
            weight=self._class_weight(),
            smoothed=not isinstance(main, LibraryLoss) and main.smoothed,
            power=dice.power if isinstance(dice, DiceLoss) and self._dice_now else None,
        )

    @property
    def class_count(self) -> int:
        """Number of classes, by the configured counts or the logits seen so far."""
        return len(self.balance.counts.names) if self.balance is not None else self.classes

    @property
    def needs_logits_to_pool(self) -> bool:
        """Whether `pooled` needs the logits of all batches, as Dice over the whole batch does."""
        return (
            self._dice_now and isinstance(self.dice, DiceLoss) and self.dice.reduction == "global"
        )

    @torch.no_grad()
    def pooled(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Others:
        """Compute the sums over batches that count as one large batch, see `Others`.

        Args:
            batches: logits and targets, read one at a time. Only the shape of the logits matters,
                unless `needs_logits_to_pool`.
        """
        counts = []
        sums = []
        for logits, target in batches:
            if self.needs_logits_to_pool:
                sums.append(functional.dice_sums(self._prepare_batch(logits, target)))
                counts.append(sums[-1][-1])
            else:
                classes = logits.shape[1]
                row_NL = label_rows(target, classes, self.main.ignore_index)
                counts.append(count_elements(row_NL, classes))
        return combine_sums(counts, sums, self._class_weight())

    @torch.no_grad()
    def _track_labels(self, target: Tensor, classes: int) -> None:
        """Widen the range of labels seen, without reading it."""
        self.classes = classes
        if target.numel():
            lowest, highest = torch.aminmax(target.masked_fill(target == self.main.ignore_index, 0))
            self.label_range[0].clamp_(max=lowest.to(torch.int64))
            self.label_range[1].clamp_(min=highest.to(torch.int64))

    def check_targets(self) -> None:
        """Check that every label so far was a class or ignored.

        It waits for the device: call it once per epoch.

        Raises:
            DataError: when one was neither; such elements were left out of the loss.
        """
        lowest, highest = self.label_range.tolist()
        self.label_range.zero_()
        bad = lowest if lowest < 0 else highest
        if lowest < 0 or (self.classes and highest >= self.classes):
            raise DataError(
                "a target contains a value that is no class",
                found=str(bad),
                allowed=f"0 … {self.classes - 1} ({self.classes} classes) "
                f"or {self.main.ignore_index} (ignored)",
                next_step="fix the labels, or the number of classes",
            )

    def set_epoch(self, values: EpochValues) -> None:
        """Set an epoch's CE/Dice weights, smooth and clip ratio.

        Raises:
            ConfigError: when one of them is negative.
        """
        for name in ("ce_weight", "dice_weight", "smooth"):
            checks.check_not_negative(name, getattr(values, name))
        if values.settled:
            self._final = None
        elif self._final is None:
            self._final = self._read_buffers()
        self.ce_weight.fill_(values.ce_weight)
        self.dice_weight.fill_(values.dice_weight)
        self.dice.smooth.fill_(values.smooth)
        weight_C = self._class_weight()
        if weight_C is not None and self.balance is not None:
            weight_C.copy_(torch.from_numpy(self.balance.class_weights(values.clip_ratio)))
        self._dice_now = values.dice_weight > 0
        self._dice_ever = self._dice_ever or self._dice_now

    def _class_weight(self) -> Tensor | None:
        return None if isinstance(self.main, LibraryLoss) else self.main.weight

    @property
    def weight_ratio(self) -> float:
        """Largest over smallest current class weight; 1 without class weights."""
        weight_C = self._class_weight()
        return 1.0 if weight_C is None else float(weight_C.max() / weight_C.min())

    def used(self) -> dict[str, Any]:
        """Read back dotted path → final value of every hyperparameter that has an effect.

        Numbers are read from the buffers that `forward` uses; while a schedule overrides them, from
        what they were before. A loss contains no method and no tau: one is named only if it gives
        exactly the current weights or alphas. What has no effect is absent. It waits for the
        device: call it once per epoch.
        """
        final = self._final or self._read_buffers()
        return (
            self._used_main()
            | self._used_weights(final.class_weight_C)
            | self._used_dice(final)
            | {"loss.normalize": False}
        )

    def _used_main(self) -> dict[str, Any]:
        main = self.main
        if isinstance(main, LibraryLoss):
            return main.used()
        smoothing = {"loss.label_smoothing": main.label_smoothing.item()}
        if not isinstance(main, FocalLoss):
            return {"loss.kind": "ce", **smoothing}
        used: dict[str, Any] = {"loss.kind": "focal"}
        if main.mixed:
            used = {"loss.kind": "ce_focal", "loss.focal_share": main.share.item()}
        return used | smoothing | {"loss.gamma": main.gamma.item()} | self._used_alpha(main)

    def _used_alpha(self, main: FocalLoss) -> dict[str, Any]:
        if main.alpha is None:
            return {}
        alpha = main.alpha.cpu()
        balance = self.balance
        if balance is None or (balance.alpha_tau is None and not balance.class_alpha):
            return {"loss.alpha": tuple(alpha.tolist()) if alpha.dim() else alpha.item()}
        return balance.recognize_alpha(alpha.numpy())

    def _used_weights(self, weight_C: Floats | None) -> dict[str, Any]:
        if weight_C is None:
            return {"weights.method": "uniform"}
        return self.balance.recognize_weights(weight_C) if self.balance else {}

    def _used_dice(self, final: _Snapshot) -> dict[str, Any]:
        used: dict[str, Any] = {
            "loss.ce_weight": final.ce_weight,
            "loss.dice_weight": final.dice_weight,
        }
        if not self._dice_ever:
            return used
        if isinstance(self.dice, LibraryLoss):
            used |= self.dice.used()
            if "loss.smooth" in used:
                used["loss.smooth"] = final.smooth
            return used
        return used | {
            "loss.overlap": "dice",
            "loss.smooth": final.smooth,
            "loss.square_denominator": self.dice.square_denominator,
            "loss.dice_reduction": self.dice.reduction,
        }

    def _read_buffers(self) -> _Snapshot:
        weight_C = self._class_weight()
        return _Snapshot(
            self.ce_weight.item(),
            self.dice_weight.item(),
            self.dice.smooth.item(),
            None if weight_C is None else weight_C.detach().cpu().numpy().copy(),
        )
