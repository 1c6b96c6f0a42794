"""The race: which candidate is trained with which seed, which one is dropped, and how sure the winner is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from search.planning.racing import Race, RaceRules, Training, rank_candidates, replay_race

NAN = math.nan
RULES = RaceRules("maximize", 5, 0.01)
CLOSE = {1: [0.50, 0.52, 0.51, 0.49, 0.50], 2: [0.51, 0.50, 0.50, 0.51, 0.50]}


def run_race(
    values: Mapping[int, list[float]], rules: RaceRules = RULES
) -> tuple[Race, dict[int, dict[int, float]]]:
    """Train what the race asks for, until it is over."""
    scores: dict[int, dict[int, float]] = {number: {} for number in values}
    while (race := replay_race(scores, list(values), rules)).missing:
        for candidate, seed in race.missing:
            scores[candidate][seed] = values[candidate][seed - 1]
    return race, scores


class TestReplayRace:
    def test_first_round(self) -> None:
        """The first round trains every candidate with two seeds, seed by seed."""
        race = replay_race({}, [7, 3], RULES)
        assert race.missing == (Training(7, 1), Training(3, 1), Training(7, 2), Training(3, 2))
        assert (race.alive, race.end) == ((7, 3), "")

    def test_dropped(self) -> None:
        """One that falls far behind is dropped after the first round; the close ones continue."""
        values = {**CLOSE, 3: [0.30, 0.31]}
        race, scores = run_race(values)
        assert {number: len(seeds) for number, seeds in scores.items()} == {1: 5, 2: 5, 3: 2}
        assert (race.alive, race.end) == ((1, 2), "seeds are used up")

    def test_one_left(self) -> None:
        """The race ends as soon as one is left."""
        race, scores = run_race({1: [0.3, 0.31], 2: [0.5, 0.51], 3: [0.2, 0.21]})
        assert (race.alive, race.end) == ((2,), "one is left")
        assert sum(map(len, scores.values())) == 6

    def test_minimized(self) -> None:
        """With a metric that is minimized, the lowest one is left."""
        race, _ = run_race({1: [0.3, 0.31], 2: [0.5, 0.51]}, replace(RULES, direction="minimize"))
        assert race.alive == (1,)

    def test_alone(self) -> None:
        """A single candidate is trained with all seeds, as its mean is of interest."""
        race, scores = run_race({4: [0.5, 0.5, 0.5, 0.5, 0.5]})
        assert len(scores[4]) == 5
        assert (race.alive, race.end) == ((4,), "seeds are used up")

    def test_one_seed(self) -> None:
        """With one seed there is one round, which trains each candidate once."""
        race, scores = run_race(CLOSE, replace(RULES, seeds=1))
        assert {number: list(seeds) for number, seeds in scores.items()} == {1: [1], 2: [1]}
        assert race.end == "seeds are used up"

    def test_interrupted(self) -> None:
        """Only what is missing of a round is asked for, whichever part ended first."""
        scores = {1: {1: 0.5, 2: 0.52}, 2: {2: 0.50}}
        assert replay_race(scores, [1, 2], RULES).missing == (Training(2, 1),)

    def test_extended(self) -> None:
        """More seeds continue a race that used its seeds up; a new candidate is trained as well."""
        _, scores = run_race(CLOSE)
        more = replay_race(scores, [1, 2], replace(RULES, seeds=6))
        assert more.missing == (Training(1, 6), Training(2, 6))
        added = replay_race(scores, [1, 2, 9], RULES)
        assert added.missing == (Training(9, 1), Training(9, 2))

    def test_many_tied(self) -> None:
        """Of many equal candidates none is dropped because its share of the chance is small."""
        values = {number: [0.5, 0.51, 0.49] for number in range(30)}
        race, _ = run_race(values, replace(RULES, seeds=3))
        assert len(race.alive) == 30


class TestRankCandidates:
    def test_tied(self) -> None:
        """Equal scores share the chance, also where there is no noise at all."""
        scores = {5: {1: 0.5, 2: 0.5}, 3: {1: 0.5, 2: 0.5}}
        first, second = rank_candidates(scores, replace(RULES, prior_noise=None))
        assert first.chance == pytest.approx(0.5, abs=0.03)
        assert first.chance + second.chance == pytest.approx(1)
        assert (first.mean, first.low, first.high) == (0.5, 0.5, 0.5)

    def test_paired(self) -> None:
        """What a seed does to all candidates alike makes the best one no less certain."""
        alone = {1: {1: 0.50, 2: 0.51, 3: 0.52}, 2: {1: 0.53, 2: 0.54, 3: 0.55}}
        shift = {1: 0.0, 2: 0.3, 3: -0.2}
        shifted = {
            number: {seed: score + shift[seed] for seed, score in of_seeds.items()}
            for number, of_seeds in alone.items()
        }
        first, of_shifted = rank_candidates(alone, RULES)[0], rank_candidates(shifted, RULES)[0]
        assert of_shifted.number == first.number == 2
        assert of_shifted.chance == pytest.approx(first.chance, abs=0.01)
        assert (of_shifted.high or 0) - (of_shifted.low or 0) > 3 * (
            (first.high or 0) - (first.low or 0)
        )

    def test_weak_prior(self) -> None:
        """Two seeds that happen to agree do not make the noise tiny."""
        scores = {1: {1: 0.5, 2: 0.5}, 2: {1: 0.505, 2: 0.505}}
        assert rank_candidates(scores, replace(RULES, prior_noise=0.02))[0].chance < 0.8

    def test_diverged(self) -> None:
        """A candidate that diverges with one of two seeds is below one that never does."""
        scores = {1: {1: 0.9, 2: NAN}, 2: {1: 0.5, 2: 0.5}}
        first, second = rank_candidates(scores, RULES)
        assert (first.number, first.diverged) == (2, 0)
        assert (second.diverged, second.seeds, second.mean) == (1, 2, 0.9)

    def test_all_diverged(self) -> None:
        """One without a score has no mean and no chance; where none has a score, none is ahead."""
        first, last = rank_candidates({1: {1: NAN, 2: NAN}, 2: {1: 0.5, 2: 0.5}}, RULES)
        assert first.number == 2
        assert (last.mean, last.low, last.high) == (None, None, None)
        assert last.chance == 0
        both = rank_candidates({1: {1: NAN}, 2: {1: NAN}}, RULES)
        assert all(each.mean is None for each in both)

    def test_seeded(self) -> None:
        """The same scores give the same chances to the last bit."""
        scores = {number: dict(enumerate(row, 1)) for number, row in CLOSE.items()}
        assert rank_candidates(scores, RULES) == rank_candidates(scores, RULES)

    def test_unlinked(self) -> None:
        """Candidates that share no seed yet are compared by their means."""
        first, _ = rank_candidates({1: {1: 0.5}, 2: {2: 0.9}}, RULES)
        assert first.number == 2

    def test_nothing(self) -> None:
        """Without a training there is nothing to rank."""
        assert rank_candidates({1: {}}, RULES) == []
