"""Batches in an order that depends on (seed, epoch) alone, so a resumed training sees what an unbroken one would."""

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
"""Inputs and targets: images_NCHW float32 and target_NHW int64, or tokens_NL int64 and target_N int64."""


class Split(Protocol):
    """A split that hands out whole batches (torch's loader calls `__getitems__` once a batch)."""

    def __len__(self) -> int: ...

    def __getitems__(self, keys: list[Key]) -> Batch | DataError:
        """Inputs and targets of the samples.

        An unreadable file is handed over as the error: raised in a decoding process it would arrive as a traceback.
        """


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set, decoded or ready to be decoded, that a worker keeps between trials."""

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
    """Batches of keys; shuffled by (seed, epoch) in training, in file order else."""

    def __init__(self, size: int, batch_size: int, seed: int | None) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
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
        # The short last batch of an epoch is left out in training: a batch of one breaks batch normalisation.
        if self.seed is not None and self.size >= self.batch_size:
            return self.size // self.batch_size
        return -(-self.size // self.batch_size)


class Batches:
    """One split as batches, epoch after epoch; the decoding processes live as long as this object.

    Args:
        seed: shuffles the training split; None keeps the order and leaves augmentation out.
        workers: processes that decode; 0 decodes in this one.
    """

    def __init__(
        self, split: Split, batch_size: int, seed: int | None, workers: int, device: torch.device
    ) -> None:
        self.batch_size = batch_size
        self._order = _EpochOrder(len(split), batch_size, seed)
        self._loader: DataLoader[Batch | DataError] = DataLoader(
            split,  # type: ignore[arg-type]
            batch_sampler=self._order,
            collate_fn=_as_is,  # type: ignore[arg-type]  # the split hands out whole batches
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            # One of its own: the loader draws from it, and torch's global one belongs to the training.
            generator=torch.Generator().manual_seed(0),
        )
        self._device = device

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._order)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of `epoch`, on the device; images in channels_last, which convolutions like best.

        Args:
            skip: so many batches from the start are left out, and not decoded either.
        """
        self._order.epoch, self._order.skipped = epoch, skip
        for batch in self._loader:
            if isinstance(batch, DataError):
                raise batch
            inputs, target = batch
            yield (
                inputs.to(
                    self._device,
                    non_blocking=True,
                    memory_format=torch.channels_last
                    if inputs.dim() == 4
                    else torch.preserve_format,
                ),
                target.to(self._device, non_blocking=True),
            )


def _as_is(batch: Batch | DataError) -> Batch | DataError:
    return batch
