"""Who pulls at the logits: norms of each part and class, against derivatives written down by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from objectives.losses import (
    CombinedLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    GradientShares,
    LibraryLoss,
    NormalizedCombinedLoss,
    gradient_shares,
)
from spaces.errors import ConfigError
from tests.unit.objectives.losses.references import (
    ALPHA_4,
    IGNORED,
    WEIGHT_4,
    batch,
    reference_dice,
    reference_focal,
)

torch.set_num_threads(1)


def combined(
    weight: Tensor | list[float] | None = WEIGHT_4, dice_weight: float = 0.4
) -> CombinedLoss:
    return CombinedLoss(
        FocalLoss(1.5, ALPHA_4, weight, ignore_index=IGNORED),
        DiceLoss(2.0, ignore_index=IGNORED),
        ce_weight=1 - dice_weight,
        dice_weight=dice_weight,
    )


def norms_by_label(pull: Tensor, target: Tensor, classes: int) -> Tensor:
    """Σ |pull| over the elements of each label."""
    return torch.stack([(pull.abs() * (target == c).unsqueeze(1)).sum() for c in range(classes)])


class TestByHand:
    def test_two_pixels(self) -> None:
        """Two pixels at even chances: (p − onehot)·w/Σw is ½·w/Σw for each of the two logits of a pixel."""
        criterion = CombinedLoss(
            CrossEntropyLoss([1.0, 3.0]), DiceLoss(), ce_weight=1.0, dice_weight=0.0
        )
        found = gradient_shares(
            criterion, torch.zeros(1, 2, 2, dtype=torch.float64), torch.tensor([[0, 1]])
        )
        assert found.parts.tolist() == pytest.approx(
            [1.0, 0.0]
        )  # (½ + ½)·¼ of one pixel, (½ + ½)·¾ of the other
        assert found.classes.tolist() == pytest.approx([0.25, 0.75])

    def test_dice_of_two_pixels(self) -> None:
        """Dice of the same: I = ½ and D = 2 + s; a pixel's own score pulls with (2·D − (2·I + s))/D² and the other's against it."""
        criterion = CombinedLoss(CrossEntropyLoss(), DiceLoss(0.0), ce_weight=0.0, dice_weight=1.0)
        found = gradient_shares(
            criterion, torch.zeros(1, 2, 2, dtype=torch.float64), torch.tensor([[0, 1]])
        )
        # ∂loss/∂p of a pixel's own class −½·(2/2 − 1/4), of the other class +½·1/4; ∂p/∂z = ±¼: (0.375 + 0.125)·¼ at each of four logits
        assert found.parts.tolist() == pytest.approx([0.0, 4 * 0.5 * 0.25])
        assert found.classes.tolist() == pytest.approx([0.25, 0.25])

    @pytest.mark.parametrize("shape", [(2, 4, 3, 5), (2, 4, 6), (8, 4)])
    def test_autograd(self, shape: tuple[int, ...]) -> None:
        """Parts and classes are the norms of the formulas' own gradients."""
        logits, target = batch(1, shape)
        main = reference_focal(logits, target, 1.5, ALPHA_4, WEIGHT_4)
        overlap = reference_dice(logits, target, 2.0, square=False, reduction="global")
        (by_main,), (by_dice,) = (
            torch.autograd.grad(0.6 * main, logits),
            torch.autograd.grad(0.4 * overlap, logits),
        )
        found = gradient_shares(combined(), logits, target)
        torch.testing.assert_close(
            found.parts, torch.stack([by_main.abs().sum(), by_dice.abs().sum()])
        )
        torch.testing.assert_close(found.classes, norms_by_label(by_main + by_dice, target, 4))

    def test_normalised(self) -> None:
        """Of a normalised loss each part counts by its scale."""
        logits, target = batch(2)
        criterion = NormalizedCombinedLoss(combined())
        criterion(logits, target)
        scale_2, bare = criterion.scale_2, gradient_shares(combined(), logits, target)
        torch.testing.assert_close(
            gradient_shares(criterion, logits, target).parts, bare.parts * scale_2
        )


class TestImbalance:
    def test_extreme_weights(self) -> None:
        """A class of one pixel in a hundred that weighs 500 against 0.1 carries all but all of the gradient."""
        logits, target = torch.zeros(1, 2, 10, 10), torch.zeros(1, 10, 10, dtype=torch.int64)
        target[0, 0, 0] = 1
        even, extreme = (
            gradient_shares(combined_ce(weight), logits, target).classes
            for weight in ([1.0, 1.0], [0.1, 500.0])
        )
        assert float(even[1] / even.sum()) == pytest.approx(1 / 100)
        assert float(extreme[1] / extreme.sum()) == pytest.approx(500 / (500 + 99 * 0.1))

    def test_split(self) -> None:
        """The parts follow the split."""
        logits, target = batch(3)
        light, heavy = (
            gradient_shares(combined(dice_weight=share), logits, target).parts
            for share in (0.2, 0.8)
        )
        torch.testing.assert_close(
            heavy, light * torch.tensor([0.2 / 0.8, 0.8 / 0.2], dtype=torch.float64)
        )

    def test_without_dice(self) -> None:
        """Where Dice takes no part, it has none of the gradient."""
        found = gradient_shares(combined(dice_weight=0.0), *batch(4))
        assert found.parts[0] > 0
        assert found.parts[1] == 0

    def test_library(self) -> None:
        """An overlap of the library has its share as Dice has."""
        logits, target = batch(5)
        criterion = CombinedLoss(
            CrossEntropyLoss(ignore_index=IGNORED),
            LibraryLoss("tversky", ignore_index=IGNORED),
            ce_weight=0.5,
            dice_weight=0.5,
        )
        assert (gradient_shares(criterion, logits, target).parts > 0).all()

    def test_ignored(self) -> None:
        """Ignored elements belong to no class; a batch of nothing else pulls at nothing."""
        logits, target = batch(6)
        found = gradient_shares(combined(), logits, torch.full_like(target, IGNORED))
        assert found.parts.tolist() == [0, 0]
        assert found.classes.tolist() == [0, 0, 0, 0]
        assert gradient_shares(combined(), logits[:0], target[:0]).classes.tolist() == [0, 0, 0, 0]

    def test_sum(self) -> None:
        """Norms of several batches add up."""
        first, second = (gradient_shares(combined(), *batch(seed)) for seed in (7, 8))
        added = first + second
        assert isinstance(added, GradientShares)
        assert torch.equal(added.parts, first.parts + second.parts)
        assert torch.equal(added.classes, first.classes + second.classes)
        with pytest.raises(TypeError):
            first + 1  # type: ignore[operator]


class TestLeavesNothing:
    @pytest.mark.parametrize("normalised", [False, True])
    def test_no_trace(self, normalised: bool) -> None:
        """No gradient is left at the logits or at what they came from, and no running mean moves, whether or not gradients are on."""
        criterion = NormalizedCombinedLoss(combined()) if normalised else combined()
        criterion(*batch(9))
        before = {name: buffer.clone() for name, buffer in criterion.named_buffers()}
        source, target = batch(10)
        logits = source * 2
        logits.retain_grad()
        shares = gradient_shares(criterion, logits, target)
        with torch.no_grad():
            assert torch.equal(gradient_shares(criterion, logits, target).parts, shares.parts)
        assert source.grad is None
        assert logits.grad is None
        assert not shares.parts.requires_grad
        assert all(
            torch.equal(buffer, before[name])
            for name, buffer in criterion.named_buffers()
            if name.split(".")[-1] != "label_range"
        )

    def test_graph_is_left(self) -> None:
        """The training's own graph can still be gone through."""
        criterion, (logits, target) = combined(), batch(11)
        total = criterion(logits, target).total
        gradient_shares(criterion, logits, target)
        total.backward()
        assert logits.grad is not None

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_narrow(self, dtype: torch.dtype) -> None:
        """Half-precision logits are computed in float32, and the norms are float64."""
        logits, target = batch(12, dtype=dtype)
        found = gradient_shares(combined(), logits, target)
        assert found.parts.dtype == found.classes.dtype == torch.float64
        assert torch.equal(found.parts, gradient_shares(combined(), logits.float(), target).parts)

    def test_shape(self) -> None:
        """Shapes that do not fit are refused as the loss refuses them."""
        with pytest.raises(ConfigError, match=r"\(2, 3\)"):
            gradient_shares(combined(), torch.zeros(2, 4, 5), torch.zeros(2, 3, dtype=torch.int64))


def combined_ce(weight: list[float]) -> CombinedLoss:
    return CombinedLoss(CrossEntropyLoss(weight), DiceLoss(), ce_weight=1.0, dice_weight=0.0)
