"""Nothing in a training step asks the device for a number: operations that make a host wait on CUDA are forbidden here, on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from objectives.losses import (
    CombinedLoss,
    Criterion,
    LibraryLoss,
    NormalizedCombinedLoss,
    build_criterion,
    gradient_shares,
)
from objectives.training import metrics
from objectives.training.metrics import ConfusionMatrix
from spaces.config import LossConfig, WeightsConfig
from spaces.records import ClassCounts
from tests.unit.objectives.losses.references import IGNORED, batch

torch.set_num_threads(1)

COUNTS = ClassCounts(("a", "b", "c", "d"), (900, 90, 9, 1))
WAITING = {
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "equal",
    "nonzero",
    "nonzero_static",
    "masked_select",
    "bincount",
    "histc",
    "unique_dim",
    "_unique2",
    "unique_consecutive",
    "repeat_interleave",
    "_assert_async",
}
"""Operations of ATen that bring a number to the host, or whose output's size depends on the values."""

KINDS: dict[str, dict[str, Any]] = {
    "ce": {},
    "ce+dice": {"dice_weight": 0.4, "label_smoothing": 0.1},
    "focal+dice per image": {
        "kind": "focal",
        "dice_weight": 0.4,
        "dice_reduction": "image",
        "square_denominator": True,
    },
    "ce+focal+dice": {
        "kind": "ce_focal",
        "alpha_tau": 0.5,
        "dice_weight": 0.4,
        "label_smoothing": 0.1,
    },
}
every_kind = pytest.mark.parametrize("kind", KINDS)
either = pytest.mark.parametrize("normalize", [False, True])


READING = {Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.__array__}
"""Methods that copy to the host, which a CPU does without an operation of ATen."""


class NoReading(TorchFunctionMode):
    """Raises where a tensor would be copied to the host."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in READING:
            raise AssertionError(f"{func} makes the host wait for the device")
        return func(*args, **(kwargs or {}))


class NoWaiting(TorchDispatchMode):
    """Raises where a host would wait."""

    def __enter__(self) -> Self:
        self._reading = NoReading()
        self._reading.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)
        self._reading.__exit__(*problem)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in args[1]
        )
        if name in WAITING or masks:
            raise AssertionError(f"{func} makes the host wait for the device")
        return func(*args, **(kwargs or {}))


def made(kind: str, normalize: bool) -> Criterion:
    return build_criterion(
        LossConfig(**KINDS[kind], normalize=normalize),
        WeightsConfig(method="sqrt_inv_freq"),
        COUNTS,
        IGNORED,
        "cpu",
    )


class TestTheRule:
    @pytest.mark.parametrize(
        "look",
        [
            lambda x: x.sum().item(),
            lambda x: x.tolist(),
            lambda x: bool(x.sum() > 0),
            lambda x: x.nonzero(),
            lambda x: x[x > 0],
            lambda x: float(x.max()),
            lambda x: x.masked_select(x > 0),
            lambda x: torch.bincount(x.long().flatten()),
            lambda x: int(x.argmax()),
            lambda x: x.long().unique(),
            lambda x: x.cpu(),
            lambda x: x.detach().numpy(),
        ],
    )
    def test_bites(self, look: Callable[[Tensor], object]) -> None:
        """Each way to look at a tensor's values is found."""
        with pytest.raises(AssertionError, match="makes the host wait"), NoWaiting():
            look(torch.ones(3, 2))

    def test_lets_through(self) -> None:
        """Plain arithmetic is not."""
        with NoWaiting():
            assert torch.where(torch.ones(3) > 0, 1.0, 2.0).clamp_min(0).cumsum(0)[1:].shape == (2,)


class TestLosses:
    @every_kind
    @either
    def test_step(self, kind: str, normalize: bool) -> None:
        """Forward and backward of a combined loss, normalised or not, with weights, ignored and bad labels."""
        criterion, (logits, target) = made(kind, normalize), batch(dtype=torch.float32)
        target[0, 0, 0] = 99
        with NoWaiting():
            criterion(logits, target).total.backward()
        assert logits.grad is not None

    @every_kind
    @either
    def test_gathered(self, kind: str, normalize: bool) -> None:
        """Gathering the sums of a large batch, and a share of it."""
        criterion, batches = (
            made(kind, normalize),
            [batch(seed, dtype=torch.float32) for seed in range(3)],
        )
        with NoWaiting():
            others = criterion.pooled(batches)
            for logits, target in batches:
                criterion(logits, target, others).total.backward()

    @every_kind
    @either
    def test_shares(self, kind: str, normalize: bool) -> None:
        """Who pulls at the logits."""
        criterion, (logits, target) = made(kind, normalize), batch(dtype=torch.float32)
        with NoWaiting():
            gradient_shares(criterion, logits, target)

    def test_looks_once_an_epoch(self) -> None:
        """What does look is what is asked for once an epoch: the labels' range, and what is used."""
        criterion = made("ce+focal+dice", normalize=True)
        for look in (criterion.check_targets, criterion.used):
            with pytest.raises(AssertionError, match="makes the host wait"), NoWaiting():
                look()

    def test_exception(self) -> None:
        """The library's Lovász loss is the exception: it picks the valid pixels out, and asks each class whether it is there."""
        logits, target = batch(dtype=torch.float32)
        criterion = CombinedLoss(made_main(), LibraryLoss("lovasz", ignore_index=IGNORED))
        with pytest.raises(AssertionError, match="makes the host wait"), NoWaiting():
            criterion(logits, target)

    @pytest.mark.parametrize("name", ["tversky", "jaccard", "soft_ce"])
    def test_library(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its other losses do not wait; the one-hot form that two of them make checks its labels on a CPU only."""
        monkeypatch.setattr(torch.nn.functional, "one_hot", one_hot_as_on_cuda)
        logits, target = batch(dtype=torch.float32)
        loss = LibraryLoss(name, smooth=1.0, label_smoothing=0.1, ignore_index=IGNORED)
        with NoWaiting():
            loss(logits, target).backward()


class TestMetrics:
    def test_update(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Counting a batch, the way it is counted on CUDA; a CPU's faster way to count, which looks, is for CPUs alone."""
        monkeypatch.setattr(metrics, "count_values", metrics._count_values_by_scatter)
        logits, target = batch(dtype=torch.float32)
        target[0, 0, 0] = 99
        matrix = ConfusionMatrix(4, IGNORED)
        with NoWaiting():
            matrix.update(logits, target)
        assert matrix.bad_targets() == 1

    def test_cuda_takes_that_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Indices that say they are on CUDA are counted by scattering."""
        monkeypatch.setattr(
            metrics, "_count_values_by_scatter", lambda index_P, bins: ("scattered", bins)
        )
        assert metrics.count_values(OnCuda(), 7) == ("scattered", 7)  # type: ignore[arg-type, comparison-overlap]


class OnCuda:
    """All that is asked of it."""

    is_cuda = True


def one_hot_as_on_cuda(labels: Tensor, classes: int) -> Tensor:
    """Torch's, without the look at the labels that it takes on a CPU."""
    return torch.zeros(*labels.shape, classes, dtype=torch.int64).scatter_(
        -1, labels.unsqueeze(-1), 1
    )


def made_main() -> Any:
    criterion = made("ce", normalize=False)
    assert not isinstance(criterion, NormalizedCombinedLoss)
    return criterion.main
