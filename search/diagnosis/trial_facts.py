"""Facts of one trial that its course and its configuration show by themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from search.diagnosis.data_facts import DataFacts
from spaces.config import Direction
from spaces.records import ClassCounts, EpochRecord, Evidence, best_record
from spaces.thresholds import SLOW_SIGNALS

FEW_SAMPLES = 50
"""Samples per epoch below which a training split is easily memorized."""


@dataclass(frozen=True)
class TrialFacts:
    """What a trial was and how far it got. Epochs that broke off count only where that is said.

    Attributes:
        records: of the trial, in order of epochs; at least one.
        values: the configuration by dotted path.
        evidence: of the signal that ended the trial; None where no signal fired.
        counts: pixels of the classes in the training split, where they are known.
    """

    records: Sequence[EpochRecord]
    values: Mapping[str, Any]
    evidence: Evidence | None = None
    counts: ClassCounts | None = None

    @cached_property
    def data(self) -> DataFacts:
        """Facts about the data that was trained on."""
        return DataFacts(self.records, self.counts)

    @cached_property
    def complete_epochs(self) -> Sequence[EpochRecord]:
        """Records of the epochs that did not break off and have a finite metric."""
        return [
            record
            for record in self.records
            if record.broken_step is None and math.isfinite(record.metric)
        ]

    @property
    def last_record(self) -> EpochRecord:
        """The latest record, whether its epoch broke off or not."""
        return self.records[-1]

    @property
    def broke_off(self) -> bool:
        """Whether the trial ended at a broken step."""
        return self.last_record.broken_step is not None

    @property
    def signal_name(self) -> str:
        """Name of the signal that ended the trial; empty where no signal fired."""
        return "" if self.evidence is None else self.evidence.signal

    # ── progress ──

    @property
    def direction(self) -> Direction:
        """Whether the study's metric is maximized or minimized."""
        return "minimize" if self.values.get("metric.direction") == "minimize" else "maximize"

    @property
    def planned_epochs(self) -> int:
        """Number of epochs that the trial was to train."""
        return int(self.number("epochs", self.last_record.epoch))

    @property
    def ended_early(self) -> bool:
        """Whether a signal or a broken step ended the trial."""
        return self.evidence is not None or self.broke_off

    @cached_property
    def best_epoch(self) -> int:
        """The epoch with the best metric; 0 where no epoch is complete."""
        epochs = self.complete_epochs
        return best_record(epochs, self.direction).epoch if epochs else 0

    @property
    def best_is_last(self) -> bool:
        """Whether the last complete epoch is the best one, and not the only one."""
        epochs = self.complete_epochs
        return len(epochs) > 1 and self.best_epoch == epochs[-1].epoch

    @property
    def is_still_improving(self) -> bool:
        """Whether the best epoch is the last one, and no signal found that nothing improves.

        The signal counts gains within its margin as none, so the two would contradict each other.
        """
        return self.best_is_last and self.signal_name not in SLOW_SIGNALS

    @cached_property
    def recent_fall(self) -> float:
        """Share by which the cross entropy (or focal) loss fell in the last third of the epochs."""
        losses = [record.ce_loss for record in self.complete_epochs]
        if len(losses) < 3 or not losses[-1] > 0:
            return math.nan
        before = losses[-1 - max(1, len(losses) // 3)]
        return 1 - losses[-1] / before if before > 0 else math.nan

    # ── configuration ──

    @property
    def uses_class_weights(self) -> bool:
        """Whether the trial may weight classes; a custom objective often does not."""
        is_weighted = any(record.weight_ratio != 1 for record in self.records)
        return is_weighted or "weights.method" in self.values

    @property
    def uses_dice(self) -> bool:
        """Whether the loss may contain Dice; that of a custom objective often does not."""
        has_part = any(record.dice_loss is not None for record in self.records)
        return has_part or "loss.dice_weight" in self.values

    @property
    def loss_name(self) -> str:
        """What the records' `ce_loss` is: that of a custom objective need be no cross entropy."""
        if "loss.kind" not in self.values and not self.uses_dice:
            return "training loss"
        return "focal loss" if self.uses_focal_loss else "cross entropy"

    def number(self, path: str, default: float) -> float:
        """A number of the configuration; the default where it is missing or null."""
        value = self.values.get(path)
        return default if value is None else float(value)

    @property
    def lr_multiple(self) -> float:
        """The learning rate as a multiple of the base rate."""
        return self.number("optimizer.lr_multiple", 1.0)

    @property
    def rate_text(self) -> str:
        """The configured learning rate, and its multiple of the base rate, in words."""
        if "optimizer.lr_multiple" not in self.values:
            return "no multiple of a base rate is configured"
        times = f"{self.lr_multiple:.3g} times the base rate"
        base = self.values.get("optimizer.base_lr")
        if base is None:
            return f"the learning rate was {times}"
        return f"the learning rate was {float(base) * self.lr_multiple:.4g}, {times}"

    @property
    def grad_clip_norm(self) -> float | None:
        """The norm at which gradients are clipped; None for no clipping."""
        return self.values.get("optimizer.grad_clip_norm")

    @property
    def samples_per_step(self) -> int:
        """Samples per optimizer step, accumulated batches included."""
        return int(self.number("batch_size", 8) * self.number("optimizer.accumulate", 1))

    @property
    def samples_per_epoch(self) -> int:
        """Samples that an epoch trained on; 0 where steps or batch size are not known."""
        known = "batch_size" in self.values
        return self.last_record.steps * self.samples_per_step if known else 0

    @property
    def has_few_samples(self) -> bool:
        """Whether an epoch has so few samples that a model easily memorizes them."""
        return 0 < self.samples_per_epoch < FEW_SAMPLES

    @property
    def dice_weight(self) -> float:
        """The weight that Dice has in the loss once the schedule has settled."""
        return self.number("loss.dice_weight", 0.0)

    @property
    def dice_missing(self) -> float:
        """Share of the planned epochs in which Dice has less than half of its final weight.

        A trial that ended within a usual warm-up had no time for Dice, and that is no fault of the
        warm-up. 0 for a trial of fewer than five epochs.
        """
        if self.dice_weight <= 0 or len(self.records) < 5:
            return 0.0
        missing = sum(record.dice_weight < 0.5 * self.dice_weight for record in self.records)
        planned = max(self.planned_epochs, len(self.records))
        if missing == len(self.records):
            ce_only = self.number("schedule.dice_ce_only_epochs", 0)
            ramp = self.number("schedule.dice_ramp_epochs", 0)
            missing = max(missing, min(planned, round(ce_only + ramp / 2)))
        return missing / planned

    @property
    def uses_focal_loss(self) -> bool:
        """Whether the loss contains a focal term."""
        return self.values.get("loss.kind") in ("focal", "ce_focal")
