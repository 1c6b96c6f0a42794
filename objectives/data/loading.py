"""Batches in an order that depends on (seed, epoch) only, the same in a resumed training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from spaces.errors import DataError

Key = tuple[int, int]
"""Index of a sample, and the seed of its augmentation (0: none)."""

Batch = tuple[Tensor, Tensor]
"""Inputs and targets: images_NCHW float32 and target_NHW, or tokens_NL and target_N, all int64."""


class Split(Protocol):
    """A split that returns whole batches (torch's loader calls `__getitems__` once per batch)."""

    def __len__(self) -> int: ...

    def __getitems__(self, keys: list[Key]) -> Batch | DataError:
        """Return inputs and targets of the samples.

        The error of an unreadable file is returned: raised in a loader process it would arrive as a
        traceback.
        """


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set, decoded or ready to be decoded; a worker keeps it between trials."""

    train: Split
    val: Split
    test: Split | None
    class_names: tuple[str, ...]
    ignore_index: int
    loader_workers: int = 0


@dataclass(frozen=True, kw_only=True)
class SegmentationData(Data):
    """Images and their masks."""

    channels: int
    height: int
    width: int


class _EpochOrder(Sampler[list[Key]]):
    """Batches of keys: shuffled by (seed, epoch) in training, otherwise in file order."""

    def __init__(self, size: int, batch_size: int, seed: int | None) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = self.skipped = 0

    def __iter__(self) -> Iterator[list[Key]]:
        keys: list[Key] = [(index, 0) for index in range(self.size)]
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch])
            keys = [
                (int(index), int(rng.integers(1, 2**31))) for index in rng.permutation(self.size)
            ]
        for start in range(
            self.skipped * self.batch_size, len(self) * self.batch_size, self.batch_size
        ):
            yield keys[start : start + self.batch_size]

    def __len__(self) -> int:
        # Training leaves out an incomplete last batch: a batch of one breaks batch normalization.
        if self.seed is not None and self.size >= self.batch_size:
            return self.size // self.batch_size
        return -(-self.size // self.batch_size)


class Batches:
    """Batches of one split, epoch by epoch; loader processes live as long as this object.

    Args:
        split: which split.
        batch_size: samples per batch.
        seed: shuffles the training split; None keeps the order and does not augment.
        workers: loader processes; 0 decodes in this one.
        device: of the batches.
    """

    def __init__(
        self, split: Split, batch_size: int, seed: int | None, workers: int, device: torch.device
    ) -> None:
        self.batch_size = batch_size
        self._order = _EpochOrder(len(split), batch_size, seed)
        self._loader: DataLoader[Batch | DataError] = DataLoader(
            split,  # type: ignore[arg-type]
            batch_sampler=self._order,
            collate_fn=_return_unchanged,  # type: ignore[arg-type]  # a split returns whole batches
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            # The loader draws from it; torch's global generator is the training's.
            generator=torch.Generator().manual_seed(0),
        )
        self._device = device

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._order)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch on the device; images in channels_last, for speed.

        Args:
            epoch: counted from 1.
            skip: how many batches to skip at the start, without decoding them.
        """
        self._order.epoch = epoch
        self._order.skipped = skip
        for batch in self._loader:
            if isinstance(batch, DataError):
                raise batch
            inputs, target = batch
            images = inputs.dim() == 4
            layout = torch.channels_last if images else torch.preserve_format
            yield (
                inputs.to(self._device, non_blocking=True, memory_format=layout),
                target.to(self._device, non_blocking=True),
            )


def _return_unchanged(batch: Batch | DataError) -> Batch | DataError:
    return batch
