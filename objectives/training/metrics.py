"""Metrics that no searched hyperparameter rescales, all read from one confusion matrix that is counted on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from objectives.losses.softmax import elements, pieces
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
            raise ConfigError(
                f"a confusion matrix needs at least 1 class, but got {classes}",
                found=str(classes),
                allowed="1 or more",
            )
        self.classes, self.ignore_index = classes, ignore_index
        self._counts = torch.zeros((classes + 2) * classes, dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count one batch.

        Args:
            prediction: logits (N, C, …) of any floating type, or predicted classes (N, …), each of them in 0 … C−1.
            target: labels (N, …), integers.
        """
        if not prediction.is_floating_point():
            self._check(target.shape, prediction)
            self._count(prediction, target)
            return
        self._check((*target.shape[:1], self.classes, *target.shape[1:]), prediction)
        z_NCL = elements(prediction)
        target_NL = target.reshape(z_NCL.shape[0], z_NCL.shape[2])
        for ns, ls in pieces(z_NCL):
            self._count(_largest(z_NCL[ns, :, ls]), target_NL[ns, ls])

    def _count(self, prediction: Tensor, target: Tensor) -> None:
        """Count predicted and true classes of one shape."""
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
        return tuple(
            h / (t + p - h) if t else None for h, t, p in zip(hits, true, predicted, strict=True)
        )

    def f1(self) -> PerClass:
        """F1 = 2·TP/(2·TP + FP + FN) of every class."""
        hits, true, predicted = self._margins()
        return tuple(
            2 * h / (t + p) if t else None for h, t, p in zip(hits, true, predicted, strict=True)
        )

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
            raise ConfigError(
                f"predictions have shape {found}, but {allowed} was expected",
                found=found,
                allowed=allowed,
            )


def _largest(z_nCl: Tensor) -> Tensor:
    """The first of the largest classes, (N, L), as argmax has it.

    Where neighbours in memory are of one class a CPU finds the largest value at once and its place slowly, so the place
    is looked up: the first class that has the value is the one with the largest rank, counted from the last.
    """
    classes = z_nCl.shape[1]
    if z_nCl.device.type != "cpu" or z_nCl.stride(1) == 1 or classes > 255:
        return z_nCl.max(1)[1]
    rank_C1 = torch.arange(classes, 0, -1, dtype=torch.uint8).unsqueeze(1)
    highest = (z_nCl == z_nCl.amax(1, keepdim=True)).view(torch.uint8).mul_(rank_C1).amax(1)
    return classes - highest.clamp_min_(1)  # 0 where NaN equals nothing


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
