"""Failure regions of a study."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from search.diagnosis.failure_regions import Trial, _fisher_test, find_failure_regions


def by_rate(rates: list[float], limit: float) -> list[Trial]:
    """Trials that diverge above a rate."""
    return [({"rate": rate, "clip": 1.0}, rate > limit) for rate in rates]


class TestFindFailureRegions:
    def test_threshold(self) -> None:
        """A rate above which trials diverge is found, with the counts on both sides."""
        (found,) = find_failure_regions(by_rate([0.1 * step for step in range(1, 31)], 2.05))
        assert (found.path, found.killed, found.trials, found.killed_else, found.trials_else) == (
            "rate",
            10,
            10,
            0,
            20,
        )
        assert str(found) == "10 of 10 trials with rate > 2 diverged (0 of 20 others)"

    @pytest.mark.parametrize(
        ("low", "high", "shown"),
        [(1239.5, 1245.0, 1242.0), (0.101, 0.1045, 0.103), (2.0, 2.1, 2.0)],
    )
    def test_digits(self, low: float, high: float, shown: float) -> None:
        """A threshold has as many digits as separate the trials on its sides."""
        trials: list[Trial] = [({"x": low}, False)] * 12 + [({"x": high}, True)] * 12
        (found,) = find_failure_regions(trials)
        assert low <= float(found.condition.removeprefix("> ")) < high
        assert float(found.condition.removeprefix("> ")) == pytest.approx(shown, rel=0.01)

    def test_below(self) -> None:
        """A region may be below a threshold."""
        trials: list[Trial] = [
            ({"clip": value}, value < 1) for value in [0.1, 0.2, 0.3, 0.4, 0.5, *range(2, 12)]
        ]
        (found,) = find_failure_regions(trials)
        assert found.condition == "< 1"
        assert (found.killed, found.trials) == (5, 5)

    def test_choice(self) -> None:
        """A region may be one choice of a categorical dimension."""
        trials: list[Trial] = [
            ({"method": method}, method == "inverse")
            for method in ["inverse", "sqrt", "uniform"] * 6
        ]
        (found,) = find_failure_regions(trials)
        assert str(found) == "6 of 6 trials with method = inverse diverged (0 of 12 others)"

    def test_none_is_a_choice(self) -> None:
        """None is a choice like any other."""
        trials: list[Trial] = [({"clip": clip}, clip is None) for clip in [None, 1.0, 5.0] * 6]
        assert find_failure_regions(trials)[0].condition == "= none"

    def test_conditional(self) -> None:
        """A trial without the dimension does not count for it."""
        trials: list[Trial] = [({"gamma": float(value)}, value > 5) for value in range(12)] + [
            ({}, False)
        ] * 50
        found = find_failure_regions(trials)[0]
        assert (found.trials, found.trials_else) == (6, 6)

    @pytest.mark.parametrize("kills", [0, 1, 2])
    def test_few(self, kills: int) -> None:
        """One or two diverged trials give no region."""
        assert (
            find_failure_regions(
                [({"rate": float(rate)}, rate >= 30 - kills) for rate in range(30)]
            )
            == ()
        )

    def test_chance(self) -> None:
        """Trials that diverge at random give no region, in nearly all of a hundred studies."""
        draw = random.Random(0)
        found = 0
        for _ in range(100):
            trials: list[Trial] = [
                (
                    {"a": draw.random(), "b": draw.random(), "c": draw.choice("xyz")},
                    draw.random() < 0.3,
                )
                for _ in range(30)
            ]
            found += bool(find_failure_regions(trials))
        assert found <= 5

    def test_equal(self) -> None:
        """A dimension with a single value has no region."""
        assert find_failure_regions([({"rate": 1.0}, index < 5) for index in range(10)]) == ()


class TestFisher:
    @given(st.tuples(*[st.integers(0, 400)] * 4))
    def test_peer(self, table: tuple[int, int, int, int]) -> None:
        """The p-value equals that of SciPy's exact test for any counts."""
        killed, lived, killed_else, lived_else = table
        peer = fisher_exact(
            [[killed, lived], [killed_else, lived_else]], alternative="greater"
        ).pvalue
        assert _fisher_test(
            killed, killed + lived, killed_else, killed_else + lived_else
        ) == pytest.approx(peer, rel=1e-9, abs=1e-300)

    def test_large(self) -> None:
        """It is exact for thousands of trials, where single probabilities underflow."""
        peer = fisher_exact([[900, 100], [2100, 2900]], alternative="greater").pvalue
        assert _fisher_test(900, 1000, 2100, 5000) == pytest.approx(peer, rel=1e-9)
        assert _fisher_test(900, 1000, 0, 5000) == 0.0
        assert _fisher_test(0, 1000, 900, 5000) == 1.0
