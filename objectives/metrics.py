"""Metrics that no searched hyperparameter rescales, all read from one confusion matrix that is counted on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spaces.errors import ConfigError

PerClass = tuple[float | None, ...]
"""One value per class; None for a class that the split does not hold, as its value would mean nothing."""


class ConfusionMatrix:
    """Counts of (true class, predicted class), summed over batches without waiting for the device.

    Two spare rows take the pixels that must not count: the ignored ones, and those whose label is no class at all.
    So every pixel lands somewhere, no batch is searched for bad labels, and one look an epoch tells how many there were.

    Args:
        classes: number of classes C.
        ignore_index: label of the pixels that are left out.
        device: where the counts live; the batches must be there, too.

    Raises:
        ConfigError: when `classes` is below 1, or a batch's shapes do not fit.
    """

    def __init__(self, classes: int, ignore_index: int, device: torch.device | str = "cpu") -> None:
        if classes < 1:
            raise ConfigError(f"a confusion matrix needs at least 1 class, but got {classes}", found=str(classes), allowed="1 or more")
        self.classes, self.ignore_index = classes, ignore_index
        self._counts = torch.zeros((classes + 2) * classes, dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count one batch.

        Args:
            prediction: logits (N, C, …) of any floating type, or predicted classes (N, …), each of them in 0 … C−1.
            target: labels (N, …), integers.
        """
        if prediction.is_floating_point():
            self._check((prediction.shape[0], self.classes, *prediction.shape[2:]), prediction)
            prediction = prediction.max(1)[1]  # the same as argmax, 3× faster on a CPU
        self._check(target.shape, prediction)
        target_P, prediction_P = target.reshape(-1).long(), prediction.reshape(-1).long()
        known_P = (target_P >= 0) & (target_P < self.classes)
        row_P = torch.where(known_P, target_P, self.classes + 1)
        row_P = torch.where(target_P == self.ignore_index, self.classes, row_P)
        self._counts += _histogram(row_P * self.classes + prediction_P, len(self._counts))

    def matrix(self) -> Tensor:
        """(C, C) counts on the CPU, int64: rows are true classes, columns predicted ones."""
        return self._counts.view(-1, self.classes)[: self.classes].cpu()

    def bad_targets(self) -> int:
        """How many labels were neither a class nor the ignored label."""
        return int(self._counts.view(-1, self.classes)[self.classes + 1].sum())

    def iou(self) -> PerClass:
        """Intersection over union TP/(TP + FP + FN) of every class."""
        hits, true, predicted = self._margins()
        return tuple(h / (t + p - h) if t else None for h, t, p in zip(hits, true, predicted, strict=True))

    def f1(self) -> PerClass:
        """F1 = 2·TP/(2·TP + FP + FN) of every class."""
        hits, true, predicted = self._margins()
        return tuple(2 * h / (t + p) if t else None for h, t, p in zip(hits, true, predicted, strict=True))

    def mean_iou(self) -> float:
        """The mean over the classes that the split holds; NaN when it holds none."""
        return _mean(self.iou())

    def macro_f1(self) -> float:
        """The mean F1 over the classes that the split holds; NaN when it holds none."""
        return _mean(self.f1())

    def pixel_accuracy(self) -> float:
        """The share of valid pixels (or samples) that are right; NaN when there is none."""
        hits, true, _ = self._margins()
        return sum(hits) / sum(true) if sum(true) else math.nan

    def _margins(self) -> tuple[list[int], list[int], list[int]]:
        """Hits, true pixels and predicted pixels of every class, as exact Python integers."""
        matrix = self.matrix()
        return matrix.diagonal().tolist(), matrix.sum(1).tolist(), matrix.sum(0).tolist()

    @staticmethod
    def _check(expected: Sequence[int], prediction: Tensor) -> None:
        if tuple(prediction.shape) != tuple(expected):
            found, allowed = str(tuple(prediction.shape)), str(tuple(expected))
            raise ConfigError(f"predictions have shape {found}, but {allowed} was expected", found=found, allowed=allowed)


def _histogram(index_P: Tensor, bins: int) -> Tensor:
    """How often each of 0 … bins−1 occurs."""
    if index_P.is_cuda:  # bincount would read the largest index back and so wait for the device
        return _histogram_by_scatter(index_P, bins)
    return torch.bincount(index_P, minlength=bins)


def _histogram_by_scatter(index_P: Tensor, bins: int) -> Tensor:
    counts = torch.zeros(bins, dtype=torch.int64, device=index_P.device)
    return counts.scatter_add_(0, index_P, torch.ones_like(index_P))


def _mean(values: PerClass) -> float:
    held = [value for value in values if value is not None]
    return sum(held) / len(held) if held else math.nan
