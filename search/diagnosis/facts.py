"""What a trial's records and configuration say, as the numbers that tell one cause from another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from spaces.records import ClassCounts, EpochRecord, Evidence, best_record

LAST = 3
"""Epochs that stand for the end of a trial: a class must have been at 0 in all of them to count as dead."""

SCHEDULED = ("weight_ratio", "ce_weight", "dice_weight", "smooth")
"""What a schedule may change between two epochs, besides the rate."""

RARE, FREQUENT = 0.05, 0.4
"""Shares of the pixels below which a class is rare, and above which it is frequent."""


@dataclass(frozen=True)
class Facts:
    """One trial, ready to be asked. Epochs that broke off count only where they are named.

    Attributes:
        records: in order of epochs; at least one.
        values: the configuration by dotted path.
        evidence: what killed the trial; None for one that ended by itself.
        counts: pixels of the classes in the training split, where they are known.
    """

    records: Sequence[EpochRecord]
    values: Mapping[str, Any]
    evidence: Evidence | None = None
    counts: ClassCounts | None = None

    @cached_property
    def whole(self) -> Sequence[EpochRecord]:
        """The epochs that did not break off."""
        return [
            record
            for record in self.records
            if record.broken_step is None and math.isfinite(record.metric)
        ]

    @property
    def last(self) -> EpochRecord:
        """The newest epoch, broken or not."""
        return self.records[-1]

    @property
    def broke(self) -> bool:
        """Whether the trial ended at a broken step."""
        return self.last.broken_step is not None

    @property
    def signal(self) -> str:
        """The signal that killed it, or nothing."""
        return "" if self.evidence is None else self.evidence.signal

    # ── configuration ──

    @property
    def rate(self) -> float:
        """The learning rate as a multiple of the base rate."""
        return float(self.values.get("optimizer.lr_multiple", 1.0))

    @property
    def clip(self) -> float | None:
        """The bound of the gradient norm."""
        return self.values.get("optimizer.grad_clip_norm")

    @property
    def batch(self) -> int:
        """Samples an optimiser step."""
        return int(self.values.get("batch_size", 8)) * int(
            self.values.get("optimizer.accumulate", 1)
        )

    @property
    def dice_weight(self) -> float:
        """Dice's final share of the loss."""
        return float(self.values.get("loss.dice_weight", 0.0))

    @property
    def dice_missing(self) -> float:
        """The share of the epochs in which Dice had less than half of its final share; 0 for a trial too short to tell."""
        if self.dice_weight <= 0 or len(self.records) < 5:
            return 0.0
        return sum(record.dice_weight < 0.5 * self.dice_weight for record in self.records) / len(
            self.records
        )

    @property
    def focal(self) -> bool:
        """Whether the focal loss takes part."""
        return self.values.get("loss.kind") in ("focal", "ce_focal")

    # ── losses ──

    @property
    def guess(self) -> float:
        """The cross entropy of a guess, ln C."""
        return math.log(max(2, len(self.last.class_metric)))

    @cached_property
    def loss_scale(self) -> float:
        """The first cross entropy (or focal) loss over that of a guess: about 1 for a loss of the usual scale."""
        # Of a trial that broke in its first epoch the steps before the break tell; the epoch's mean is of the break itself.
        first = (
            self.last.last_steps[0][0]
            if self.last.epoch == 1 and self.last.last_steps
            else self.records[0].ce_loss
        )
        return first / self.guess if math.isfinite(first) else math.nan

    @cached_property
    def fall(self) -> float:
        """How much of the first cross entropy loss was trained away; 0 for a trial that learnt nothing."""
        if len(self.whole) < 2 or self.whole[0].ce_loss <= 0:
            return math.nan
        return 1 - min(record.ce_loss for record in self.whole[1:]) / self.whole[0].ce_loss

    @cached_property
    def worst_val_ce(self) -> float:
        """The largest plain cross entropy in validation over that of a guess: far above 1 after a throw of the weights."""
        return max((record.val_ce for record in self.whole), default=math.nan) / self.guess

    @cached_property
    def jump(self) -> tuple[int, float]:
        """Epoch and size of the largest rise of the cross entropy loss from one epoch to the next, where no schedule moved anything up."""
        rises = [
            (after.epoch, after.ce_loss / before.ce_loss)
            for before, after in pairwise(self.whole)
            if before.ce_loss > 0
            and after.lr <= 1.01 * before.lr
            and all(getattr(before, name) == getattr(after, name) for name in SCHEDULED)
        ]
        return max(rises, key=lambda rise: rise[1], default=(0, math.nan))

    @cached_property
    def val_rise(self) -> float:
        """How far the validation loss has risen over its minimum, as a share of it."""
        losses = [record.val_loss for record in self.whole]
        return (
            fmean(losses[-LAST:]) / min(losses) - 1
            if len(losses) > LAST and min(losses) > 0
            else math.nan
        )

    @cached_property
    def gap(self) -> float:
        """Validation over training loss at the end, at the final split."""
        tail = [record for record in self.whole[-LAST:] if record.settled]
        return (
            median(
                [record.val_loss / record.train_loss for record in tail if record.train_loss > 0]
            )
            if tail and tail[-1].train_loss > 0
            else math.nan
        )

    @cached_property
    def ce_over_best(self) -> float:
        """The training cross entropy at the end over its minimum, while Dice was trained."""
        losses = [record.ce_loss for record in self.whole if record.dice_loss is not None]
        return median(losses[-LAST:]) / min(losses) if losses and min(losses) > 0 else math.nan

    @cached_property
    def val_ce_swing(self) -> float:
        """The median change of the validation cross entropy from one epoch to the next, as a share of its median."""
        values = [record.val_ce for record in self.whole]
        return (
            median([abs(b - a) for a, b in pairwise(values)]) / median(values)
            if len(values) > LAST
            else math.nan
        )

    @cached_property
    def val_ce_gain(self) -> float:
        """How much of the second epoch's validation cross entropy was trained away."""
        values = [record.val_ce for record in self.whole[1:]]
        return 1 - min(values) / values[0] if len(values) > 1 else math.nan

    # ── gradients ──

    @cached_property
    def norm(self) -> float:
        """The median gradient norm."""
        return median(
            [
                record.grad_norm_median
                for record in self.records
                if math.isfinite(record.grad_norm_median)
            ]
            or [math.nan]
        )

    @cached_property
    def peak_norm(self) -> float:
        """The largest finite gradient norm."""
        norms = [record.grad_norm_max for record in self.records] + [
            norm for _, norm in self.last.last_steps
        ]
        return max((norm for norm in norms if math.isfinite(norm)), default=math.nan)

    @cached_property
    def growth(self) -> float:
        """How much the norm grew over the last steps before a break: the last finite one over the smallest before it."""
        norms = [norm for _, norm in self.last.last_steps if math.isfinite(norm) and norm > 0]
        return norms[-1] / min(norms) if len(norms) > 1 else math.nan

    @cached_property
    def noise(self) -> float:
        """The largest over the median gradient norm of an epoch, in the median epoch."""
        return median(
            [
                record.grad_norm_max / record.grad_norm_median
                for record in self.whole
                if record.grad_norm_median > 0
            ]
            or [math.nan]
        )

    @cached_property
    def clipped(self) -> float:
        """The share of steps that were clipped."""
        return median([record.clipped_share for record in self.records])

    @cached_property
    def dice_share(self) -> float:
        """Dice's share of the gradient at the logits, where Dice was trained."""
        return median(
            [
                record.grad_shares["dice"]
                for record in self.records
                if record.dice_loss is not None and "dice" in record.grad_shares
            ]
            or [0.0]
        )

    @cached_property
    def class_shares(self) -> tuple[float, ...]:
        """Every class's mean share of the gradient at the logits; nothing where it was not measured."""
        told = [
            [share or 0.0 for share in record.class_grad_shares]
            for record in self.records
            if record.class_grad_shares
        ]
        return tuple(fmean(column) for column in zip(*told, strict=True)) if told else ()

    # ── classes ──

    @cached_property
    def frequencies(self) -> tuple[float, ...]:
        """Every class's share of the training pixels; nothing where the counts are not known."""
        total = sum(self.counts.counts) if self.counts is not None else 0
        return (
            tuple(count / total for count in self.counts.counts)
            if self.counts is not None and total
            else ()
        )

    @cached_property
    def held(self) -> tuple[int, ...]:
        """The classes that the validation split holds."""
        return (
            tuple(
                index
                for index, value in enumerate(self.whole[-1].class_metric)
                if value is not None
            )
            if self.whole
            else ()
        )

    @cached_property
    def dead(self) -> tuple[int, ...]:
        """Held classes that stayed at 0 (or as good as) in each of the last epochs."""
        tail = self.whole[-LAST:]
        return tuple(
            index
            for index in self.held
            if all((record.class_metric[index] or 0.0) < 0.005 for record in tail)
        )

    @property
    def collapsed(self) -> bool:
        """Whether one class alone is predicted."""
        return len(self.held) > 2 and len(self.dead) >= len(self.held) - 1

    def name(self, index: int) -> str:
        """A class's name, where names are known."""
        return (
            self.counts.names[index]
            if self.counts is not None and index < len(self.counts.names)
            else f"class {index}"
        )

    @cached_property
    def frequent_pull(self) -> float:
        """The share of the gradient that the frequent classes carry, over their share of the pixels."""
        indices = [index for index, share in enumerate(self.frequencies) if share > FREQUENT]
        if not indices or len(self.class_shares) != len(self.frequencies):
            return math.nan
        return sum(self.class_shares[index] for index in indices) / sum(
            self.frequencies[index] for index in indices
        )

    @cached_property
    def unpulled(self) -> tuple[int, ...]:
        """Dead classes at whose elements next to no gradient arrives, though other dead or rarer classes get theirs."""
        shares = self.class_shares
        if len(shares) < 3:
            return ()
        return tuple(index for index in self.dead if shares[index] < 0.02 * median(shares))

    def gains(self) -> str:
        """Which classes gained and which lost, from the best epoch to the last."""
        if not self.whole:
            return "no whole epoch to compare"
        best = best_record(self.whole, self.values.get("metric.direction", "maximize"))
        pairs = list(enumerate(zip(best.class_metric, self.whole[-1].class_metric, strict=True)))
        moved = [
            (index, after - before)
            for index, (before, after) in pairs
            if before is not None and after is not None
        ]
        gained = [
            f"{self.name(index)} {change:+.3f}"
            for index, change in sorted(moved, key=lambda item: -item[1])[:2]
            if change > 0
        ]
        lost = [
            f"{self.name(index)} {change:+.3f}"
            for index, change in sorted(moved, key=lambda item: item[1])[:2]
            if change < 0
        ]
        return f"since epoch {best.epoch}: gained {', '.join(gained) or 'none'}; lost {', '.join(lost) or 'none'}"
