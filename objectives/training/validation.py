"""Validation: confusion matrix, criterion and plain cross entropy in one pass over a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from objectives.data.loading import Batch
from objectives.losses import CombinedLoss, Criterion
from objectives.losses.batch_sums import prepare_batch
from objectives.training.metrics import ConfusionMatrix
from spaces.errors import DataError

Metrics = Mapping[str, Callable[[ConfusionMatrix], float]]
"""Name → function that computes a metric from the confusion matrix."""


@dataclass(frozen=True)
class Validation:
    """Measurements of one split.

    Attributes:
        loss: the trial's criterion, mean over the split.
        ce: unweighted cross entropy, mean over the split.
        metrics: name → value.
        class_iou: IoU of every class; None for a class that the split does not contain.
        class_f1: F1 of every class; None likewise.
    """

    loss: float
    ce: float
    metrics: Mapping[str, float]
    class_iou: tuple[float | None, ...]
    class_f1: tuple[float | None, ...]

    @classmethod
    def missing(cls, metrics: Metrics, classes: int) -> Validation:
        """Make the result of an epoch that is not validated: NaN, and None for every class."""
        nothing = (None,) * classes
        nan = dict.fromkeys((*metrics, "val_ce"), math.nan)
        return cls(math.nan, math.nan, nan, nothing, nothing)


def plain_loss(criterion: Criterion) -> CombinedLoss:
    """Return the criterion without normalization, whose scale changes from epoch to epoch."""
    return criterion if isinstance(criterion, CombinedLoss) else criterion.combined


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[Batch],
    criterion: Criterion,
    classes: int,
    ignore_index: int,
    metrics: Metrics,
) -> Validation:
    """Measure the model on a split.

    Args:
        model: on its device.
        batches: of the split.
        criterion: of the trial, at the values of the epoch that it is set to.
        classes: number of classes.
        ignore_index: label of the elements that are left out.
        metrics: computed from the confusion matrix, in addition to plain cross entropy `val_ce`.

    Raises:
        DataError: when a target is neither a class nor `ignore_index`.
    """
    device = next(model.parameters()).device
    plain = plain_loss(criterion)
    matrix = ConfusionMatrix(classes, ignore_index, device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    ce_sum = torch.zeros_like(loss_sum)
    samples = torch.zeros_like(loss_sum)
    valid = torch.zeros_like(loss_sum)
    model.eval()
    for inputs, target in batches:
        logits = model(inputs).float()
        matrix.update(logits, target)
        batch = prepare_batch(logits, target, ignore_index)
        ce_sum += batch.nll_NL.sum(dtype=torch.float64)
        valid += batch.count_NC.sum()
        loss_sum += plain(logits, target).total.double() * len(target)
        samples += len(target)
    if bad := matrix.bad_targets():
        raise DataError(
            "targets contain values that are no class",
            found=f"{bad} labels",
            allowed=f"0 … {classes - 1} or {ignore_index}",
            next_step="check the labels against base.data.classes",
        )
    ce = float(ce_sum / valid.clamp(min=1))
    found = {name: measure(matrix) for name, measure in metrics.items()} | {"val_ce": ce}
    return Validation(float(loss_sum / samples.clamp(min=1)), ce, found, matrix.iou(), matrix.f1())
