"""Figures of the data that an epoch trained on, by which a diagnosis recognizes unusable data.

Sums are kept on the device and read once per epoch. Images are measured in the first steps only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from objectives.data.loading import Batch
from objectives.training.metrics import count_values
from spaces.records import InputFigures

MOST_TARGETS = 65_536
"""Targets of a batch that are counted; of more, evenly spaced ones, which takes microseconds."""

PER_CHANNEL = 4
"""Numbers per channel: mean, mean square, shares at the lowest and at the highest value."""


@dataclass
class DataFigures:
    """Sums over the batches of an epoch.

    Attributes:
        images: sums over the measured batches: `PER_CHANNEL` numbers for each channel, then the
            share of constant images; None before the first one, and for inputs that are no images.
        batches: how many batches `images` is the sum of.
        targets: number of counted targets of each class; None before the first batch.
    """

    images: Tensor | None = None
    batches: int = 0
    targets: Tensor | None = None

    def add_inputs(self, inputs: Tensor) -> None:
        """Measure a batch of images (N, C, H, W); other inputs are left out."""
        if inputs.dim() != 4 or not inputs.is_floating_point():
            return
        measured = measure_images(inputs)
        self.images = measured if self.images is None else self.images + measured
        self.batches += 1

    def add_targets(self, target: Tensor, classes: int, ignore_index: int) -> None:
        """Count the valid targets (N, …) of a batch by class."""
        flat = target.reshape(-1)
        # An odd distance, so that the counted pixels are not all in a few columns.
        flat = flat[:: -(-len(flat) // MOST_TARGETS) | 1].long()
        valid = (flat >= 0) & (flat < classes) & (flat != ignore_index)
        counts = count_values(torch.where(valid, flat, classes), classes + 1)[:classes]
        self.targets = counts if self.targets is None else self.targets + counts

    def watch_inputs(self, batches: Iterable[Batch], most: int) -> Iterator[Batch]:
        """Yield the batches, and measure the first ones."""
        for number, batch in enumerate(batches):
            if number < most:
                self.add_inputs(batch[0])
            yield batch

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint within an epoch stores."""
        return {"images": self.images, "batches": self.batches, "targets": self.targets}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> DataFigures:
        """Continue from the state of a checkpoint; one of an older version has none."""
        images = state.get("images")
        targets = state.get("targets")
        return cls(
            None if images is None else images.to(device),
            state.get("batches", 0),
            None if targets is None else targets.to(device),
        )


@torch.no_grad()
def measure_images(images_NCHW: Tensor) -> Tensor:
    """Measure one batch on its device, without waiting for it.

    Returns:
        (4·C + 1,) in float64: for each channel mean, mean square, and the shares of its pixels at
        its lowest and at its highest value; then the share of the images that have one value only.
    """
    x_NCHW = images_NCHW.detach().float()
    low_N, high_N = x_NCHW.amin((1, 2, 3)), x_NCHW.amax((1, 2, 3))
    low_C = x_NCHW.amin((0, 2, 3), keepdim=True)
    high_C = x_NCHW.amax((0, 2, 3), keepdim=True)
    # Squares in float64, as the deviation of a constant channel would not be 0 otherwise.
    means = [x_NCHW, x_NCHW.double().square(), x_NCHW == low_C, x_NCHW == high_C]
    per_channel = [mean.mean((0, 2, 3), dtype=torch.float64) for mean in means]
    constant = (low_N == high_N).double().mean()
    return torch.cat([torch.stack(per_channel, 1).flatten(), constant.unsqueeze(0)])


def read_figures(
    train: DataFigures, val: DataFigures
) -> tuple[InputFigures | None, InputFigures | None, tuple[float, ...]]:
    """Read the figures of an epoch, waiting for the device once.

    Returns:
        Figures of the images in training and in validation, None where none were measured or an
        image was not finite; and the share of each class among the training targets.
    """
    parts = [train.images, val.images, train.targets]
    known = [part.double() for part in parts if part is not None]
    numbers = iter(torch.cat(known).tolist() if known else ())
    read = [[next(numbers) for _ in range(0 if part is None else len(part))] for part in parts]
    total = sum(read[2])
    shares = tuple(count / total for count in read[2]) if total else ()
    return _make_figures(read[0], train.batches), _make_figures(read[1], val.batches), shares


def _make_figures(sums: list[float], batches: int) -> InputFigures | None:
    if not sums or not all(map(math.isfinite, sums)):
        return None
    *channels, constant = (number / batches for number in sums)
    mean, square, at_minimum, at_maximum = (
        tuple(channels[start::PER_CHANNEL]) for start in range(PER_CHANNEL)
    )
    pairs = zip(mean, square, strict=True)
    deviation = tuple(math.sqrt(max(0.0, second - first**2)) for first, second in pairs)
    return InputFigures(mean, deviation, at_minimum, at_maximum, constant)
