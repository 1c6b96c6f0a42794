"""The shared sections of a configuration: what is derived and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spaces.config import (
    LossConfig,
    MetricConfig,
    OptimizerConfig,
    ScheduleConfig,
    Stage,
    TrialConfig,
    WeightsConfig,
)

shares = st.floats(min_value=0, max_value=1)


class TestSplit:
    @given(share=shares)
    def test_derived(self, share: float) -> None:
        """If one weight is given, the other is 1 minus it."""
        assert LossConfig(dice_weight=share).ce_weight == 1 - share
        assert LossConfig(ce_weight=share).dice_weight == 1 - share

    def test_default(self) -> None:
        """Dice has no weight by default."""
        assert (LossConfig().ce_weight, LossConfig().dice_weight) == (1, 0)

    @given(share=shares)
    def test_again(self, share: float) -> None:
        """A dump, which has both weights, gives the same configuration."""
        loss = LossConfig(dice_weight=share)
        assert LossConfig.model_validate(loss.model_dump()) == loss

    @pytest.mark.parametrize(
        ("ce", "dice", "total"), [(0.6, 0.3, "0.9"), (1, 1, "2"), (0, 0, "0"), (0.5, 0.500002, "1")]
    )
    def test_sum(self, ce: float, dice: float, total: str) -> None:
        """Two weights that do not sum to 1 are refused, with both and their sum."""
        with pytest.raises(
            ValidationError,
            match=rf"must sum to 1, but {ce:g} \+ {dice:g} is {total}; set only one",
        ):
            LossConfig(ce_weight=ce, dice_weight=dice)

    def test_rounding(self) -> None:
        """The sum may differ from 1 by a rounding error."""
        assert LossConfig(ce_weight=0.333333, dice_weight=0.6666667).ce_weight == 0.333333

    @pytest.mark.parametrize("share", [-0.1, 1.1])
    def test_outside(self, share: float) -> None:
        """A weight outside 0 … 1 is refused as such, whatever the other would be."""
        with pytest.raises(
            ValidationError, match=r"dice_weight\n  Input should be (greater|less) than or equal to"
        ):
            LossConfig(dice_weight=share)


class TestAlpha:
    def test_two(self) -> None:
        """A fixed alpha and an alpha from frequencies exclude each other."""
        with pytest.raises(ValidationError, match="alpha and alpha_tau exclude each other"):
            LossConfig(kind="focal", alpha=0.25, alpha_tau=0.5)

    @pytest.mark.parametrize("alpha", [-0.25, (0.5, -0.1)])
    def test_negative(self, alpha: Any) -> None:
        """A negative alpha is refused."""
        with pytest.raises(ValidationError, match="alpha must not be negative, but is"):
            LossConfig(kind="focal", alpha=alpha)

    @pytest.mark.parametrize(
        ("given", "alpha"), [(0.25, 0.25), ([0.11, 0.45], (0.11, 0.45)), (None, None), (0, 0.0)]
    )
    def test_accepted(self, given: Any, alpha: Any) -> None:
        """Alpha is one factor, one per class, or null."""
        assert LossConfig.model_validate({"kind": "focal", "alpha": given}).alpha == alpha

    @pytest.mark.parametrize("tau", [-0.01, 1.01])
    def test_tau(self, tau: float) -> None:
        """Tau is between 0 (uniform) and 1 (inverse frequency)."""
        with pytest.raises(ValidationError, match="alpha_tau"):
            LossConfig(kind="focal", alpha_tau=tau)


class TestRanges:
    @pytest.mark.parametrize(
        ("section", "given"),
        [
            (WeightsConfig, {"clip_ratio": 0.99}),
            (WeightsConfig, {"beta": 1.0}),
            (WeightsConfig, {"method": "inverse"}),
            (LossConfig, {"smooth": -1}),
            (LossConfig, {"gamma": -0.1}),
            (LossConfig, {"label_smoothing": 1.0}),
            (LossConfig, {"gamma": math.nan}),
            (OptimizerConfig, {"base_lr": 0}),
            (OptimizerConfig, {"lr_multiple": -1}),
            (OptimizerConfig, {"grad_clip_norm": 0}),
            (OptimizerConfig, {"accumulate": 0}),
            (OptimizerConfig, {"momentum": 1.0}),
            (OptimizerConfig, {"base_lr": math.inf}),
            (Stage, {"before_epoch": 1}),
            (Stage, {"before_epoch": 5, "dice_weight": 1.5}),
            (ScheduleConfig, {"dice_ramp_epochs": -1}),
            (MetricConfig, {"score": "first"}),
            (TrialConfig, {"epochs": 0}),
            (TrialConfig, {"seed": -1}),
            (TrialConfig, {"epoch": 3}),
        ],
    )
    def test_refused(self, section: Any, given: dict[str, Any]) -> None:
        """A value without a meaning is refused, with its place and its name."""
        with pytest.raises(ValidationError, match=list(given)[-1]):
            section.model_validate(given)

    def test_rate(self) -> None:
        """The peak rate is the base rate times the multiple."""
        assert OptimizerConfig(base_lr=0.2, lr_multiple=0.5).lr == 0.1

    def test_frozen(self) -> None:
        """A configuration cannot be changed."""
        with pytest.raises(ValidationError, match="frozen"):
            LossConfig().gamma = 1.0
