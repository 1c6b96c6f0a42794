"""Metrics that no searched hyperparameter rescales, from a confusion matrix on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from objectives.losses.softmax import flatten_elements, iterate_pieces
from spaces.errors import ConfigError

PerClass = tuple[float | None, ...]
"""One value per class; None for a class that the split does not contain."""


class ConfusionMatrix:
    """Counts of (true class, predicted class), summed over batches without waiting for the device.

    Two additional rows count the pixels that are left out: those ignored, and those whose label is
    no class. So no batch is searched for bad labels, and one read per epoch gives their number.

    Args:
        classes: number of classes C.
        ignore_index: label of the pixels that are left out.
        device: of the counts and of the batches.

    Raises:
        ConfigError: when `classes` is below 1, or the shapes of a batch do not match.
    """

    def __init__(self, classes: int, ignore_index: int, device: torch.device | str = "cpu") -> None:
        if classes < 1:
            raise ConfigError(
                f"a confusion matrix needs at least 1 class, but got {classes}",
                found=str(classes),
                allowed="1 or more",
            )
        self.classes = classes
        self.ignore_index = ignore_index
        self._counts = torch.zeros((classes + 2) * classes, dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count one batch.

        Args:
            prediction: logits (N, C, …) of any floating type, or predicted classes (N, …), each of
                them in 0 … C−1.
            target: labels (N, …), integers.
        """
        if not prediction.is_floating_point():
            self._check_shape(target.shape, prediction)
            self._count_pixels(prediction, target)
            return
        self._check_shape((*target.shape[:1], self.classes, *target.shape[1:]), prediction)
        z_NCL = flatten_elements(prediction)
        target_NL = target.reshape(z_NCL.shape[0], z_NCL.shape[2])
        for ns, ls in iterate_pieces(z_NCL):
            self._count_pixels(_largest_class(z_NCL[ns, :, ls]), target_NL[ns, ls])

    def _count_pixels(self, prediction: Tensor, target: Tensor) -> None:
        """Count predicted and true classes of one shape."""
        target_P = target.reshape(-1).long()
        prediction_P = prediction.reshape(-1).long()
        known_P = (target_P >= 0) & (target_P < self.classes)
        row_P = torch.where(known_P, target_P, self.classes + 1)
        row_P = torch.where(target_P == self.ignore_index, self.classes, row_P)
        self._counts += count_values(row_P * self.classes + prediction_P, len(self._counts))

    def matrix(self) -> Tensor:
        """Return (C, C) counts on the CPU, int64: rows are true classes, columns predicted ones."""
        return self._counts.view(-1, self.classes)[: self.classes].cpu()

    def bad_targets(self) -> int:
        """Return how many labels were neither a class nor the ignored label."""
        return int(self._counts.view(-1, self.classes)[self.classes + 1].sum())

    def iou(self) -> PerClass:
        """Return intersection over union TP/(TP + FP + FN) of every class."""
        hits, true, predicted = self._read_margins()
        return tuple(
            h / (t + p - h) if t else None for h, t, p in zip(hits, true, predicted, strict=True)
        )

    def f1(self) -> PerClass:
        """Return F1 = 2·TP/(2·TP + FP + FN) of every class."""
        hits, true, predicted = self._read_margins()
        return tuple(
            2 * h / (t + p) if t else None for h, t, p in zip(hits, true, predicted, strict=True)
        )

    def mean_iou(self) -> float:
        """Return the mean IoU over the classes that the split contains; NaN if there are none."""
        return _mean_known(self.iou())

    def macro_f1(self) -> float:
        """Return the mean F1 over the classes that the split contains; NaN if there are none."""
        return _mean_known(self.f1())

    def pixel_accuracy(self) -> float:
        """Return the share of valid pixels (or samples) that are right; NaN if there are none."""
        hits, true, _ = self._read_margins()
        return sum(hits) / sum(true) if sum(true) else math.nan

    def _read_margins(self) -> tuple[list[int], list[int], list[int]]:
        """Return hits, true pixels and predicted pixels of every class, as Python integers."""
        matrix = self.matrix()
        return matrix.diagonal().tolist(), matrix.sum(1).tolist(), matrix.sum(0).tolist()

    @staticmethod
    def _check_shape(expected: Sequence[int], prediction: Tensor) -> None:
        if tuple(prediction.shape) != tuple(expected):
            found = str(tuple(prediction.shape))
            allowed = str(tuple(expected))
            raise ConfigError(
                f"predictions have shape {found}, but {allowed} was expected",
                found=found,
                allowed=allowed,
            )


def _largest_class(z_nCl: Tensor) -> Tensor:
    """Return the first of the largest classes, (N, L), as argmax does.

    If neighbors in memory are of one class, a CPU finds the largest value fast and its index
    slowly. So the index is looked up: the first class with that value is the one with the highest
    rank, counted from the last class.
    """
    classes = z_nCl.shape[1]
    if z_nCl.device.type != "cpu" or z_nCl.stride(1) == 1 or classes > 255:
        return z_nCl.max(1)[1]
    rank_C1 = torch.arange(classes, 0, -1, dtype=torch.uint8).unsqueeze(1)
    highest = (z_nCl == z_nCl.amax(1, keepdim=True)).view(torch.uint8).mul_(rank_C1).amax(1)
    return classes - highest.clamp_min_(1)  # 0 where NaN equals nothing


def count_values(index_P: Tensor, bins: int) -> Tensor:
    """Count how often each of 0 … bins−1 occurs."""
    if index_P.is_cuda:  # bincount would read the largest index and so wait for the device
        return _count_values_by_scatter(index_P, bins)
    return torch.bincount(index_P, minlength=bins)


def _count_values_by_scatter(index_P: Tensor, bins: int) -> Tensor:
    counts = torch.zeros(bins, dtype=torch.int64, device=index_P.device)
    return counts.scatter_add_(0, index_P, torch.ones_like(index_P))


def _mean_known(values: PerClass) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan
