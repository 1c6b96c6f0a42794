"""Cross entropy or focal, plus Dice, as one criterion that follows a schedule and can be asked what it really uses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from objectives.losses import checks, functional
from objectives.losses.balance import Balance
from objectives.losses.class_weights import Floats
from objectives.losses.functional import Batch, Others
from objectives.losses.library import LibraryLoss
from objectives.losses.modules import CrossEntropyLoss, DiceLoss, FocalLoss, Terms
from objectives.schedules import EpochValues
from spaces.errors import ConfigError, DataError


class LossParts(NamedTuple):
    """The loss to differentiate, and its parts for the record: detached, unweighted.

    Attributes:
        ce: the part that is no overlap: cross entropy, focal, or the mixture of both.
        dice: Dice, or the overlap in its place; None where it was not computed.
        focal: the focal term by itself, where `ce` is a mixture.
    """

    total: Tensor
    ce: Tensor
    dice: Tensor | None
    focal: Tensor | None = None


class _Snapshot(NamedTuple):
    """The scheduled numbers as the buffers hold them."""

    ce_weight: float
    dice_weight: float
    smooth: float
    class_weight_C: Floats | None


class CombinedLoss(nn.Module):
    """ce_weight·(cross entropy or focal) + dice_weight·Dice, over one softmax.

    Split, smooth and class weights are buffers that `set_epoch` changes in place. Dice is left out of the
    computation in an epoch where its weight is 0, which is known on the host.

    Args:
        main: the cross entropy or focal part.
        dice: the Dice part, or another overlap in its place.
        ce_weight: its share, not negative.
        dice_weight: its share, not negative.
        balance: where `main`'s class weights and alpha come from; needed to change the clip ratio and to name them.

    Raises:
        ConfigError: when a share is negative, or the parts ignore different labels.

    >>> loss = CombinedLoss(FocalLoss(2.0, ignore_index=255), DiceLoss(5.0, ignore_index=255), ce_weight=0.7, dice_weight=0.3)
    >>> total, focal, dice, _ = loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    >>> round(float(focal), 4), round(float(dice), 4)  # (2/3)²·ln 3, and 1 − (2·16/3 + 5)/(16/3 + 16 + 5)
    (0.4883, 0.4051)
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
            what = f"both parts must ignore the same label, but ignore {found}"
            raise ConfigError(what, where="ignore_index", found=found, allowed="the same for both")
        checks.not_negative("ce_weight", ce_weight)
        checks.not_negative("dice_weight", dice_weight)
        self.main, self.dice, self.balance, self.classes = main, dice, balance, 0
        self.register_buffer(
            "ce_weight", torch.tensor(ce_weight, dtype=torch.float64), persistent=False
        )
        self.register_buffer(
            "dice_weight", torch.tensor(dice_weight, dtype=torch.float64), persistent=False
        )
        self.register_buffer("label_range", torch.zeros(2, dtype=torch.int64), persistent=False)
        self._dice_now = self._dice_ever = dice_weight > 0
        self._final: _Snapshot | None = (
            None  # None while the buffers themselves hold the final values
        )

    def forward(self, logits: Tensor, target: Tensor, others: Others | None = None) -> LossParts:
        """The loss of logits (N, C, …) and target (N, …).

        Args:
            others: from `pooled`, when this batch is a share of a larger one.

        Raises:
            ConfigError: when the shapes do not fit.
        """
        main, dice = self.parts(logits, target, others)
        total = (
            self.ce_weight * main.value
            if dice is None
            else self.ce_weight * main.value + self.dice_weight * dice
        )
        return self.told(total, main, dice)

    @staticmethod
    def told(total: Tensor, main: Terms, dice: Tensor | None) -> LossParts:
        """The parts as they are handed out."""
        focal = None if main.focal is None else main.focal.detach()
        return LossParts(
            total.to(main.value.dtype),
            main.value.detach(),
            None if dice is None else dice.detach(),
            focal,
        )

    def parts(
        self, logits: Tensor, target: Tensor, others: Others | None = None
    ) -> tuple[Terms, Tensor | None]:
        """Both parts, unweighted and still in the graph; Dice is None where its weight is 0 now."""
        self._watch(target, logits.shape[1])
        share, dice = 1 if others is None else others.batches, self.dice if self._dice_now else None
        foreign = isinstance(self.main, LibraryLoss) and not isinstance(
            dice, DiceLoss
        )  # these have a softmax of their own
        batch = None if foreign else self._batch(logits, target)
        main = (
            self.main.terms_of(batch, others)
            if not isinstance(self.main, LibraryLoss) and batch
            else Terms(self.main(logits, target) / share)
        )
        if dice is None:
            return main, None
        return main, dice.of(batch, others) if isinstance(dice, DiceLoss) and batch else dice(
            logits, target
        ) / share

    def _batch(self, logits: Tensor, target: Tensor) -> Batch:
        """What the parts share."""
        main, dice = self.main, self.dice
        return functional.prepare(
            logits,
            target,
            main.ignore_index,
            weight=self._weight(),
            smoothed=not isinstance(main, LibraryLoss) and main.smoothed,
            power=dice.power if isinstance(dice, DiceLoss) and self._dice_now else None,
        )

    @property
    def class_count(self) -> int:
        """C, as the configured counts or the logits seen so far have it."""
        return len(self.balance.counts.names) if self.balance is not None else self.classes

    @property
    def needs_logits_to_pool(self) -> bool:
        """Whether sums over a large batch need the logits of all of it: those of Dice over the whole batch do."""
        return (
            self._dice_now and isinstance(self.dice, DiceLoss) and self.dice.reduction == "global"
        )

    @torch.no_grad()
    def pooled(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Others:
        """The sums over batches of logits and targets that are to count as one large batch, see `Others`.

        They are taken one at a time. The logits may be of the right shape only, unless `needs_logits_to_pool`.
        """
        counts, sums = [], []
        for logits, target in batches:
            if self.needs_logits_to_pool:
                sums.append(functional.dice_sums(self._batch(logits, target)))
                counts.append(sums[-1][-1])
            else:
                counts.append(
                    functional.counts(
                        functional.rows(target, logits.shape[1], self.main.ignore_index),
                        logits.shape[1],
                    )
                )
        return functional.others_of(counts, sums, self._weight())

    @torch.no_grad()
    def _watch(self, target: Tensor, classes: int) -> None:
        """Widen the range of labels seen, without a look at it."""
        self.classes = classes
        if target.numel():
            lowest, highest = torch.aminmax(target.masked_fill(target == self.main.ignore_index, 0))
            self.label_range[0].clamp_(max=lowest.to(torch.int64))
            self.label_range[1].clamp_(min=highest.to(torch.int64))

    def check_targets(self) -> None:
        """Whether every label so far was a class or ignored. Waits for the device, so call it once an epoch.

        Raises:
            DataError: when one was neither; such elements were left out of the loss.
        """
        lowest, highest = self.label_range.tolist()
        self.label_range.zero_()
        bad = lowest if lowest < 0 else highest
        if lowest < 0 or (self.classes and highest >= self.classes):
            raise DataError(
                "a target holds a value that is no class",
                found=str(bad),
                allowed=f"0 … {self.classes - 1} ({self.classes} classes) or {self.main.ignore_index} (ignored)",
                next_step="mend the labels, or the number of classes",
            )

    def set_epoch(self, values: EpochValues) -> None:
        """Take over an epoch's split, smooth and clip ratio.

        Raises:
            ConfigError: when one of them is negative.
        """
        for name in ("ce_weight", "dice_weight", "smooth"):
            checks.not_negative(name, getattr(values, name))
        if values.settled:
            self._final = None
        elif self._final is None:
            self._final = self._snapshot()
        self.ce_weight.fill_(values.ce_weight)
        self.dice_weight.fill_(values.dice_weight)
        self.dice.smooth.fill_(values.smooth)
        weight_C = self._weight()
        if weight_C is not None and self.balance is not None:
            weight_C.copy_(torch.from_numpy(self.balance.class_weights(values.clip_ratio)))
        self._dice_now = values.dice_weight > 0
        self._dice_ever = self._dice_ever or self._dice_now

    def _weight(self) -> Tensor | None:
        return None if isinstance(self.main, LibraryLoss) else self.main.weight

    @property
    def weight_ratio(self) -> float:
        """max/min of the class weights in use now; 1 without any."""
        weight_C = self._weight()
        return 1.0 if weight_C is None else float(weight_C.max() / weight_C.min())

    def used(self) -> dict[str, Any]:
        """Dotted path → final value of every hyperparameter that takes part, read back from the live module.

        Numbers come from the buffers that `forward` uses; while a schedule holds other ones there, from what they
        were before it. A method or a tau has no place in a loss: it is named only if it gives exactly the weights or
        alphas that are there. What cannot reach the loss is absent. Waits for the device, so call it once an epoch.
        """
        final = self._final or self._snapshot()
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
        mixed = (
            {"loss.kind": "ce_focal", "loss.focal_share": main.share.item()}
            if main.mixed
            else {"loss.kind": "focal"}
        )
        return {**mixed, **smoothing, "loss.gamma": main.gamma.item()} | self._used_alpha(main)

    def _used_alpha(self, main: FocalLoss) -> dict[str, Any]:
        if main.alpha is None:
            return {}
        alpha, balance = main.alpha.cpu(), self.balance
        if balance is None or (balance.alpha_tau is None and not balance.class_alpha):
            return {"loss.alpha": tuple(alpha.tolist()) if alpha.dim() else alpha.item()}
        return balance.recognise_alpha(alpha.numpy())

    def _used_weights(self, weight_C: Floats | None) -> dict[str, Any]:
        if weight_C is None:
            return {"weights.method": "uniform"}
        return self.balance.recognise(weight_C) if self.balance else {}

    def _used_dice(self, final: _Snapshot) -> dict[str, Any]:
        split: dict[str, Any] = {
            "loss.ce_weight": final.ce_weight,
            "loss.dice_weight": final.dice_weight,
        }
        if not self._dice_ever:
            return split
        if isinstance(self.dice, LibraryLoss):
            used = self.dice.used()
            return split | used | ({"loss.smooth": final.smooth} if "loss.smooth" in used else {})
        shape = {
            "loss.square_denominator": self.dice.square_denominator,
            "loss.dice_reduction": self.dice.reduction,
        }
        return split | {"loss.overlap": "dice", "loss.smooth": final.smooth} | shape

    def _snapshot(self) -> _Snapshot:
        weight_C = self._weight()
        held = None if weight_C is None else weight_C.detach().cpu().numpy().copy()
        return _Snapshot(
            self.ce_weight.item(), self.dice_weight.item(), self.dice.smooth.item(), held
        )
