"""Segmentation: the data, model and metrics with which `objectives.training.loop` trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from objectives.contract import Checkpoints
from objectives.data import build
from objectives.data.loading import SegmentationData
from objectives.losses.build import check_alpha
from objectives.segmentation.config import SegmentationConfig
from objectives.segmentation.model import build_model, check_size
from objectives.training import rate_probe
from objectives.training.loop import Training, run_training
from objectives.training.metrics import ConfusionMatrix, PerClass
from objectives.training.readback import used_dropout
from objectives.training.validation import Metrics, Validation
from spaces.rate_probe import ProbeStep
from spaces.records import ClassCounts, EpochRecord

METRICS: Metrics = {
    "miou": ConfusionMatrix.mean_iou,
    "pixel_accuracy": ConfusionMatrix.pixel_accuracy,
    "macro_f1": ConfusionMatrix.macro_f1,
}


def fingerprint(config: SegmentationConfig) -> str:
    """Identify the data that class counts belong to; changes when the data do."""
    return build.fingerprint(config.data)


def count_classes(config: SegmentationConfig) -> ClassCounts:
    """Count the valid training pixels of every class.

    Raises:
        DataError: when a mask contains a value that is neither a class nor ignored.
    """
    return build.count_classes(config.data)


def prepare(config: SegmentationConfig, device: str) -> SegmentationData:
    """Load the data, after checking that the model can be built and accepts their size.

    Raises:
        DataError: when the data cannot be read.
        ConfigError: when the model cannot be built, or alpha does not fit the classes.
    """
    data = build.build_data(config.data)
    check_alpha(config.loss, data.class_names)
    crop = getattr(config.data, "crop", None) or (data.height, data.width)
    with torch.random.fork_rng(devices=[]):
        model = build_model(config.model, data.channels, len(data.class_names))
    for size in {(data.height, data.width), crop}:
        check_size(model, *size)
    return data


def train(
    config: SegmentationConfig,
    data: SegmentationData,
    counts: ClassCounts,
    device: str,
    checkpoints: Checkpoints,
) -> Iterator[EpochRecord]:
    """Train and yield one record per epoch; see `objectives.training.loop.run_training`.

    Raises:
        OutOfMemoryError: when the device or the host does not have enough memory.
    """
    return run_training(
        lambda: Run(config, data, counts, torch.device(device), checkpoints), device, checkpoints
    )


def probe_rates(
    config: SegmentationConfig, data: SegmentationData, counts: ClassCounts, device: str
) -> Iterator[ProbeStep]:
    """Train with a growing learning rate; see `objectives.training.rate_probe.probe_rates`.

    Raises:
        OutOfMemoryError: when the device or the host does not have enough memory.
    """
    return rate_probe.probe_rates(lambda: Run(config, data, counts, torch.device(device)), device)


class Run(Training):
    """One training of a segmentation model."""

    def __init__(
        self,
        config: SegmentationConfig,
        data: SegmentationData,
        counts: ClassCounts,
        device: torch.device,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        model = build_model(config.model, data.channels, len(data.class_names)).to(device)
        used = _used_model(config, model)
        super().__init__(config, model, data, counts, METRICS, checkpoints, used)

    def class_metric(self, validation: Validation) -> PerClass:
        """Return F1 of every class if the study's metric is macro-F1, IoU otherwise."""
        if self.config.metric.name == "macro_f1":
            return validation.class_f1
        return validation.class_iou


def _used_model(config: SegmentationConfig, model: nn.Module) -> dict[str, Any]:
    named = config.model.model_dump(exclude={"options", "dropout"})
    used = {f"model.{name}": value for name, value in named.items()}
    return used | used_dropout(config.model.dropout, model)
