"""The combined loss: its sum, its mixture, its schedule, the labels it has seen, and what it says it uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from objectives.losses import (
    Balance,
    CombinedLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    build_criterion,
    cross_entropy,
    dice,
    focal,
    softmax,
)
from objectives.losses.class_weights import class_weights, focal_alpha
from objectives.schedules import EpochValues, values_at
from spaces.config import LossConfig, OptimizerConfig, ScheduleConfig, Stage, WeightsConfig
from spaces.errors import ConfigError, DataError
from spaces.records import ClassCounts
from tests.unit.objectives.losses.references import reference_dice, reference_focal

torch.set_num_threads(1)

IGNORED = 255
COUNTS = ClassCounts(("road", "car", "person"), (9000, 900, 10))
LOSS = LossConfig(dice_weight=0.4, smooth=5.0, square_denominator=True)
WEIGHTS = WeightsConfig(method="sqrt_inv_freq", clip_ratio=10.0)
EVEN = WeightsConfig()


def batch(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits (2, 3, 4, 5) that want a gradient, and labels of which some are ignored."""
    random = torch.Generator().manual_seed(seed)
    logits = (
        (2 * torch.randn(2, 3, 4, 5, generator=random, dtype=torch.float64))
        .to(dtype)
        .requires_grad_()
    )
    target = torch.randint(3, (2, 4, 5), generator=random)
    return logits, target.masked_fill(torch.rand(target.shape, generator=random) < 0.2, IGNORED)


def built(loss: LossConfig = LOSS, weights: WeightsConfig = WEIGHTS) -> CombinedLoss:
    return build_criterion(loss, weights, COUNTS, IGNORED, "cpu")


def epoch(
    dice_weight: float = 0.4,
    smooth: float = 5.0,
    clip_ratio: float | None = 10.0,
    settled: bool = False,
) -> EpochValues:
    return EpochValues(1, 1.0, 1 - dice_weight, dice_weight, smooth, clip_ratio, settled)


def weight_of(config: WeightsConfig) -> Tensor:
    return torch.from_numpy(class_weights(COUNTS, config).weights)


class TestForward:
    def test_is_the_sum(self) -> None:
        """Total, parts and gradient are those of the parts taken one by one and added by their shares."""
        logits, target = batch()
        found = built()(logits, target)
        ce = cross_entropy(logits, target, weight=weight_of(WEIGHTS), ignore_index=IGNORED)
        overlap = dice(logits, target, smooth=5.0, square_denominator=True, ignore_index=IGNORED)
        torch.testing.assert_close(found.total, 0.6 * ce + 0.4 * overlap)
        torch.testing.assert_close((found.ce, found.dice), (ce.detach(), overlap.detach()))
        expected = torch.autograd.grad(0.6 * ce + 0.4 * overlap, logits)
        torch.testing.assert_close(torch.autograd.grad(found.total, logits), expected)

    def test_focal_with_tau(self) -> None:
        """A focal part takes its alphas from the frequencies and tau."""
        logits, target = batch()
        found = built(LossConfig(kind="focal", gamma=1.5, alpha_tau=0.5), EVEN)(logits, target)
        expected = focal(
            logits,
            target,
            gamma=1.5,
            alpha=torch.from_numpy(focal_alpha(COUNTS, 0.5)),
            ignore_index=IGNORED,
        )
        torch.testing.assert_close(found.total, expected)

    def test_only_the_total_has_a_graph(self) -> None:
        """The parts are detached, for the record; the total is not."""
        found = built()(*batch())
        assert found.total.requires_grad
        assert found.dice is not None
        assert not found.ce.requires_grad
        assert not found.dice.requires_grad

    def test_one_softmax(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All parts share one softmax."""
        real, calls = softmax._compute_sums, list[Tensor]()

        def counted(logits: Tensor, *others: Any) -> tuple[Tensor, ...]:
            calls.append(logits)
            return real(logits, *others)

        monkeypatch.setattr(softmax, "_compute_sums", counted)
        built(LOSS.model_copy(update={"kind": "focal"}))(*batch())
        assert len(calls) == 1

    def test_dice_off(self) -> None:
        """Dice is not computed where its share is 0: None, not 0."""
        found = built(LossConfig())(*batch())
        assert found.dice is None
        assert found.total == found.ce

    @pytest.mark.parametrize("kind", ["ce", "focal"])
    def test_nothing_valid(self, kind: str) -> None:
        """A batch without a valid pixel has the total 0 with the gradient 0."""
        logits, target = batch()
        total = built(LOSS.model_copy(update={"kind": kind}))(
            logits, torch.full_like(target, IGNORED)
        ).total
        assert total == 0
        assert torch.autograd.grad(total, logits)[0].abs().sum() == 0

    def test_total_is_float32(self) -> None:
        """The shares' float64 does not leak into a float32 loss."""
        assert built()(*batch(dtype=torch.bfloat16)).total.dtype == torch.float32

    def test_different_ignored_labels(self) -> None:
        """Parts that ignore different labels are refused with both."""
        with pytest.raises(ConfigError, match="255 and -100"):
            CombinedLoss(CrossEntropyLoss(ignore_index=255), DiceLoss(ignore_index=-100))

    def test_negative_share(self) -> None:
        """A negative share is refused with its value."""
        with pytest.raises(ConfigError, match=r"dice_weight.*-0\.1"):
            CombinedLoss(CrossEntropyLoss(), DiceLoss(), dice_weight=-0.1)


class TestMixture:
    MIXED = LossConfig(
        kind="ce_focal", focal_share=0.3, gamma=1.5, alpha_tau=0.5, dice_weight=0.4, smooth=5.0
    )

    def test_is_the_mean(self) -> None:
        """Main part, total and gradient are those of focal and cross entropy, mixed by the share."""
        logits, target = batch()
        found = built(self.MIXED)(logits, target)
        ce = reference_focal(logits, target, weight=weight_of(WEIGHTS))
        bent = reference_focal(
            logits, target, 1.5, torch.from_numpy(focal_alpha(COUNTS, 0.5)), weight_of(WEIGHTS)
        )
        overlap = reference_dice(logits, target, 5.0, square=False, reduction="global")
        expected = 0.6 * (0.3 * bent + 0.7 * ce) + 0.4 * overlap
        torch.testing.assert_close(found.total, expected)
        torch.testing.assert_close(found.ce, (0.3 * bent + 0.7 * ce).detach())
        torch.testing.assert_close(
            torch.autograd.grad(found.total, logits), torch.autograd.grad(expected, logits)
        )

    def test_focal_term(self) -> None:
        """The focal term of a mixture is returned without a graph; other losses return none."""
        logits, target = batch()
        found = built(self.MIXED)(logits, target)
        expected = reference_focal(
            logits, target, 1.5, torch.from_numpy(focal_alpha(COUNTS, 0.5)), weight_of(WEIGHTS)
        )
        assert found.focal is not None
        assert not found.focal.requires_grad
        torch.testing.assert_close(found.focal, expected.detach())
        assert (
            built()(logits, target).focal
            is built(LossConfig(kind="focal"))(logits, target).focal
            is None
        )

    def test_share_is_live(self) -> None:
        """The share is a buffer: changed in place it changes the loss, and `used` has the new value."""
        criterion, (logits, target) = built(self.MIXED), batch()
        assert isinstance(criterion.main, FocalLoss)
        assert criterion.used()["loss.focal_share"] == 0.3
        criterion.main.share.fill_(0.8)
        torch.testing.assert_close(
            criterion(logits, target).total,
            built(self.MIXED.model_copy(update={"focal_share": 0.8}))(logits, target).total,
        )
        assert criterion.used() == built(self.MIXED).used() | {"loss.focal_share": 0.8}

    def test_float32(self) -> None:
        """The share's float64 does not leak into a float32 loss."""
        found = built(self.MIXED)(*batch(dtype=torch.float32))
        assert {found.total.dtype, found.ce.dtype} == {torch.float32}

    def test_bad_share(self) -> None:
        """A share outside 0 … 1 is refused with its value."""
        with pytest.raises(ConfigError, match=r"share.*1\.5"):
            FocalLoss(share=1.5)


class TestCheckTargets:
    @pytest.mark.parametrize("label", [-1, -100, 3, 7, 254])
    def test_named(self, label: int) -> None:
        """A label that is no class is named, with the classes and the ignored label, and costs nothing in the loss."""
        criterion, (logits, target) = built(), batch()
        target[1, 2] = label
        left_out = built()(logits, target.masked_fill(target == label, IGNORED)).total
        assert torch.equal(criterion(logits, target).total, left_out)
        with pytest.raises(DataError, match="a target contains a value that is no class") as caught:
            criterion.check_targets()
        assert (caught.value.found, caught.value.allowed) == (
            str(label),
            "0 … 2 (3 classes) or 255 (ignored)",
        )

    def test_once(self) -> None:
        """What has been named is forgotten: the next epoch is judged by its own labels."""
        criterion, (logits, target) = built(), batch()
        criterion(logits, torch.full_like(target, 9))
        with pytest.raises(DataError):
            criterion.check_targets()
        criterion.check_targets()
        criterion(logits, target)
        criterion.check_targets()

    def test_any_batch(self) -> None:
        """One bad label among many batches is found wherever it was; empty batches do not matter."""
        criterion, (logits, target) = built(), batch()
        for seed in range(3):
            criterion(*batch(seed))
        criterion(logits, torch.full_like(target, -7))
        criterion(*batch(4))
        criterion(logits[:0], target[:0])
        with pytest.raises(DataError, match="-7"):
            criterion.check_targets()

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
    def test_label_types(self, dtype: torch.dtype) -> None:
        """Labels of any integer type are watched."""
        criterion, (logits, target) = built(), batch()
        criterion(logits, target.to(dtype))
        criterion.check_targets()
        target[0, 0, 0] = 99
        criterion(logits, target.to(dtype))
        with pytest.raises(DataError, match="99"):
            criterion.check_targets()

    def test_negative_ignored(self) -> None:
        """−100 as the ignored label is no bad label."""
        criterion, (logits, target) = CombinedLoss(CrossEntropyLoss(), DiceLoss()), batch()
        criterion(logits, target.masked_fill(target == IGNORED, -100))
        criterion.check_targets()

    def test_before_any_batch(self) -> None:
        """Nothing seen is nothing wrong."""
        built().check_targets()


class TestSetEpoch:
    def test_as_if_rebuilt(self) -> None:
        """After a change of split, smooth and clip ratio the loss is the one built with them."""
        criterion = built()
        criterion.set_epoch(epoch(0.2, 10.0, 4.0))
        rebuilt = built(
            LossConfig(dice_weight=0.2, smooth=10.0, square_denominator=True),
            WeightsConfig(method="sqrt_inv_freq", clip_ratio=4.0),
        )
        assert torch.equal(criterion(*batch()).total, rebuilt(*batch()).total)
        assert criterion.weight_ratio == rebuilt.weight_ratio

    def test_warmup_skips_dice(self) -> None:
        """Dice comes and goes with its share."""
        criterion = built()
        criterion.set_epoch(epoch(0.0))
        assert criterion(*batch()).dice is None
        criterion.set_epoch(epoch(0.04))
        assert criterion(*batch()).dice is not None

    def test_stage_alone_turns_dice_on(self) -> None:
        """A stage can give Dice a share that the final split has not, and from then on Dice has taken part."""
        criterion = built(LossConfig(dice_weight=0.0))
        assert "loss.smooth" not in criterion.used()
        criterion.set_epoch(epoch(0.2, 1.0))
        assert criterion(*batch()).dice is not None
        assert criterion.used()["loss.smooth"] == 1.0
        assert criterion.used()["loss.dice_weight"] == 0.0

    def test_weight_ratio(self) -> None:
        """The ratio is that of the weights in use, and 1 without weights."""
        criterion = built()
        assert criterion.weight_ratio == pytest.approx(class_weights(COUNTS, WEIGHTS).ratio)
        criterion.set_epoch(epoch(clip_ratio=4.0))
        assert criterion.weight_ratio <= 4
        assert built(weights=EVEN).weight_ratio == 1

    def test_negative_smooth(self) -> None:
        """A negative scheduled value is refused with its name and value."""
        with pytest.raises(ConfigError, match=r"smooth.*-1"):
            built().set_epoch(epoch(smooth=-1.0))

    def test_not_in_a_checkpoint(self) -> None:
        """The numbers come from the configuration, so a checkpoint holds none of them."""
        assert list(built().state_dict()) == []


class TestUsed:
    @pytest.mark.parametrize(
        ("loss", "weights", "expected"),
        [
            (LossConfig(), EVEN, {"loss.kind": "ce", "weights.method": "uniform"}),
            (
                LossConfig(label_smoothing=0.1),
                WeightsConfig(method="inverse_freq"),
                {
                    "loss.kind": "ce",
                    "loss.label_smoothing": 0.1,
                    "weights.method": "inverse_freq",
                    "weights.clip_ratio": None,
                },
            ),
            (
                LossConfig(kind="focal", gamma=1.7, alpha=0.25),
                WeightsConfig(method="effective_number", beta=0.99, clip_ratio=25),
                {
                    "loss.kind": "focal",
                    "loss.gamma": 1.7,
                    "loss.alpha": 0.25,
                    "weights.method": "effective_number",
                    "weights.clip_ratio": 25.0,
                    "weights.beta": 0.99,
                },
            ),
            (
                LossConfig(kind="focal", alpha=(0.11, 0.45, 0.44)),
                EVEN,
                {
                    "loss.kind": "focal",
                    "loss.gamma": 2.0,
                    "loss.alpha": (0.11, 0.45, 0.44),
                    "weights.method": "uniform",
                },
            ),
            (
                LossConfig(kind="focal", alpha_tau=0.3),
                EVEN,
                {
                    "loss.kind": "focal",
                    "loss.gamma": 2.0,
                    "loss.alpha_tau": 0.3,
                    "weights.method": "uniform",
                },
            ),
            (
                LossConfig(
                    dice_weight=0.3, smooth=5, square_denominator=True, dice_reduction="image"
                ),
                WEIGHTS,
                {
                    "loss.kind": "ce",
                    "weights.method": "sqrt_inv_freq",
                    "weights.clip_ratio": 10.0,
                    "loss.ce_weight": 0.7,
                    "loss.dice_weight": 0.3,
                    "loss.overlap": "dice",
                    "loss.smooth": 5.0,
                    "loss.square_denominator": True,
                    "loss.dice_reduction": "image",
                },
            ),
        ],
    )
    def test_what_takes_part(
        self, loss: LossConfig, weights: WeightsConfig, expected: dict[str, Any]
    ) -> None:
        """Exactly the hyperparameters that reach the loss are named, with the configured values."""
        split = {"loss.ce_weight": loss.ce_weight, "loss.dice_weight": loss.dice_weight}
        assert (
            built(loss, weights).used()
            == {"loss.label_smoothing": 0.0, "loss.normalize": False} | split | expected
        )

    @settings(deadline=None, max_examples=50)
    @given(
        gamma=st.floats(0, 10),
        smooth=st.floats(0, 100),
        share=st.floats(0.01, 0.99),
        tau=st.floats(0, 1),
        clip=st.floats(1, 1e4),
    )
    def test_floats_are_exact(
        self, gamma: float, smooth: float, share: float, tau: float, clip: float
    ) -> None:
        """Every number comes back as the very float that was configured."""
        loss = LossConfig(
            kind="focal", gamma=gamma, smooth=smooth, dice_weight=share, alpha_tau=tau
        )
        used = built(loss, WeightsConfig(method="inverse_freq", clip_ratio=clip)).used()
        assert (
            used["loss.gamma"],
            used["loss.smooth"],
            used["loss.dice_weight"],
            used["loss.alpha_tau"],
        ) == (gamma, smooth, share, tau)
        assert used["loss.ce_weight"] == 1 - share
        assert used["weights.clip_ratio"] == clip

    def test_final_throughout_a_schedule(self) -> None:
        """In every epoch of a schedule `used` has the final values, before and after it has settled."""
        criterion, expected = built(), built().used()
        schedule = ScheduleConfig(
            dice_ce_only_epochs=2,
            dice_ramp_epochs=2,
            stages=(Stage(before_epoch=6, smooth=10, clip_ratio=4),),
        )
        for number in range(1, 9):
            values = values_at(
                number,
                epochs=8,
                loss=LOSS,
                optimizer=OptimizerConfig(),
                weights=WEIGHTS,
                schedule=schedule,
            )
            criterion.set_epoch(values)
            assert criterion.dice.smooth.item() == (10 if number < 6 else 5)
            assert criterion.used() == expected


class TestBrokenWiring:
    def test_other_numbers(self) -> None:
        """`used` has the number of the live buffer, if it differs."""
        criterion = built(LOSS.model_copy(update={"kind": "focal", "alpha": 0.25}))
        assert isinstance(criterion.main, FocalLoss)
        assert criterion.main.alpha is not None
        for buffer in (
            criterion.main.gamma,
            criterion.main.alpha,
            criterion.dice.smooth,
            criterion.dice_weight,
        ):
            buffer.fill_(0.125)
        used = criterion.used()
        assert [
            used[name] for name in ("loss.gamma", "loss.alpha", "loss.smooth", "loss.dice_weight")
        ] == [0.125] * 4

    def test_schedule_never_arrives(self) -> None:
        """A schedule that settles on another value than the configured one is seen."""
        criterion = built()
        criterion.set_epoch(epoch(smooth=10.0, settled=True))
        assert criterion.used()["loss.smooth"] == 10.0

    def test_weights_not_handed_over(self) -> None:
        """A loss without the configured class weights says uniform."""
        criterion = CombinedLoss(CrossEntropyLoss(), DiceLoss(), balance=Balance(COUNTS, WEIGHTS))
        assert criterion.used()["weights.method"] == "uniform"
        assert "weights.clip_ratio" not in criterion.used()

    def test_other_method_or_clip(self) -> None:
        """Weights of another method, or never clipped, are recognized."""
        other = CombinedLoss(
            CrossEntropyLoss(weight_of(WEIGHTS.model_copy(update={"method": "inverse_freq"}))),
            DiceLoss(),
            balance=Balance(COUNTS, WEIGHTS),
        )
        assert other.used()["weights.method"] == "inverse_freq"
        bare = CombinedLoss(
            CrossEntropyLoss(weight_of(WEIGHTS.model_copy(update={"clip_ratio": None}))),
            DiceLoss(),
            balance=Balance(COUNTS, WEIGHTS),
        )
        assert bare.used()["weights.clip_ratio"] is None

    def test_unknown_weights(self) -> None:
        """Weights that no method gives are not given a method's name, nor alphas a tau that they are not of."""
        balance = Balance(COUNTS, WEIGHTS, alpha_tau=0.5)
        used = CombinedLoss(
            FocalLoss(2.0, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), DiceLoss(), balance=balance
        ).used()
        assert not [name for name in used if name.startswith("weights.") or "alpha" in name]

    def test_cross_entropy_for_focal(self) -> None:
        """A cross entropy where focal was asked for says ce and knows no gamma."""
        used = CombinedLoss(CrossEntropyLoss(), DiceLoss()).used()
        assert used["loss.kind"] == "ce"
        assert "loss.gamma" not in used


class TestBuild:
    def test_alpha_length(self) -> None:
        """An alpha for another number of classes is refused with both numbers."""
        with pytest.raises(ConfigError, match="alpha has 2 values, but there are 3 classes"):
            built(LossConfig(kind="focal", alpha=(0.5, 0.5)))

    def test_absent_classes_are_named(self) -> None:
        """A class without a pixel is warned of by name, and the loss works."""
        counts = ClassCounts(("road", "car", "ghost"), (9, 1, 0))
        with pytest.warns(UserWarning, match="ghost"):
            criterion = build_criterion(LOSS, WEIGHTS, counts, IGNORED, "cpu")
        assert criterion(*batch()).total.isfinite()

    def test_no_warning_for_equal_weights(self, recwarn: pytest.WarningsRecorder) -> None:
        """If no frequency is used, there is no warning of an absent class."""
        build_criterion(LOSS, EVEN, ClassCounts(("road", "ghost"), (9, 0)), IGNORED, "cpu")
        assert not recwarn.list
