"""The order of an epoch, and the seeds of its augmentations."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from objectives.data.loading import Batch, Batches, Key

CPU = torch.device("cpu")


class Numbered:
    """A split whose images are their own index, and whose targets are the seeds of their augmentation."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, keys: list[Key]) -> Batch:
        index, seed = (torch.tensor(column).reshape(-1, 1, 1) for column in zip(*keys, strict=True))
        return index.float().unsqueeze(1), seed


def order(
    size: int = 20, batch_size: int = 4, seed: int | None = 7, epoch: int = 1
) -> list[list[int]]:
    """The samples of an epoch, batch by batch."""
    batches = Batches(Numbered(size), batch_size, seed, 0, CPU)
    return [
        [int(index) for index in images_NCHW.flatten()] for images_NCHW, _ in batches.epoch(epoch)
    ]


def seeds(seed: int | None, epoch: int) -> list[int]:
    """The augmentation seeds of an epoch."""
    return [
        int(one)
        for _, target_NHW in Batches(Numbered(20), 4, seed, 0, CPU).epoch(epoch)
        for one in target_NHW.flatten()
    ]


class TestTraining:
    def test_all(self) -> None:
        """Every sample comes once an epoch, shuffled."""
        flat = [index for batch in order() for index in batch]
        assert sorted(flat) == list(range(20))
        assert any(a > b for a, b in pairwise(flat))

    def test_seed_and_epoch(self) -> None:
        """The order follows from seed and epoch alone."""
        assert order() == order()
        assert len({str(order(seed=seed, epoch=epoch)) for seed in (7, 8) for epoch in (1, 2)}) == 4

    def test_in_the_middle(self) -> None:
        """An epoch that is asked for out of turn is the same, also from an object that served others before."""
        batches = Batches(Numbered(20), 4, 7, 0, CPU)
        list(batches.epoch(1))
        assert [images_NCHW.flatten().tolist() for images_NCHW, _ in batches.epoch(5)] == order(
            epoch=5
        )

    def test_augmentation(self) -> None:
        """Each sample has a seed of its own in each epoch, never 0, which would mean none."""
        first, second = seeds(7, 1), seeds(7, 2)
        assert len({*first, *second}) == 40
        assert 0 not in first
        assert first == seeds(7, 1)

    @pytest.mark.parametrize(
        ("size", "batch_size", "lengths"),
        [(20, 8, [8, 8]), (16, 8, [8, 8]), (5, 8, [5]), (8, 8, [8])],
    )
    def test_short_batch(self, size: int, batch_size: int, lengths: list[int]) -> None:
        """The short last batch is left out, unless it is the only one."""
        assert list(map(len, order(size, batch_size))) == lengths
        assert len(Batches(Numbered(size), batch_size, 7, 0, CPU)) == len(lengths)

    def test_generator(self) -> None:
        """An epoch draws nothing from torch's global generator."""
        torch.manual_seed(1)
        before = torch.get_rng_state()
        order()
        assert torch.equal(torch.get_rng_state(), before)


class TestValidation:
    def test_in_order(self) -> None:
        """Without a seed all samples come in their order, the short last batch too, and are not augmented."""
        assert order(10, 4, None) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert set(seeds(None, 3)) == {0}
