"""The single losses: values and gradients against the formulas in float64, torch's own and smp's where meanings coincide."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses import DiceLoss as SmpDiceLoss  # type: ignore[import-untyped]
from torch import Tensor

from objectives import losses
from objectives.losses import CrossEntropyLoss, DiceLoss, FocalLoss, cross_entropy, dice, focal
from spaces.errors import ConfigError
from tests.unit.objectives.losses.references import (
    ALPHA_4,
    IGNORED,
    WEIGHT_4,
    Loss,
    assert_same,
    batch,
    gradient,
    reference_dice,
    reference_focal,
)

torch.set_num_threads(1)

EVERY_LOSS: dict[str, Loss] = {
    "ce": CrossEntropyLoss(ignore_index=IGNORED),
    "ce_weighted_smoothed": CrossEntropyLoss(WEIGHT_4, ignore_index=IGNORED, label_smoothing=0.1),
    "focal": FocalLoss(2.0, ignore_index=IGNORED),
    "focal_half": FocalLoss(0.5, ALPHA_4, WEIGHT_4, ignore_index=IGNORED),
    "focal_smoothed": FocalLoss(0.5, 0.25, WEIGHT_4, ignore_index=IGNORED, label_smoothing=0.1),
    "dice": DiceLoss(1.0, ignore_index=IGNORED),
    "dice_image_square": DiceLoss(
        0.0, square_denominator=True, reduction="image", ignore_index=IGNORED
    ),
    "dice_keep_absent": DiceLoss(5.0, keep_absent=True, ignore_index=IGNORED),
}
every_loss = pytest.mark.parametrize("name", EVERY_LOSS)


class TestCrossEntropy:
    @settings(deadline=None, max_examples=50)
    @given(
        seed=st.integers(0, 2**31),
        weighted=st.booleans(),
        smoothing=st.sampled_from([0.0, 0.1, 0.9]),
        classes=st.integers(1, 5),
    )
    def test_is_torchs(self, seed: int, weighted: bool, smoothing: float, classes: int) -> None:
        """Value and gradient are those of torch's cross entropy, with and without weights and label smoothing."""
        logits, target = batch(seed, (2, classes, 3, 2))
        if bool((target == IGNORED).all()):
            return
        weight = (
            torch.rand(classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            + 0.1
            if weighted
            else None
        )
        assert_same(
            CrossEntropyLoss(weight, ignore_index=IGNORED, label_smoothing=smoothing),
            lambda x, t: F.cross_entropy(
                x, t, weight, ignore_index=IGNORED, label_smoothing=smoothing
            ),
            logits,
            target,
        )

    @pytest.mark.parametrize("shape", [(6, 4), (2, 4, 3), (2, 4, 3, 5), (1, 4, 2, 2, 2)])
    def test_dimensions(self, shape: tuple[int, ...]) -> None:
        """Any number of dimensions after the classes works, none included."""
        logits, target = batch(1, shape)
        torch.testing.assert_close(
            cross_entropy(logits, target, ignore_index=IGNORED),
            F.cross_entropy(logits, target, ignore_index=IGNORED),
        )

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
    def test_label_types(self, dtype: torch.dtype) -> None:
        """Labels may be of any integer type, as masks are."""
        logits, target = batch(2)
        assert cross_entropy(logits, target.to(dtype), ignore_index=IGNORED) == cross_entropy(
            logits, target, ignore_index=IGNORED
        )


class TestFocal:
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
    @pytest.mark.parametrize("weight", [None, WEIGHT_4])
    @pytest.mark.parametrize("alpha", [None, ALPHA_4])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_formula(
        self, gamma: float, weight: Tensor | None, alpha: Tensor | None, smoothing: float
    ) -> None:
        """Value and gradient are the formula's for every mixture of gamma, alpha, weights and label smoothing."""
        loss = FocalLoss(gamma, alpha, weight, ignore_index=IGNORED, label_smoothing=smoothing)
        assert_same(
            loss, lambda x, t: reference_focal(x, t, gamma, alpha, weight, smoothing), *batch(3)
        )

    @settings(deadline=None, max_examples=50)
    @given(seed=st.integers(0, 2**31), smoothing=st.sampled_from([0.0, 0.1]))
    def test_gamma_0_is_cross_entropy(self, seed: int, smoothing: float) -> None:
        """Gamma 0 without alpha gives the weighted cross entropy to the last bit, value and gradient."""
        logits, target = batch(seed)
        plain = CrossEntropyLoss(WEIGHT_4, ignore_index=IGNORED, label_smoothing=smoothing)
        zero = FocalLoss(0.0, None, WEIGHT_4, ignore_index=IGNORED, label_smoothing=smoothing)
        assert torch.equal(zero(logits, target), plain(logits, target))
        assert torch.equal(gradient(zero, logits, target), gradient(plain, logits, target))

    def test_scalar_alpha_is_a_scale(self) -> None:
        """One alpha for all only multiplies the loss."""
        logits, target = batch(4)
        torch.testing.assert_close(
            FocalLoss(2.0, 0.25, ignore_index=IGNORED)(logits, target),
            0.25 * FocalLoss(2.0, ignore_index=IGNORED)(logits, target),
        )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.1, 0.5, 0.999, 1.0, 2.0])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_gradient_at_p_1(self, gamma: float, smoothing: float, dtype: torch.dtype) -> None:
        """The gradient is finite where p is 1 or all but 1, for every gamma."""
        logits = torch.tensor(
            [[margin, 0.0, 0.0] for margin in (10, 15, 17, 30, 40, 90, 1e4)],
            dtype=dtype,
            requires_grad=True,
        )
        target = torch.zeros(7, dtype=torch.int64)
        found = gradient(FocalLoss(gamma, label_smoothing=smoothing), logits, target)
        assert found.isfinite().all()
        assert found.abs().max() <= 1
        if smoothing == 0:
            assert found[-1].abs().max() == 0

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    def test_gradcheck(self, gamma: float) -> None:
        """Autograd's gradient is the numerical one."""
        logits, target = batch(5, (2, 4, 2, 2))
        assert torch.autograd.gradcheck(
            lambda x: FocalLoss(
                gamma, ALPHA_4, WEIGHT_4, ignore_index=IGNORED, label_smoothing=0.1
            )(x, target),
            logits,
        )


class TestSoftTargets:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_one_hot_is_hard(self, smoothing: float) -> None:
        """A one-hot distribution gives what its class as a hard target gives, label smoothing included."""
        logits, target = batch(6, (8, 4), ignored=0)
        loss = FocalLoss(1.5, ALPHA_4, WEIGHT_4, label_smoothing=smoothing)
        assert_same(lambda x, t: loss(x, F.one_hot(t, 4).double()), loss, logits, target)

    def test_formula(self) -> None:
        """The cross entropy is against q; p_t and alpha are those of the likeliest class."""
        logits, _ = batch(7, (5, 4))
        q = torch.rand(
            5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        ).softmax(1)
        p, top = logits.softmax(1), q.argmax(1)
        p_t = p.gather(1, top[:, None])[:, 0].clamp(1e-6, 1 - 1e-6)
        expected = (ALPHA_4[top] * (1 - p_t) ** 2 * -(q * p.log()).sum(1)).mean()
        torch.testing.assert_close(focal(logits, q, gamma=2.0, alpha=ALPHA_4), expected)

    def test_gamma_0_is_torchs(self) -> None:
        """Gamma 0 gives torch's cross entropy against probabilities."""
        logits, _ = batch(8, (5, 4))
        q = torch.rand(
            5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        ).softmax(1)
        torch.testing.assert_close(FocalLoss(0.0)(logits, q), F.cross_entropy(logits, q))

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    def test_extreme(self, gamma: float) -> None:
        """Logits of ±1e4 give finite values and gradients, and no sample gives 0."""
        logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
        q = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
        assert FocalLoss(gamma)(logits, q).isfinite()
        assert gradient(FocalLoss(gamma), logits, q).isfinite().all()
        assert FocalLoss(gamma)(logits[:0], q[:0]) == 0


class TestDice:
    @pytest.mark.parametrize("smooth", [0.0, 1.0, 10.0])
    @pytest.mark.parametrize("square", [False, True])
    @pytest.mark.parametrize("reduction", ["global", "image"])
    @pytest.mark.parametrize("keep_absent", [False, True])
    def test_formula(
        self, smooth: float, square: bool, reduction: losses.functional.Reduction, keep_absent: bool
    ) -> None:
        """Value and gradient are the formula's for every option, with a class absent here and there."""
        logits, target = batch(9, (3, 5, 2, 3))
        target[0] = IGNORED
        target[target == 4] = 0
        loss = DiceLoss(
            smooth,
            square_denominator=square,
            reduction=reduction,
            keep_absent=keep_absent,
            ignore_index=IGNORED,
        )
        assert_same(
            loss,
            lambda x, t: reference_dice(x, t, smooth, square, reduction, keep_absent),
            logits,
            target,
        )

    def test_by_hand(self) -> None:
        """Two pixels at even chances: I = ½, D = 1 + 1 for each of two classes."""
        logits, target = torch.zeros(1, 2, 2, dtype=torch.float64), torch.tensor([[0, 1]])
        assert float(dice(logits, target, smooth=0.0)) == pytest.approx(0.5)
        assert float(dice(logits, target, smooth=1.0)) == pytest.approx(1 - 2 / 3)
        assert float(dice(logits, target, smooth=0.0, square_denominator=True)) == pytest.approx(
            1 - 1 / 1.5
        )

    def test_is_smps(self) -> None:
        """With every class in the target, smp's Dice of half the smooth is the same loss."""
        logits, target = batch(10, (2, 3, 6, 6))
        torch.testing.assert_close(
            dice(logits, target, smooth=2.0, ignore_index=IGNORED),
            SmpDiceLoss("multiclass", smooth=1.0, ignore_index=IGNORED)(logits, target),
        )

    @settings(deadline=None, max_examples=100)
    @given(
        seed=st.integers(0, 2**31),
        smooth=st.floats(0, 20),
        square=st.booleans(),
        classes=st.integers(1, 5),
        image=st.booleans(),
        keep=st.booleans(),
    )
    def test_within_0_and_1(
        self, seed: int, smooth: float, square: bool, classes: int, image: bool, keep: bool
    ) -> None:
        """The loss lies between 0 and 1, whatever is asked for."""
        logits, target = batch(seed, (2, classes, 3), 0.4, torch.float32)
        found = dice(
            logits,
            target,
            smooth=smooth,
            square_denominator=square,
            reduction="image" if image else "global",
            keep_absent=keep,
            ignore_index=IGNORED,
        )
        assert -1e-6 <= found.detach() <= 1 + 1e-6

    @pytest.mark.parametrize("square", [False, True])
    def test_gradcheck(self, square: bool) -> None:
        """Autograd's gradient is the numerical one."""
        logits, target = batch(11, (2, 3, 4))
        assert torch.autograd.gradcheck(
            lambda x: DiceLoss(1.0, square_denominator=square, ignore_index=IGNORED)(x, target),
            logits,
        )

    def test_long_sums(self) -> None:
        """A large image loses no digits in float32."""
        logits, target = batch(12, (1, 2, 1024, 1024), 0.0, torch.float32)
        torch.testing.assert_close(
            dice(logits, target).double(),
            reference_dice(logits, target, 1.0, False, "global"),
            rtol=1e-6,
            atol=0,
        )


class TestEveryLoss:
    @every_loss
    def test_nothing_valid(self, name: str) -> None:
        """A batch without a valid element has the loss 0 with the gradient 0."""
        logits, target = batch(13)
        loss, ignored = EVERY_LOSS[name], torch.full_like(target, IGNORED)
        for scores, labels in ((logits, ignored), (logits[:0], target[:0])):
            value = loss(scores, labels)
            assert value == 0
            assert torch.autograd.grad(value, scores)[0].abs().sum() == 0

    @every_loss
    def test_ignored_change_nothing(self, name: str) -> None:
        """Other logits at ignored places give the same loss, and the gradient there is 0."""
        logits, target = batch(14)
        holes = (target == IGNORED).unsqueeze(1)
        changed = torch.where(holes, logits * -7 + 1, logits).detach()
        assert torch.equal(EVERY_LOSS[name](changed, target), EVERY_LOSS[name](logits, target))
        found = gradient(EVERY_LOSS[name], logits, target)
        assert found.masked_select(holes).abs().sum() == 0
        assert found.abs().sum() > 0

    @pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
    @every_loss
    def test_ignored_infinity(self, name: str, value: float) -> None:
        """Infinite or undefined logits of an ignored element change neither the loss nor the gradient of the others."""
        logits, target = batch()
        clean = logits.detach().clone().requires_grad_()
        odd = logits.detach().clone()
        ignored = (target == IGNORED).nonzero()[0]
        odd[ignored[0], -1, ignored[1], ignored[2]] = value
        odd.requires_grad_()
        torch.testing.assert_close(EVERY_LOSS[name](odd, target), EVERY_LOSS[name](clean, target))
        torch.testing.assert_close(
            gradient(EVERY_LOSS[name], odd, target), gradient(EVERY_LOSS[name], clean, target)
        )

    @every_loss
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_extreme_logits(self, name: str, dtype: torch.dtype) -> None:
        """Logits of ±1e4, right and wrong, give a finite loss and a finite gradient."""
        _, target = batch(15)
        for sign in (1, -1):
            logits = (
                (
                    sign
                    * 1e4
                    * (
                        2 * F.one_hot(target.masked_fill(target == IGNORED, 0), 4).movedim(-1, 1)
                        - 1
                    )
                )
                .to(dtype)
                .requires_grad_()
            )
            assert EVERY_LOSS[name](logits, target).isfinite()
            assert gradient(EVERY_LOSS[name], logits, target).isfinite().all()

    @every_loss
    def test_perfect(self, name: str) -> None:
        """A perfect prediction costs nothing, but for what label smoothing asks."""
        _, target = batch(16)
        logits = (
            50.0 * F.one_hot(target.masked_fill(target == IGNORED, 0), 4).movedim(-1, 1).float()
        )
        if "smoothed" not in name:
            assert float(EVERY_LOSS[name](logits, target)) == pytest.approx(0, abs=1e-6)

    @every_loss
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_narrow_types(self, name: str, dtype: torch.dtype) -> None:
        """Half logits are computed with in float32, and their gradient is half again."""
        logits, target = batch(17, dtype=dtype)
        found = EVERY_LOSS[name](logits, target)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, EVERY_LOSS[name](logits.float(), target), rtol=0, atol=0)
        assert gradient(EVERY_LOSS[name], logits, target).dtype == dtype

    @every_loss
    def test_autocast(self, name: str) -> None:
        """Autocast changes nothing."""
        logits, target = batch(18, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            found = EVERY_LOSS[name](logits, target)
        assert torch.equal(found, EVERY_LOSS[name](logits, target))

    @every_loss
    def test_one_pixel(self, name: str) -> None:
        """A single pixel works."""
        logits, target = batch(19, (1, 4, 1, 1), 0.0)
        assert EVERY_LOSS[name](logits, target) > 0

    @every_loss
    @pytest.mark.parametrize("shape", [(2, 3, 5, 1), (2, 3), (3, 3, 5), (2, 5, 3)])
    def test_wrong_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """A target of another shape is refused with the found and the expected one."""
        logits, _ = batch(20)
        with pytest.raises(ConfigError) as caught:
            EVERY_LOSS[name](logits, torch.zeros(shape, dtype=torch.int64))
        assert str(shape) in str(caught.value)
        assert "(2, 3, 5)" in str(caught.value)

    def test_one_class(self) -> None:
        """With a single class there is nothing to learn: no loss and no gradient."""
        logits, target = batch(21, (2, 1, 3), 0.0)
        for loss in (CrossEntropyLoss(), FocalLoss(0.5), DiceLoss()):
            assert loss(logits, target) == 0
            assert gradient(loss, logits, target).abs().sum() == 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: FocalLoss(-1.0), r"gamma.*-1"),
            (lambda: FocalLoss(2.0, [0.5, float("nan")]), r"alpha.*nan"),
            (lambda: FocalLoss(2.0, -0.25), r"alpha.*-0\.25"),
            (lambda: DiceLoss(-2.0), r"smooth.*-2"),
            (lambda: DiceLoss(reduction="rows"), r"(?s)rows.*global, image"),  # type: ignore[arg-type]
            (lambda: CrossEntropyLoss([1.0, -1.0]), r"weight.*-1"),
            (lambda: CrossEntropyLoss(torch.ones(2, 2)), r"weight.*\(2, 2\)"),
            (lambda: CrossEntropyLoss(label_smoothing=1.0), r"label_smoothing.*1\.0"),
            (
                lambda: focal(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), gamma=-1.0),
                r"gamma.*-1",
            ),
            (
                lambda: focal(
                    torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), alpha=torch.ones(4)
                ),
                r"alpha has 4 .* 3 classes",
            ),
            (
                lambda: cross_entropy(
                    torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), weight=torch.ones(2)
                ),
                r"weight has 2 .* 3 classes",
            ),
            (
                lambda: dice(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), smooth=-1.0),
                r"smooth.*-1",
            ),
            (lambda: focal(torch.zeros(2, 3), torch.zeros(2, 4)), r"\(2, 4\).*\(2, 3\)"),
            (lambda: dice(torch.zeros(2, 3), torch.zeros(2)), r"float32"),
        ],
    )
    def test_refused(self, make: Callable[[], object], words: str) -> None:
        """What cannot be used is refused with what was found and what was expected."""
        with pytest.raises(ConfigError, match=words):
            make()


def test_exported_names() -> None:
    """The public names are these and no others."""
    assert losses.__all__ == [
        "Balance",
        "CombinedLoss",
        "Criterion",
        "CrossEntropyLoss",
        "DiceLoss",
        "FocalLoss",
        "GradientShares",
        "LibraryLoss",
        "LossParts",
        "NormalizedCombinedLoss",
        "build_criterion",
        "cross_entropy",
        "dice",
        "focal",
        "gradient_shares",
    ]
    assert all(hasattr(losses, name) for name in losses.__all__)
