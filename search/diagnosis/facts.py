"""The facts of one trial: quantities computed from its records and configuration, once each.

The causes are functions of these facts. Ratios and shares have no unit; a quantity that the records
do not allow to compute is NaN, and every comparison with it is false.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from statistics import fmean, median
from typing import NamedTuple

from search.diagnosis.trial_facts import TrialFacts
from spaces.records import EpochRecord

DIVERGED_CE = 4.0
"""Validation cross entropy, over that of a guess, above which the weights have diverged."""

FAST_GROWTH = 3.0
"""Growth of the norm within ten steps above which it was rising step by step, not suddenly."""

LAST = 3
"""Number of epochs that represent the end of a trial."""

DEAD_LEVEL = 0.005
"""Class metric below which a class counts as 0."""

SCHEDULED = ("weight_ratio", "ce_weight", "dice_weight", "smooth")
"""Fields of a record that a schedule may change between two epochs, besides the learning rate."""

SAMPLED_SHARE = 1e-4
"""Share of the training pixels from which on a class is in every sample of targets."""

FREQUENT = 0.4
"""Share of the training pixels above which a class is frequent."""


class LossJump(NamedTuple):
    """The largest rise of the cross entropy (or focal) loss from one epoch to the next.

    Attributes:
        epoch: the epoch with the higher loss; 0 where no two epochs can be compared.
        ratio: its loss over that of the epoch before.
    """

    epoch: int
    ratio: float


class Facts(TrialFacts):
    """Facts about one trial, with those about its losses, gradients and classes."""

    # ── losses ──

    @property
    def guess_loss(self) -> float:
        """The cross entropy of a uniform guess, ln C; NaN where C is not known."""
        known = len(self.last_record.class_metric)
        classes = known or len(self.class_frequencies or self.data.target_shares)
        return math.log(max(2, classes)) if classes else math.nan

    @cached_property
    def loss_scale(self) -> float:
        """The first cross entropy (or focal) loss over that of a guess; about 1 at the usual scale.

        Of a trial that broke off in its first epoch it is that of the first step recorded before
        the break: the epoch's mean contains the break itself.
        """
        first = self.records[0].ce_loss
        if self.last_record.epoch == 1 and self.last_record.last_steps:
            first = self.last_record.last_steps[0][0]
        return first / self.guess_loss if math.isfinite(first) else math.nan

    @cached_property
    def loss_fall(self) -> float:
        """Share of the first cross entropy (or focal) loss by which it fell; 0: nothing learned."""
        epochs = self.complete_epochs
        if len(epochs) < 2 or epochs[0].ce_loss <= 0:
            return math.nan
        return 1 - min(record.ce_loss for record in epochs[1:]) / epochs[0].ce_loss

    @cached_property
    def worst_val_ce(self) -> float:
        """The largest plain validation cross entropy over that of a guess.

        It is far above 1 after a step so large that the weights became useless.
        """
        worst = max((record.val_ce for record in self.complete_epochs), default=math.nan)
        return worst / self.guess_loss

    @property
    def diverged(self) -> bool:
        """Whether validation or the norms before a break show weights that diverged."""
        return self.worst_val_ce > DIVERGED_CE or (
            self.broke_off and self.norm_growth > FAST_GROWTH
        )

    @cached_property
    def early_gap(self) -> float:
        """Validation loss over training loss, the lowest of the second to the fourth epoch.

        NaN while a schedule still changes the loss, as validation uses its final form.
        """
        early = [record for record in self.complete_epochs if 2 <= record.epoch <= 4]
        ratios = [
            record.val_loss / record.train_loss
            for record in early
            if record.settled and record.train_loss > 0
        ]
        return min(ratios, default=math.nan)

    @cached_property
    def loss_jump(self) -> LossJump:
        """The largest jump of the loss between epochs whose schedules and learning rates agree."""
        jumps = [
            LossJump(after.epoch, after.ce_loss / before.ce_loss)
            for before, after in pairwise(self.complete_epochs)
            if before.ce_loss > 0 and _same_schedule(before, after)
        ]
        return max(jumps, key=lambda jump: jump.ratio, default=LossJump(0, math.nan))

    @cached_property
    def val_rise(self) -> float:
        """How far the last validation losses are above the minimum, as a share of the minimum."""
        losses = [record.val_loss for record in self.complete_epochs]
        if len(losses) <= LAST or not min(losses) > 0:
            return math.nan
        return fmean(losses[-LAST:]) / min(losses) - 1

    @cached_property
    def generalization_gap(self) -> float:
        """Validation loss over training loss at the end, once the schedule has settled."""
        tail = [record for record in self.complete_epochs[-LAST:] if record.settled]
        if not tail or not tail[-1].train_loss > 0:
            return math.nan
        return median(
            [record.val_loss / record.train_loss for record in tail if record.train_loss > 0]
        )

    @cached_property
    def ce_over_best(self) -> float:
        """Training cross entropy at the end over its minimum, of the epochs that trained Dice."""
        losses = [record.ce_loss for record in self.complete_epochs if record.dice_loss is not None]
        if not losses or not min(losses) > 0:
            return math.nan
        return median(losses[-LAST:]) / min(losses)

    @cached_property
    def val_ce_swing(self) -> float:
        """Median change of the validation cross entropy per epoch, as a share of its median."""
        values = [record.val_ce for record in self.complete_epochs]
        if len(values) <= LAST:
            return math.nan
        return median([abs(after - before) for before, after in pairwise(values)]) / median(values)

    @cached_property
    def val_ce_fall(self) -> float:
        """Share of the second epoch's validation cross entropy by which it fell later."""
        values = [record.val_ce for record in self.complete_epochs[1:]]
        return 1 - min(values) / values[0] if len(values) > 1 else math.nan

    # ── gradients ──

    @cached_property
    def median_norm(self) -> float:
        """The median gradient norm before clipping."""
        norms = [record.grad_norm_median for record in self.records]
        return median([norm for norm in norms if math.isfinite(norm)] or [math.nan])

    @cached_property
    def peak_norm(self) -> float:
        """The largest finite gradient norm."""
        norms = [record.grad_norm_max for record in self.records]
        norms += [norm for _, norm in self.last_record.last_steps]
        return max((norm for norm in norms if math.isfinite(norm)), default=math.nan)

    @cached_property
    def norm_growth(self) -> float:
        """Growth of the norm before a break: the last finite one over the lowest one."""
        steps = self.last_record.last_steps
        norms = [norm for _, norm in steps if math.isfinite(norm) and norm > 0]
        return norms[-1] / min(norms) if len(norms) > 1 else math.nan

    @cached_property
    def norm_noise(self) -> float:
        """The largest over the median gradient norm of an epoch, in the median epoch."""
        ratios = [
            record.grad_norm_max / record.grad_norm_median
            for record in self.complete_epochs
            if record.grad_norm_median > 0
        ]
        return median(ratios or [math.nan])

    @cached_property
    def clipped_share(self) -> float:
        """The share of the steps in which the gradient was clipped, in the median epoch."""
        return median([record.clipped_share for record in self.records])

    @cached_property
    def dice_share(self) -> float:
        """Dice's share of the gradient at the logits, of the epochs that trained Dice."""
        shares = [
            record.grad_shares["dice"]
            for record in self.records
            if record.dice_loss is not None and "dice" in record.grad_shares
        ]
        return median(shares or [0.0])

    @cached_property
    def class_shares(self) -> tuple[float, ...]:
        """Each class's mean share of the gradient at the logits; empty where not measured."""
        measured = [
            [share or 0.0 for share in record.class_grad_shares]
            for record in self.records
            if record.class_grad_shares
        ]
        return tuple(fmean(column) for column in zip(*measured, strict=True))

    # ── classes ──

    @cached_property
    def class_frequencies(self) -> tuple[float, ...]:
        """Each class's share of the training pixels; empty where the counts are not known."""
        if self.counts is None or not sum(self.counts.counts):
            return ()
        total = sum(self.counts.counts)
        return tuple(count / total for count in self.counts.counts)

    @cached_property
    def present_classes(self) -> tuple[int, ...]:
        """Indices of the classes that the validation split contains."""
        if not self.complete_epochs:
            return ()
        last = self.complete_epochs[-1].class_metric
        return tuple(index for index, value in enumerate(last) if value is not None)

    def recognized_classes(self, level: float) -> tuple[int, ...]:
        """Present classes whose metric exceeded the level, and chance, in three epochs or more.

        Predicting a class everywhere gives it an IoU of its frequency f, and an F1 of 2f/(1 + f).
        The metric has to exceed that by far: by 0.6 times, or by a fifth of what is left to 1.
        Where no frequency is known, the class with the highest metric does not count.
        """
        columns = {
            index: sorted((record.class_metric[index] or 0.0) for record in self.complete_epochs)
            for index in self.present_classes
        }
        # The third highest: a single epoch may exceed chance by chance.
        highest = {index: column[-LAST:][0] for index, column in columns.items()}
        shares = dict(enumerate(self.class_frequencies or self.data.target_shares))
        if not shares and highest:
            shares = {max(highest, key=lambda index: highest[index]): 1.0}
        return tuple(
            index
            for index, value in highest.items()
            if value > max(level, self._above_chance(shares.get(index, 0.0)))
        )

    def _above_chance(self, share: float) -> float:
        """The metric that a class of this share has only if it is recognized."""
        uses_f1 = "f1" in str(self.values.get("metric.name", ""))
        chance = 2 * share / (1 + share) if uses_f1 else share
        return min(1.6 * chance, chance + 0.2 * (1 - chance)) if chance < 1 else 1.0

    @property
    def unseen_classes(self) -> tuple[int, ...]:
        """Classes of the validation split that no training target had.

        A class so rare that the targets that are sampled may miss it does not count.
        """
        shares = self.class_frequencies
        return tuple(
            index
            for index in self.data.missing_classes
            if not (index < len(shares) and 0 < shares[index] < SAMPLED_SHARE)
        )

    @cached_property
    def dead_classes(self) -> tuple[int, ...]:
        """Present classes whose metric was 0, or nearly so, in each of the last epochs."""
        tail = self.complete_epochs[-LAST:]
        return tuple(
            index
            for index in self.present_classes
            if all((record.class_metric[index] or 0.0) < DEAD_LEVEL for record in tail)
        )

    @property
    def is_collapsed(self) -> bool:
        """Whether the model predicts a single class."""
        present = len(self.present_classes)
        return present > 2 and len(self.dead_classes) >= present - 1

    def class_name(self, index: int) -> str:
        """The name of a class, or `class 3` where names are not known."""
        if self.counts is not None and index < len(self.counts.names):
            return self.counts.names[index]
        return f"class {index}"

    def class_names(self, indices: Sequence[int]) -> str:
        """The names of some classes, separated by commas."""
        return ", ".join(map(self.class_name, indices))

    @cached_property
    def frequent_pull(self) -> float:
        """The frequent classes' share of the gradient over their share of the pixels."""
        indices = [index for index, share in enumerate(self.class_frequencies) if share > FREQUENT]
        if not indices or len(self.class_shares) != len(self.class_frequencies):
            return math.nan
        pixels = sum(self.class_frequencies[index] for index in indices)
        return sum(self.class_shares[index] for index in indices) / pixels

    @cached_property
    def classes_without_gradient(self) -> tuple[int, ...]:
        """Dead classes that get nearly no gradient, although the median class gets some."""
        shares = self.class_shares
        if len(shares) < 3:
            return ()
        return tuple(index for index in self.dead_classes if shares[index] < 0.02 * median(shares))


def _same_schedule(before: EpochRecord, after: EpochRecord) -> bool:
    """Whether the learning rate did not rise and no schedule changed the loss."""
    unchanged = all(getattr(before, name) == getattr(after, name) for name in SCHEDULED)
    return unchanged and after.lr <= 1.01 * before.lr
