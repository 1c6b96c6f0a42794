"""Class weights and focal alphas against the formulas, and what must hold for any counts."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives.losses.class_weights import absent_classes, class_weights, focal_alpha
from spaces.config import WeightMethod, WeightsConfig
from spaces.errors import ConfigError
from spaces.records import ClassCounts

METHODS: tuple[WeightMethod, ...] = get_args(WeightMethod)
ROAD = (8_000_000, 1_500_000, 400_000, 90_000, 16)


def counted(*counts: int) -> ClassCounts:
    return ClassCounts(tuple(f"c{index}" for index in range(len(counts))), counts)


def reference(
    counts: tuple[int, ...], method: str, clip: float | None = None, beta: float = 0.9999
) -> np.ndarray:
    """The formulas, class by class, for counts without a zero."""
    total = sum(counts)
    f = [count / total for count in counts]
    raw = {
        "uniform": [1.0 for _ in f],
        "inverse_freq": [1 / x for x in f],
        "sqrt_inv_freq": [1 / math.sqrt(x) for x in f],
        "median_freq": [float(np.median(f)) / x for x in f],
        "effective_number": [(1 - beta) / (1 - beta**count) for count in counts],
        "log_inv_freq": [1 / math.log(1.02 + x) for x in f],
    }[method]
    weights = [w / (sum(raw) / len(raw)) for w in raw]
    if clip is not None:
        clamped = [min(max(w, 1 / math.sqrt(clip)), math.sqrt(clip)) for w in weights]
        weights = [w / (sum(clamped) / len(clamped)) for w in clamped]
    return np.array(weights)


some_counts = st.lists(st.integers(0, 10**9), min_size=1, max_size=8).map(tuple)
ratios = st.one_of(st.none(), st.sampled_from([1.0, 4.0, 10.0, 25.0, 100.0]), st.floats(1, 1e4))


class TestMethods:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("clip", [None, 100.0, 4.0])
    def test_formula(self, method: WeightMethod, clip: float | None) -> None:
        """Every method gives its formula's weights, divided by their mean, then clipped and divided again."""
        weights = class_weights(
            counted(*ROAD), WeightsConfig(method=method, clip_ratio=clip)
        ).weights
        np.testing.assert_allclose(
            weights, reference(ROAD, method, clip), rtol=2e-7 if clip else 1e-9
        )

    def test_by_hand(self) -> None:
        """Three quarters against one quarter weigh 1/2 against 3/2 by inverse frequency."""
        assert class_weights(
            counted(3, 1), WeightsConfig(method="inverse_freq")
        ).weights.tolist() == [0.5, 1.5]

    def test_clip_by_hand(self) -> None:
        """Clip ratio 4 clamps to 0.5 … 2 before the second division by the mean."""
        found = class_weights(
            counted(999, 1), WeightsConfig(method="inverse_freq", clip_ratio=4)
        )  # 0.002 and 1.998, whose mean is 1
        np.testing.assert_allclose(found.weights, np.array([0.5, 1.998]) / 1.249, rtol=1e-7)
        assert found.ratio == pytest.approx(3.996)

    def test_effective_number_keeps_digits(self) -> None:
        """One sample has the effective number 1 and two have 1 + β, for every β, 0 included."""
        for beta in (0.0, 0.5, 0.9999, 1 - 1e-12):
            weights = class_weights(
                counted(1, 2), WeightsConfig(method="effective_number", beta=beta)
            ).weights
            assert weights[0] / weights[1] == pytest.approx(1 + beta, rel=1e-12)

    def test_ratio_and_names(self) -> None:
        """The result carries the names and the ratio of the largest to the smallest weight."""
        found = class_weights(counted(100, 1), WeightsConfig(method="sqrt_inv_freq"))
        assert found.names == ("c0", "c1")
        assert found.ratio == pytest.approx(10)


class TestAnyCounts:
    @settings(deadline=None, max_examples=200)
    @given(counts=some_counts, method=st.sampled_from(METHODS), clip=ratios)
    def test_mean_is_one(
        self, counts: tuple[int, ...], method: WeightMethod, clip: float | None
    ) -> None:
        """The present classes' weights have mean 1 and are positive; absent classes weigh 1."""
        weights = class_weights(
            counted(*counts), WeightsConfig(method=method, clip_ratio=clip)
        ).weights
        present = np.array(counts) > 0
        assert (weights > 0).all()
        np.testing.assert_allclose(weights[~present], 1, rtol=2e-7)
        if present.any():
            assert weights[present].mean() == pytest.approx(1, rel=2e-7 if clip else 1e-12)

    @settings(deadline=None, max_examples=400)
    @given(
        counts=some_counts,
        method=st.sampled_from(METHODS),
        clip=st.one_of(st.floats(1, 1 + 1e-6), st.floats(1, 1e4)),
    )
    def test_ratio_is_bounded_exactly(
        self, counts: tuple[int, ...], method: WeightMethod, clip: float
    ) -> None:
        """max/min never exceeds the clip ratio, in exact arithmetic, in float64 and in float32."""
        found = class_weights(counted(*counts), WeightsConfig(method=method, clip_ratio=clip))
        narrow = found.weights.astype(np.float32)
        for weights in (found.weights, narrow):
            assert Fraction(float(weights.max())) <= Fraction(clip) * Fraction(float(weights.min()))
            assert float(weights.max() / weights.min()) <= clip
        assert found.ratio <= clip

    @settings(deadline=None, max_examples=200)
    @given(counts=some_counts, method=st.sampled_from(METHODS), clip=ratios)
    def test_order_is_kept(
        self, counts: tuple[int, ...], method: WeightMethod, clip: float | None
    ) -> None:
        """A rarer class never weighs less than a more frequent one."""
        weights = class_weights(
            counted(*counts), WeightsConfig(method=method, clip_ratio=clip)
        ).weights
        by_count = [
            weights[index] for index in np.argsort(counts, kind="stable") if counts[index] > 0
        ]
        assert all(rare >= frequent for rare, frequent in pairwise(by_count))

    @settings(deadline=None, max_examples=200)
    @given(counts=some_counts, method=st.sampled_from(METHODS), clip=ratios, data=st.data())
    def test_permutation(
        self, counts: tuple[int, ...], method: WeightMethod, clip: float | None, data: st.DataObject
    ) -> None:
        """Permuting the classes permutes the weights, to the last bit."""
        order = data.draw(st.permutations(range(len(counts))))
        config = WeightsConfig(method=method, clip_ratio=clip)
        straight = class_weights(counted(*counts), config).weights
        assert (
            class_weights(counted(*(counts[index] for index in order)), config).weights.tolist()
            == straight[order].tolist()
        )


class TestAbsent:
    @pytest.mark.parametrize("method", METHODS)
    def test_left_out(self, method: WeightMethod) -> None:
        """A class without a pixel weighs 1, is named, and changes no other weight."""
        config = WeightsConfig(method=method, clip_ratio=25)
        found = class_weights(counted(900, 0, 90, 10), config)
        without = class_weights(counted(900, 90, 10), config)
        assert found.absent == ("c1",)
        assert found.weights[1] == 1
        assert found.weights[[0, 2, 3]].tolist() == without.weights.tolist()

    def test_all_absent(self) -> None:
        """Nothing counted at all gives equal weights and names every class."""
        found = class_weights(counted(0, 0), WeightsConfig(method="inverse_freq"))
        assert (found.weights.tolist(), found.ratio, found.absent) == ([1, 1], 1, ("c0", "c1"))

    def test_names(self) -> None:
        """Only the classes with the count 0 are absent."""
        assert absent_classes(counted(1, 0, 2, 0)) == ("c1", "c3")


class TestFocalAlpha:
    @settings(deadline=None)
    @given(counts=some_counts, tau=st.floats(0, 1))
    def test_mean_over_pixels_is_one(self, counts: tuple[int, ...], tau: float) -> None:
        """Σ f·alpha over the present classes is 1 for every tau, and absent classes have alpha 1."""
        alpha = focal_alpha(counted(*counts), tau)
        present = np.array(counts) > 0
        assert (alpha[~present] == 1).all()
        if present.any():
            assert float(np.sum(np.array(counts) / sum(counts) * alpha)) == pytest.approx(1)

    @pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
    def test_proportion(self, tau: float) -> None:
        """Alphas are in the proportion f^(−tau)."""
        alpha = focal_alpha(counted(1600, 100), tau)
        assert alpha[1] / alpha[0] == pytest.approx(16**tau)

    @pytest.mark.parametrize("tau", [0.0, 1.0])
    def test_factors(self, tau: float) -> None:
        """A factor by name multiplies the alpha of its class against all others, and the mean over the pixels stays 1."""
        alpha, plain = (
            focal_alpha(counted(1600, 100, 400), tau, {"c1": 3.0}),
            focal_alpha(counted(1600, 100, 400), tau),
        )
        assert alpha / plain / (alpha[0] / plain[0]) == pytest.approx([1, 3, 1])
        assert float(np.sum(np.array([1600, 100, 400]) / 2100 * alpha)) == pytest.approx(1)

    def test_only_ratios(self) -> None:
        """Factors that are all larger by the same are the same."""
        assert focal_alpha(counted(7, 2), 0.0, {"c0": 2.0, "c1": 6.0}) == pytest.approx(
            focal_alpha(counted(7, 2), 0.0, {"c1": 3.0})
        )

    def test_unknown_class(self) -> None:
        """A factor of a class that there is not is refused with the nearest one."""
        with pytest.raises(ConfigError, match=r"no class 'c11' \(did you mean 'c1'\?\)"):
            focal_alpha(counted(1, 2), 0.0, {"c11": 2.0})

    def test_bad_tau(self) -> None:
        """A negative tau is refused with its value."""
        with pytest.raises(ConfigError, match=r"-0\.5"):
            focal_alpha(counted(1, 2), -0.5)


class TestBadCounts:
    def test_lengths(self) -> None:
        """Names and counts of different number are refused with both numbers."""
        with pytest.raises(ConfigError, match="2 names and 1 counts"):
            class_weights(ClassCounts(("a", "b"), (1,)), WeightsConfig())

    def test_no_class(self) -> None:
        """No class at all is refused."""
        with pytest.raises(ConfigError, match="0 names and 0 counts"):
            class_weights(ClassCounts((), ()), WeightsConfig())

    def test_negative(self) -> None:
        """A negative count is refused with its value."""
        with pytest.raises(ConfigError, match="-3"):
            class_weights(counted(5, -3), WeightsConfig())
