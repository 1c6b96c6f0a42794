"""One pass over a split: confusion matrix, the trial's own criterion, and the plain cross entropy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from objectives.data.loading import Batch
from objectives.losses import CombinedLoss, Criterion, functional
from objectives.training.metrics import ConfusionMatrix
from spaces.errors import DataError

Metrics = Mapping[str, Callable[[ConfusionMatrix], float]]
"""Name → how a metric is read from the confusion matrix."""


@dataclass(frozen=True)
class Validation:
    """`loss` is the trial's criterion, `ce` the unweighted cross entropy, both as means over the split."""

    loss: float
    ce: float
    metrics: Mapping[str, float]
    class_iou: tuple[float | None, ...]
    class_f1: tuple[float | None, ...]


def plain_loss(criterion: Criterion) -> CombinedLoss:
    """The criterion as it is before it is normalised: a normalised loss has a scale that moves from epoch to epoch."""
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
        metrics: what is read from the confusion matrix, besides the plain cross entropy `val_ce`.

    Raises:
        DataError: when a target is neither a class nor ignored.
    """
    device = next(model.parameters()).device
    plain = plain_loss(criterion)
    matrix = ConfusionMatrix(classes, ignore_index, device)
    loss_sum, ce_sum, samples, valid = (
        torch.zeros((), dtype=torch.float64, device=device) for _ in range(4)
    )
    model.eval()
    for inputs, target in batches:
        logits = model(inputs).float()
        matrix.update(logits, target)
        batch = functional.prepare(logits, target, ignore_index)
        ce_sum += batch.nll_NL.sum(dtype=torch.float64)
        valid += batch.count_NC.sum()
        loss_sum += plain(logits, target).total.double() * len(target)
        samples += len(target)
    if bad := matrix.bad_targets():
        raise DataError(
            "targets hold values that are no class",
            found=f"{bad} labels",
            allowed=f"0 … {classes - 1} or {ignore_index}",
            next_step="check the labels against base.data.classes",
        )
    ce = float(ce_sum / valid.clamp(min=1))
    found = {name: measure(matrix) for name, measure in metrics.items()} | {"val_ce": ce}
    return Validation(float(loss_sum / samples.clamp(min=1)), ce, found, matrix.iou(), matrix.f1())
