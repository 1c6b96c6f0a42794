"""Failure regions of a study."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from search.diagnosis.failure_regions import End, Trial, _fisher_test, find_failure_regions


def end(diverged: bool) -> End:
    """How a trial ended that no peer ended."""
    return "diverged" if diverged else "complete"


def by_rate(rates: list[float], limit: float) -> list[Trial]:
    """Trials that diverge above a rate."""
    return [({"rate": rate, "clip": 1.0}, end(rate > limit)) for rate in rates]


class TestFindFailureRegions:
    def test_threshold(self) -> None:
        """A rate above which trials diverge is found, with the counts on both sides."""
        (found,) = find_failure_regions(by_rate([0.1 * step for step in range(1, 31)], 2.05))
        assert (found.path, found.ended, found.trials, found.ended_else, found.trials_else) == (
            "rate",
            10,
            10,
            0,
            20,
        )
        assert str(found) == "all 10 trials with rate > 2 diverged (0 of 20 others)"

    @pytest.mark.parametrize(
        ("low", "high", "shown"),
        [(1239.5, 1245.0, 1242.0), (0.101, 0.1045, 0.103), (2.0, 2.1, 2.0)],
    )
    def test_digits(self, low: float, high: float, shown: float) -> None:
        """A threshold has as many digits as separate the trials on its sides."""
        trials: list[Trial] = [({"x": low}, "complete")] * 12 + [({"x": high}, "diverged")] * 12
        (found,) = find_failure_regions(trials)
        assert low <= float(found.sides[0].condition.removeprefix("> ")) < high
        assert float(found.sides[0].condition.removeprefix("> ")) == pytest.approx(shown, rel=0.01)

    def test_below(self) -> None:
        """A region may be below a threshold."""
        trials: list[Trial] = [
            ({"clip": value}, end(value < 1)) for value in [0.1, 0.2, 0.3, 0.4, 0.5, *range(2, 12)]
        ]
        (found,) = find_failure_regions(trials)
        assert found.sides[0].condition == "< 1"
        assert (found.ended, found.trials) == (5, 5)

    def test_choice(self) -> None:
        """A region may be one choice of a categorical dimension."""
        trials: list[Trial] = [
            ({"method": method}, end(method == "inverse"))
            for method in ["inverse", "sqrt", "uniform"] * 6
        ]
        (found,) = find_failure_regions(trials)
        assert str(found) == "all 6 trials with method = inverse diverged (0 of 12 others)"

    def test_none_is_a_choice(self) -> None:
        """None is a choice like any other."""
        trials: list[Trial] = [({"clip": clip}, end(clip is None)) for clip in [None, 1.0, 5.0] * 6]
        assert find_failure_regions(trials)[0].sides[0].condition == "= none"

    def test_conditional(self) -> None:
        """A trial without the dimension does not count for it."""
        trials: list[Trial] = [({"gamma": float(value)}, end(value > 5)) for value in range(12)] + [
            ({}, "complete")
        ] * 50
        found = find_failure_regions(trials)[0]
        assert (found.trials, found.trials_else) == (6, 6)

    @pytest.mark.parametrize("kills", [0, 1, 2])
    def test_few(self, kills: int) -> None:
        """One or two diverged trials give no region."""
        assert (
            find_failure_regions(
                [({"rate": float(rate)}, end(rate >= 30 - kills)) for rate in range(30)]
            )
            == ()
        )

    def test_both_ends(self) -> None:
        """Trials that diverge above one rate and are pruned below another make one region."""
        rates = [0.01, 0.02, 0.04, *(0.1 * step for step in range(1, 18)), 6.0, 8.0, 20.0, 30.0]
        trials: list[Trial] = [
            ({"rate": rate}, "diverged" if rate > 5 else "pruned" if rate < 0.05 else "complete")
            for rate in rates
        ]
        (found,) = find_failure_regions(trials)
        assert str(found) == (
            "all 4 trials with rate > 3.2 and all 3 with < 0.063 ended early (0 of 17 others)"
        )

    def test_pruned(self) -> None:
        """Pruned trials alone have a region, where trials ended early."""
        trials: list[Trial] = [
            ({"rate": float(rate)}, "pruned" if rate < 8 else "complete") for rate in range(1, 25)
        ]
        (found,) = find_failure_regions(trials)
        assert str(found).startswith("all 7 trials with rate < 7.5 ended early")

    def test_diverged_among_pruned(self) -> None:
        """A region of diverged trials is named as such where trials are pruned all over."""
        trials: list[Trial] = [
            (
                {"rate": float(rate)},
                "diverged" if rate > 30 else "pruned" if rate % 3 else "complete",
            )
            for rate in range(1, 41)
        ]
        (found,) = find_failure_regions(trials)
        assert str(found).startswith("all 10 trials with rate > 30 diverged (0 of 30")

    @pytest.mark.parametrize("trials", [24, 60])
    def test_chance(self, trials: int) -> None:
        """Trials that end early at random give no region, in 95 of 100 studies and more."""
        draw = random.Random(trials)
        ends: list[End] = ["diverged", "pruned", "complete", "complete"]
        found = 0
        for _ in range(200):
            table: list[Trial] = [
                (
                    {"a": draw.random(), "b": draw.random(), "c": draw.choice("xyz")},
                    draw.choice(ends),
                )
                for _ in range(trials)
            ]
            found += bool(find_failure_regions(table))
        assert found <= 10

    def test_one_end_only(self) -> None:
        """Where trials diverge at one end and are pruned at random, the other end is not named."""
        draw = random.Random(1)
        two_sided = 0
        for _ in range(100):
            rates = [draw.random() for _ in range(40)]
            trials: list[Trial] = [
                (
                    {"rate": rate},
                    "diverged"
                    if rate > 0.8
                    else draw.choice(["pruned", "complete", "complete", "complete"]),
                )
                for rate in rates
            ]
            two_sided += any(len(found.sides) > 1 for found in find_failure_regions(trials))
        assert two_sided <= 5

    def test_second_end_by_chance(self) -> None:
        """Where trials are pruned above a rate and at random, the other end is hardly ever named.

        That holds for 99 of 100 studies: the second side is the best of many, and judged as such.
        """
        two_sided = 0
        for trials, share, limit in ((24, 0.25, 0.7), (24, 0.25, 0.75), (30, 0.25, 0.75)):
            draw = random.Random(trials)
            for _ in range(60):
                rates = [draw.random() for _ in range(trials)]
                table: list[Trial] = [
                    (
                        {"rate": rate},
                        "pruned" if rate > limit or draw.random() < share else "complete",
                    )
                    for rate in rates
                ]
                two_sided += any(len(found.sides) > 1 for found in find_failure_regions(table))
        assert two_sided <= 1

    def test_equal(self) -> None:
        """A dimension with a single value has no region."""
        assert find_failure_regions([({"rate": 1.0}, end(index < 5)) for index in range(10)]) == ()


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
