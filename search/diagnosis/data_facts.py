"""Facts about the data that a trial trained on, from the figures that its records have of them.

A figure that was not recorded is NaN, None or empty, as in records of older versions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from spaces.records import ClassCounts, EpochRecord, InputFigures

ONE_VALUE = 1e-6
"""Deviation up to which a channel counts as constant: it is then rounding of float32."""

OVERSAMPLED = 1.4
"""Share of a class in training over that in the data above which it is sampled more often."""

SHIFTED = 0.4
"""Difference of two splits' means, in standard deviations, above which they differ."""

OTHER_CONTRAST = 1.7
"""Ratio of two splits' deviations above which, or below its inverse, they differ."""


@dataclass(frozen=True)
class DataFacts:
    """Facts about inputs and targets.

    Attributes:
        records: of the trial, in order of epochs; at least one.
        counts: pixels of the classes in the training split, where they are known.
    """

    records: Sequence[EpochRecord]
    counts: ClassCounts | None = None

    @cached_property
    def inputs(self) -> InputFigures | None:
        """Figures of the training images in the last epoch that measured them."""
        measured = [record.inputs for record in self.records if record.inputs is not None]
        return measured[-1] if measured else None

    @cached_property
    def val_inputs(self) -> InputFigures | None:
        """Likewise of the validation images."""
        measured = [record.val_inputs for record in self.records if record.val_inputs is not None]
        return measured[-1] if measured else None

    @property
    def constant_channels(self) -> int:
        """Number of channels that have the same value in every pixel."""
        if self.inputs is None:
            return 0
        return sum(deviation <= ONE_VALUE for deviation in self.inputs.deviation)

    @property
    def at_maximum(self) -> float:
        """Largest share of the pixels of a varying channel at their highest value."""
        return _largest_share(self.inputs, "at_maximum")

    @property
    def at_minimum(self) -> float:
        """Largest share of the pixels of a varying channel at their lowest value."""
        return _largest_share(self.inputs, "at_minimum")

    @property
    def carries_information(self) -> bool | None:
        """Whether the images vary and are not saturated; None where they were not measured."""
        if self.inputs is None:
            return None
        varies = self.inputs.constant < 0.1 and not self.constant_channels
        return varies and max(self.at_maximum, self.at_minimum) < 0.25

    @property
    def val_shift(self) -> float:
        """Largest difference of a channel's means, validation − training, in its deviations."""
        if self.inputs is None or self.val_inputs is None:
            return math.nan
        channels = zip(self.inputs.mean, self.val_inputs.mean, self.inputs.deviation, strict=False)
        shifts = [(val - train) / max(scale, ONE_VALUE) for train, val, scale in channels]
        return max(shifts, key=abs, default=math.nan)

    @property
    def val_contrast(self) -> float:
        """A channel's deviation in validation over that in training; the one furthest from 1."""
        if self.inputs is None or self.val_inputs is None:
            return math.nan
        channels = zip(self.inputs.deviation, self.val_inputs.deviation, strict=False)
        ratios = [val / train for train, val in channels if min(train, val) > ONE_VALUE]
        return max(ratios, key=lambda ratio: abs(math.log(ratio)), default=math.nan)

    @property
    def splits_differ(self) -> bool:
        """Whether the images of validation have another mean or deviation than in training."""
        shift, contrast = self.val_shift, self.val_contrast
        return abs(shift) > SHIFTED or contrast > OTHER_CONTRAST or contrast < 1 / OTHER_CONTRAST

    @cached_property
    def _epoch_shares(self) -> list[tuple[float, ...]]:
        """The shares of classes in each complete epoch: a few steps are no fair sample."""
        return [
            record.target_shares
            for record in self.records
            if record.target_shares and record.broken_step is None
        ]

    @cached_property
    def target_shares(self) -> tuple[float, ...]:
        """Each class's share of the targets that were trained on, in the median epoch."""
        measured = self._epoch_shares
        return tuple(median(column) for column in zip(*measured, strict=True))

    @cached_property
    def missing_classes(self) -> tuple[int, ...]:
        """Classes that validation contains and that no training target had in any epoch."""
        measured = self._epoch_shares
        present = self.records[-1].class_metric
        for record in self.records:
            if any(value is not None for value in record.class_metric):
                present = record.class_metric
        return tuple(
            index
            for index, column in enumerate(zip(*measured, strict=True))
            if not any(column) and index < len(present) and present[index] is not None
        )

    @cached_property
    def _least_shares(self) -> tuple[float, ...]:
        """Each class's smallest share of the targets in any epoch."""
        return tuple(min(column) for column in zip(*self._epoch_shares, strict=True))

    @cached_property
    def oversampled_classes(self) -> dict[int, float]:
        """Rare class → its share of the targets over its share in the data, where that is large.

        It is large in every epoch. Rare are the classes below the median frequency.
        """
        shares = self._least_shares
        if self.counts is None or len(self.counts.counts) != len(shares):
            return {}
        total = sum(self.counts.counts)
        known = [count / total for count in self.counts.counts if count]
        usual = median(known) if known else 0.0
        ratios = {
            index: share * total / count
            for index, (share, count) in enumerate(zip(shares, self.counts.counts, strict=True))
            if 0 < count <= usual * total
        }
        return {index: ratio for index, ratio in ratios.items() if ratio > OVERSAMPLED}

    @property
    def skipped_share(self) -> float:
        """Share of the optimizer steps that the loss scaler skipped."""
        skipped = sum(record.skipped_steps for record in self.records)
        steps = skipped + sum(record.steps for record in self.records)
        return skipped / steps if steps else 0.0

    @property
    def batch_norm_samples(self) -> int | None:
        """Smallest number of samples that batch normalization normalized; None if unknown."""
        known = [each.batch_norm_samples for each in self.records if each.batch_norm_samples]
        return min(known, default=None)


def _largest_share(inputs: InputFigures | None, name: str) -> float:
    """The largest value among the channels that are not constant; NaN where there is none."""
    if inputs is None:
        return math.nan
    shares = zip(getattr(inputs, name), inputs.deviation, strict=True)
    return max((share for share, spread in shares if spread > ONE_VALUE), default=math.nan)
