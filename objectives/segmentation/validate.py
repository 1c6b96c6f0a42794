"""One pass over a split: confusion matrix, the trial's own criterion, and the plain cross entropy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from objectives.data.loading import Batch
from objectives.losses import CombinedLoss, Criterion, functional
from objectives.metrics import ConfusionMatrix
from spaces.errors import DataError


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
def validate(model: nn.Module, batches: Iterable[Batch], criterion: Criterion, classes: int, ignore_index: int) -> Validation:
    """Measure the model on a split.

    Raises:
        DataError: when a target is neither a class nor ignored.
    """
    device = next(model.parameters()).device
    plain = plain_loss(criterion)
    matrix = ConfusionMatrix(classes, ignore_index, device)
    loss_sum, ce_sum, images, valid = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(4))
    model.eval()
    for images_NCHW, target_NHW in batches:
        logits_NCHW = model(images_NCHW).float()
        matrix.update(logits_NCHW, target_NHW)
        batch = functional.prepare(logits_NCHW, target_NHW, ignore_index)
        ce_sum += batch.nll_NL.sum(dtype=torch.float64)
        valid += batch.count_NC.sum()
        loss_sum += plain(logits_NCHW, target_NHW).total.double() * len(target_NHW)
        images += len(target_NHW)
    if bad := matrix.bad_targets():
        raise DataError("targets hold values that are no class", found=f"{bad} pixels", allowed=f"0 … {classes - 1} or {ignore_index}", next_step="check the masks against base.data.classes")
    ce = float(ce_sum / valid.clamp(min=1))
    metrics = {"miou": matrix.mean_iou(), "pixel_accuracy": matrix.pixel_accuracy(), "macro_f1": matrix.macro_f1(), "val_ce": ce}
    return Validation(float(loss_sum / images.clamp(min=1)), ce, metrics, matrix.iou(), matrix.f1())
