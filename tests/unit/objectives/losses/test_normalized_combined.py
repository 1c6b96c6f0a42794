"""The normalised loss: each part over its running mean, which a batch moves once and an evaluation never."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from objectives.losses import (
    CombinedLoss,
    DiceLoss,
    FocalLoss,
    NormalizedCombinedLoss,
    cross_entropy,
)
from spaces.config import LossConfig, WeightsConfig
from spaces.errors import ConfigError
from tests.unit.objectives.losses.test_combined import EVEN, IGNORED, batch, built, epoch

torch.set_num_threads(1)


class TestNormalized:
    def test_running_mean(self) -> None:
        """Each part is divided by the bias-corrected running mean of its own values, this batch's included."""
        criterion, normalised = built(), NormalizedCombinedLoss(built())
        history: list[tuple[float, float]] = []
        for seed in range(5):
            parts, found = criterion(*batch(seed)), normalised(*batch(seed))
            assert parts.dice is not None
            history.append((float(parts.ce), float(parts.dice)))
            decay = np.array([0.99 ** (seed - past) for past in range(seed + 1)])
            means = decay @ np.array(history) / decay.sum()
            assert float(found.total.detach()) == pytest.approx(
                0.6 * history[-1][0] / means[0] + 0.4 * history[-1][1] / means[1]
            )
            assert (found.ce, found.dice) == (parts.ce, parts.dice)

    def test_scale_is_lost(self) -> None:
        """A factor on all logits' losses, such as alpha, changes neither value nor gradient."""
        logits, target = batch()
        found = []
        for alpha in (0.01, 1.0):
            main, overlap = (
                FocalLoss(2.0, alpha, ignore_index=IGNORED),
                DiceLoss(ignore_index=IGNORED),
            )
            total = NormalizedCombinedLoss(CombinedLoss(main, overlap))(logits, target).total
            found.append((total.detach(), *torch.autograd.grad(total, logits)))
        torch.testing.assert_close(found[0], found[1])
        assert float(found[0][0]) == pytest.approx(1)

    def test_no_gradient_through_the_mean(self) -> None:
        """The gradient is that of the part over a constant."""
        logits, target = batch()
        total = NormalizedCombinedLoss(built(LossConfig(), EVEN))(logits, target).total
        ce = cross_entropy(logits, target, ignore_index=IGNORED)
        torch.testing.assert_close(
            torch.autograd.grad(total, logits)[0], torch.autograd.grad(ce, logits)[0] / ce.detach()
        )

    def test_bad_batches_leave_no_trace(self) -> None:
        """A batch with nothing valid costs 0, one with NaN costs NaN, and neither moves the means."""
        logits, target = batch()
        normalised = NormalizedCombinedLoss(built())
        assert normalised(logits, torch.full_like(target, IGNORED)).total == 0
        normalised(logits, target)
        before = normalised.state_dict()["mean_2"].clone()
        assert normalised(logits * float("nan"), target).total.isnan()
        assert normalised(logits, torch.full_like(target, IGNORED)).total == 0
        assert torch.equal(normalised.mean_2, before)

    def test_evaluation_does_not_learn(self) -> None:
        """In evaluation mode the means are used and left alone."""
        normalised = NormalizedCombinedLoss(built())
        normalised(*batch(0))
        before = normalised.mean_2.clone()
        normalised.eval()(*batch(1))
        assert torch.equal(normalised.mean_2, before)

    def test_checkpoint(self) -> None:
        """The state dict has the means: a resumed loss continues as if it had never stopped."""
        first, second = NormalizedCombinedLoss(built()), NormalizedCombinedLoss(built())
        first(*batch(0))
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(*batch(1)).total, second(*batch(1)).total)

    def test_schedule_and_used(self) -> None:
        """Schedule and used values are those of the loss inside."""
        normalised = NormalizedCombinedLoss(built())
        normalised.set_epoch(epoch(0.0))
        assert normalised(*batch()).dice is None
        assert normalised.used() == built().used() | {
            "loss.normalize": True,
            "loss.normalize_momentum": 0.99,
        }

    def test_momentum(self) -> None:
        """A momentum of 1 would never learn and is refused with its value."""
        with pytest.raises(ConfigError, match=r"1\.0"):
            NormalizedCombinedLoss(built(), momentum=1.0)

    def test_scale(self) -> None:
        """`scale_2` is what the parts are multiplied by: 1 before the first batch, then one over the running mean; 1 for a part that never was."""
        normalised, (logits, target) = NormalizedCombinedLoss(built()), batch()
        assert normalised.scale_2.tolist() == [1, 1]
        parts = normalised(logits, target)
        assert parts.dice is not None
        assert normalised.scale_2.tolist() == pytest.approx(
            [1 / float(parts.ce), 1 / float(parts.dice)]
        )
        alone = NormalizedCombinedLoss(built(LossConfig()))
        assert alone.scale_2.tolist() == [1, 1]
        assert alone(logits, target).dice is None
        assert alone.scale_2[1] == 1

    def test_scale_is_applied(self) -> None:
        """The total is the parts, times their scales, by their shares."""
        normalised = NormalizedCombinedLoss(built(), momentum=0.5)
        normalised(*batch(0))
        found = normalised.eval()(*batch(1))
        assert found.dice is not None
        expected = 0.6 * normalised.scale_2[0] * found.ce + 0.4 * normalised.scale_2[1] * found.dice
        torch.testing.assert_close(found.total.detach(), expected)

    def test_momentum_is_used(self) -> None:
        """A momentum of 0 forgets all but the current batch, so every part is 1; `used` has the momentum."""
        normalised = NormalizedCombinedLoss(built(), momentum=0.0)
        for seed in range(3):
            assert float(normalised(*batch(seed)).total.detach()) == pytest.approx(1)
        assert normalised.used()["loss.normalize_momentum"] == 0.0
        assert (
            NormalizedCombinedLoss(built(), momentum=0.9).used()["loss.normalize_momentum"] == 0.9
        )

    @pytest.mark.parametrize(
        "config",
        [
            WeightsConfig(method="inverse_freq"),
            WeightsConfig(method="sqrt_inv_freq", clip_ratio=4.0),
            EVEN,
        ],
    )
    @pytest.mark.parametrize("dice_weight", [0.2, 0.7])
    def test_weights_do_not_rescale(self, config: WeightsConfig, dice_weight: float) -> None:
        """Whatever the class weights and the split, the first batch costs 1."""
        normalised = NormalizedCombinedLoss(built(LossConfig(dice_weight=dice_weight), config))
        assert float(normalised(*batch()).total.detach()) == pytest.approx(1)
