"""Batches that count as one large batch: their shares add up to its losses, and their gradients are its gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from objectives.losses import (
    CombinedLoss,
    Criterion,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    LossParts,
    NormalizedCombinedLoss,
)
from objectives.losses.batch_sums import Others
from tests.unit.objectives.losses.references import ALPHA_4, IGNORED, WEIGHT_4, batch

torch.set_num_threads(1)

Batches = list[tuple[Tensor, Tensor]]


def criterion(
    main: str = "ce",
    reduction: Any = "global",
    *,
    dice_weight: float = 0.4,
    normalize: bool = False,
    **dice: Any,
) -> Criterion:
    """Weighted and smoothed unless its name says plain."""
    weight, smoothing = (None, 0.0) if "plain" in main else (WEIGHT_4, 0.1)
    if "ce_focal" in main:
        part: CrossEntropyLoss | FocalLoss = FocalLoss(
            1.5, ALPHA_4, weight, ignore_index=IGNORED, label_smoothing=smoothing, share=0.3
        )
    elif "focal" in main:
        part = FocalLoss(1.5, ALPHA_4, weight, ignore_index=IGNORED, label_smoothing=smoothing)
    else:
        part = CrossEntropyLoss(weight, ignore_index=IGNORED, label_smoothing=smoothing)
    overlap = DiceLoss(2.0, reduction=reduction, ignore_index=IGNORED, **dice)
    combined = CombinedLoss(part, overlap, ce_weight=1 - dice_weight, dice_weight=dice_weight)
    return NormalizedCombinedLoss(combined, 0.9) if normalize else combined


def drawn(seed: int = 0, sizes: tuple[int, ...] = (2, 2, 2, 2), ignored: float = 0.3) -> Batches:
    """Batches of images (4 classes, 3 × 5)."""
    return [batch(seed + place, (size, 4, 3, 5), ignored) for place, size in enumerate(sizes)]


def one_large(loss: Criterion, batches: Batches) -> tuple[LossParts, list[Tensor]]:
    """The batches as one, and the gradient at each one's logits."""
    logits, target = torch.cat([x for x, _ in batches]), torch.cat([t for _, t in batches])
    parts = loss(logits, target)
    return parts, list(torch.autograd.grad(parts.total, [x for x, _ in batches]))


def in_shares(loss: Criterion, batches: Batches) -> tuple[LossParts, list[Tensor]]:
    """The sums of the shares, and the gradient at each one's logits."""
    others = loss.pooled(batches)
    shares = [loss(logits, target, others) for logits, target in batches]
    pulls = [
        torch.autograd.grad(parts.total, logits)[0]
        for parts, (logits, _) in zip(shares, batches, strict=True)
    ]
    total, ce, dice, focal = zip(*shares, strict=True)
    return LossParts(
        added(total),
        added(ce),
        None if dice[0] is None else added(dice),
        None if focal[0] is None else added(focal),
    ), pulls


def added(values: tuple[Tensor, ...]) -> Tensor:
    return torch.stack(values).sum()


def assert_equal(loss: Criterion, other: Criterion, batches: Batches) -> None:
    """To the rounding of float64."""
    (expected, pulls), (found, ours) = one_large(other, batches), in_shares(loss, batches)
    for part, theirs in zip(found, expected, strict=True):
        assert (part is None) == (theirs is None)
        if part is not None and theirs is not None:
            torch.testing.assert_close(part, theirs, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(ours, pulls, rtol=1e-11, atol=1e-15)


class TestEqualsTheLargeBatch:
    @pytest.mark.parametrize("main", ["plain ce", "ce", "plain focal", "focal", "ce_focal"])
    @pytest.mark.parametrize("reduction", ["global", "image"])
    @pytest.mark.parametrize("normalize", [False, True])
    def test_parts(self, main: str, reduction: str, normalize: bool) -> None:
        """Values and gradients, for cross entropy, focal and both, plain, or weighted and smoothed, with Dice of either kind, normalised or not."""
        options = {"main": main, "reduction": reduction, "normalize": normalize}
        assert_equal(criterion(**options), criterion(**options), drawn())

    @pytest.mark.parametrize(
        "options",
        [
            {"square_denominator": True},
            {"keep_absent": True},
            {"dice_weight": 0.0},
            {"dice_weight": 1.0},
        ],
    )
    @pytest.mark.parametrize("reduction", ["global", "image"])
    @pytest.mark.parametrize("normalize", [False, True])
    def test_dice(self, options: dict[str, Any], reduction: str, normalize: bool) -> None:
        """So do they with every option of Dice, without it and alone."""
        assert_equal(
            criterion(reduction=reduction, normalize=normalize, **options),
            criterion(reduction=reduction, normalize=normalize, **options),
            drawn(7),
        )

    @given(
        seed=st.integers(0, 2**31),
        sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
        ignored=st.sampled_from([0.0, 0.5, 0.95]),
        reduction=st.sampled_from(["global", "image"]),
        normalize=st.booleans(),
    )
    def test_any_sizes(
        self, seed: int, sizes: tuple[int, ...], ignored: float, reduction: str, normalize: bool
    ) -> None:
        """So do they for batches of any size, empty ones, and ones with hardly a valid pixel or a class among them."""
        assert_equal(
            criterion("ce_focal", reduction, normalize=normalize),
            criterion("ce_focal", reduction, normalize=normalize),
            drawn(seed, sizes, ignored),
        )

    @pytest.mark.parametrize("normalize", [False, True])
    def test_nothing_valid(self, normalize: bool) -> None:
        """One batch with nothing valid adds nothing; when all are so, everything is 0."""
        batches = drawn(11)
        batches[1] = (batches[1][0], torch.full_like(batches[1][1], IGNORED))
        assert_equal(
            criterion("focal", normalize=normalize),
            criterion("focal", normalize=normalize),
            batches,
        )
        empty = [(logits, torch.full_like(target, IGNORED)) for logits, target in batches]
        found, pulls = in_shares(criterion("focal", normalize=normalize), empty)
        assert found.total == 0
        assert all(pull.abs().sum() == 0 for pull in pulls)

    def test_normalised_steps(self) -> None:
        """Step after step the running means go the way that large batches would have sent them."""
        ours, theirs = criterion("focal", normalize=True), criterion("focal", normalize=True)
        for seed in range(0, 40, 4):
            assert_equal(ours, theirs, drawn(seed))
        assert isinstance(ours, NormalizedCombinedLoss)
        assert isinstance(theirs, NormalizedCombinedLoss)
        torch.testing.assert_close(ours.scale_2, theirs.scale_2, rtol=1e-13, atol=0)

    def test_not_so_without(self) -> None:
        """Without the sums of all, means of means are another loss: weighted pixels are not spread evenly."""
        batches, loss = drawn(3), criterion()
        apart = added(tuple(loss(logits, target).total / 4 for logits, target in batches))
        assert abs(float((apart - one_large(loss, batches)[0].total).detach())) > 1e-3


class TestPooled:
    def test_sums(self) -> None:
        """The mass is Σ w_y, the images are those with a valid pixel; without Dice over the batch that is all."""
        batches = drawn(1)
        batches[2] = (batches[2][0], torch.full_like(batches[2][1], IGNORED))
        labels = torch.cat([target for _, target in batches])
        found = criterion(reduction="image").pooled(batches)
        assert float(found.mass) == pytest.approx(float(WEIGHT_4[labels[labels != IGNORED]].sum()))
        assert (found.batches, int(found.images)) == (4, 6)
        assert found.overlap_C is found.total_C is found.count_C is None

    @pytest.mark.parametrize(
        ("options", "needed"),
        [
            ({}, True),
            ({"reduction": "image"}, False),
            ({"dice_weight": 0.0}, False),
            ({"reduction": "image", "normalize": True}, True),
            ({"dice_weight": 0.0, "normalize": True}, True),
        ],
    )
    def test_when_logits_are_needed(self, options: dict[str, Any], needed: bool) -> None:
        """Dice over the whole batch needs all logits before the first gradient, and so does a normalised loss; else labels will do."""
        loss = criterion(**options)
        assert loss.needs_logits_to_pool is needed
        if not needed:
            batches = drawn(2)
            shapes_only = [
                (torch.zeros(()).expand(logits.shape), target) for logits, target in batches
            ]
            assert same(loss.pooled(shapes_only), loss.pooled(batches))

    def test_one_at_a_time(self) -> None:
        """Batches may come from a generator, which is asked for one at a time."""
        asked: list[int] = []

        def coming() -> Any:
            for place, pair in enumerate(drawn(4)):
                asked.append(place)
                yield pair

        assert same(criterion().pooled(coming()), criterion().pooled(drawn(4)))
        assert asked == [0, 1, 2, 3]

    @pytest.mark.parametrize("normalize", [False, True])
    def test_no_graph(self, normalize: bool) -> None:
        """The sums have no graph, so nothing of an earlier pass is kept."""
        found = criterion(normalize=normalize).pooled(drawn(5))
        assert not any(isinstance(part, Tensor) and part.requires_grad for part in found)

    def test_evaluation_does_not_learn(self) -> None:
        """In evaluation mode gathering moves no running mean."""
        loss = criterion(normalize=True)
        loss.eval().pooled(drawn(6))
        assert isinstance(loss, NormalizedCombinedLoss)
        assert loss.mean_2.tolist() == [0, 0]


def same(first: Others, second: Others) -> bool:
    return all(
        (one is None and two is None)
        or bool(torch.equal(torch.as_tensor(one), torch.as_tensor(two)))
        for one, two in zip(first, second, strict=True)
    )
