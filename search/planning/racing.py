"""Race a few configurations over seeds: which to train again, and how likely each is the best.

A race trains all candidates on the same seeds, round by round, and drops those that fall behind, as
the Hoeffding races of Maron and Moore (1994) and the F-race of Birattari et al. (2002) do. Here a
candidate is dropped by its posterior: scores are the sum of a candidate's own level, an effect of
the seed that all candidates share, and normal noise; levels and effects have flat priors, the noise
has a weak one. The differences between candidates then have a multivariate t distribution (Gelman
et al., Bayesian Data Analysis, 2013, chapter 14), which is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from spaces.config import Direction

Scores = Mapping[int, Mapping[int, float]]
"""Number of a candidate → number of a seed, from 1 → score; NaN where the training diverged."""

Floats = NDArray[np.float64]

FIRST_SEEDS = 2
"""Seeds of the first round; each further round adds one."""

DROP_BELOW = 0.05
"""A candidate with a smaller chance to be better than the likely best one is dropped."""

SETTLED_AT = 0.95
"""The race ends when a candidate is the best with this chance."""

PRIOR_FREEDOM = 2.0
"""Degrees of freedom that the prior of the noise counts for: it decides after two seeds, and hardly
matters after five."""

DRAWS = 5_000

INTERVAL = 0.95
"""Probability of the interval of a mean."""


@dataclass(frozen=True, slots=True)
class RaceRules:
    """What decides a race besides the scores.

    Attributes:
        direction: of the metric.
        seeds: most seeds per candidate.
        prior_noise: deviation of a score from seed to seed that is expected before any is seen;
            None: that of all scores together.
        random_seed: of the draws from the posterior.
    """

    direction: Direction
    seeds: int
    prior_noise: float | None = None
    random_seed: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What the seeds say about a candidate so far.

    Attributes:
        seeds: number of trainings that ended, diverged ones included.
        diverged: number of those that diverged.
        mean: of the scores, diverged ones left out; None where there is no score.
        low: lower end of the 95% interval of the mean over seeds; None where there is no score.
        high: upper end of the interval.
        chance: that it is the best of all candidates.
        chance_to_lead: that it is better than the one with the highest chance, which has 1.
    """

    number: int
    seeds: int
    diverged: int
    mean: float | None
    low: float | None
    high: float | None
    chance: float
    chance_to_lead: float


class Training(NamedTuple):
    """A candidate and a seed to train it with."""

    candidate: int
    seed_number: int


@dataclass(frozen=True, slots=True)
class Race:
    """The state of a race.

    Attributes:
        alive: candidates that were not dropped.
        missing: the trainings that the current round lacks; none when the race is over.
        end: why it is over.
    """

    alive: tuple[int, ...]
    missing: tuple[Training, ...] = ()
    end: Literal["", "one is left", "settled", "seeds are used up"] = ""


def replay_race(scores: Scores, candidates: Sequence[int], rules: RaceRules) -> Race:
    """Replay the rounds of a race, up to the first one that lacks a training.

    The state of a race follows from its scores alone, so that it can be interrupted, repeated, and
    extended by more seeds or candidates.

    Args:
        scores: of all trainings that have ended.
        candidates: their numbers, the most promising one first.
        rules: of the race.
    """
    alive = tuple(candidates)
    for count in range(min(FIRST_SEEDS, rules.seeds), rules.seeds + 1):
        numbers = range(1, count + 1)
        wanted = [Training(each, seed) for seed in numbers for each in alive]
        missing = [each for each in wanted if each.seed_number not in scores.get(each[0], {})]
        if missing:
            return Race(alive, tuple(missing))
        seen = {
            each: {seed: score for seed, score in scores[each].items() if seed <= count}
            for each in candidates
        }
        standings = {each.number: each for each in rank_candidates(seen, rules)}
        alive = tuple(each for each in alive if standings[each].chance_to_lead >= DROP_BELOW)
        if len(alive) == 1 and len(candidates) > 1:
            return Race(alive, end="one is left")
        if len(candidates) > 1 and max(each.chance for each in standings.values()) >= SETTLED_AT:
            return Race(alive, end="settled")
    return Race(alive, end="seeds are used up")


def rank_candidates(scores: Scores, rules: RaceRules) -> list[Standing]:
    """Rate the candidates that have a training, the likely best one first.

    A training that diverged counts as worse than every score, by the range of all scores, so that a
    candidate that diverges once in two seeds is not above one that never does. A candidate without
    any score is never the best.
    """
    numbers = [number for number, of_seeds in scores.items() if of_seeds]
    if not numbers:
        return []
    table = _ScoreTable.from_scores({number: scores[number] for number in numbers}, rules)
    draws_NC = _draw_levels(table, rules)
    top_NC = draws_NC == draws_NC.max(axis=1, keepdims=True)
    chance_C = (top_NC / top_NC.sum(axis=1, keepdims=True)).mean(axis=0)
    leader = int(np.argmax(chance_C))
    lead_C = (draws_NC > draws_NC[:, [leader]]).mean(axis=0)
    lead_C += 0.5 * (draws_NC == draws_NC[:, [leader]]).mean(axis=0)
    lead_C[leader] = 1.0
    half_C = _half_intervals(table)
    found = [
        _make_standing(table, row, number, half_C[row], chance_C[row], lead_C[row])
        for row, number in enumerate(numbers)
    ]
    return sorted(found, key=lambda each: -each.chance)


def _make_standing(
    table: _ScoreTable, row: int, number: int, half: float, chance: float, lead: float
) -> Standing:
    finite = table.finite_of(row)
    mean = table.sign * float(finite.mean()) if len(finite) else None
    return Standing(
        number=number,
        seeds=int((table.row_K == row).sum()),
        diverged=int((table.row_K == row).sum()) - len(finite),
        mean=mean,
        low=None if mean is None else mean - half,
        high=None if mean is None else mean + half,
        chance=float(chance),
        chance_to_lead=float(lead),
    )


@dataclass(frozen=True)
class _ScoreTable:
    """The scores of all trainings K, higher is better; NaN where one diverged.

    Attributes:
        row_K: index of the candidate.
        column_K: index of the seed.
        score_K: the score.
        candidates: number of candidates.
        sign: by which a score was multiplied.
        prior_noise: deviation of a score that is expected before any is seen.
    """

    row_K: NDArray[np.int64]
    column_K: NDArray[np.int64]
    score_K: Floats
    candidates: int
    sign: float
    prior_noise: float

    @classmethod
    def from_scores(cls, scores: Scores, rules: RaceRules) -> _ScoreTable:
        sign = 1.0 if rules.direction == "maximize" else -1.0
        columns = {seed: at for at, seed in enumerate(sorted(set().union(*scores.values())))}
        cells = [
            (row, columns[seed], sign * score if math.isfinite(score) else math.nan)
            for row, of_seeds in enumerate(scores.values())
            for seed, score in sorted(of_seeds.items())
        ]
        row_K, column_K, score_K = (np.array(column) for column in zip(*cells, strict=True))
        finite = score_K[np.isfinite(score_K)]
        noise = rules.prior_noise or (float(finite.std()) if len(finite) else 0.0)
        return cls(row_K, column_K, score_K.astype(np.float64), len(scores), sign, noise)

    def finite_of(self, row: int) -> Floats:
        """The scores of a candidate."""
        of_row: Floats = self.score_K[self.row_K == row]
        return of_row[np.isfinite(of_row)]

    def fill_diverged(self, noise: float) -> Floats:
        """The scores, with one that is worse than all others where a training diverged."""
        finite = self.score_K[np.isfinite(self.score_K)]
        if not len(finite):
            return np.zeros_like(self.score_K)
        worst = finite.min() - max(float(np.ptp(finite)), 3 * noise)
        filled: Floats = np.where(np.isfinite(self.score_K), self.score_K, worst)
        return filled


def _draw_levels(table: _ScoreTable, rules: RaceRules) -> Floats:
    """Draw the candidates' levels from their posterior, up to a constant that all share."""
    squares, freedom = _sum_residuals(table)
    freedom += PRIOR_FREEDOM
    squares += PRIOR_FREEDOM * table.prior_noise**2
    design_KP = _make_design(table.row_K, table.column_K)
    filled_K = table.fill_diverged(math.sqrt(squares / freedom))
    count = table.candidates
    covariance_PP = np.linalg.inv(design_KP.T @ design_KP)
    level_C = (covariance_PP @ design_KP.T @ filled_K)[:count]
    root_CC = np.linalg.cholesky(covariance_PP[:count, :count])
    generator = np.random.default_rng(rules.random_seed)
    noise_N1 = np.sqrt(squares / generator.chisquare(freedom, size=(DRAWS, 1)))
    normal_NC = generator.standard_normal((DRAWS, count))
    draws: Floats = level_C + noise_N1 * (normal_NC @ root_CC.T)
    has_score_C = np.array([len(table.finite_of(row)) > 0 for row in range(count)])
    if has_score_C.any():
        draws[:, ~has_score_C] = -np.inf
    return draws


def _sum_residuals(table: _ScoreTable) -> tuple[float, float]:
    """The sum of squares that candidates and seeds leave unexplained, and its freedom."""
    kept = np.isfinite(table.score_K)
    if not kept.any():
        return 0.0, 0.0
    design_KP = _make_design(table.row_K[kept], table.column_K[kept])
    solution_P = np.linalg.lstsq(design_KP, table.score_K[kept], rcond=None)[0]
    residual_K = table.score_K[kept] - design_KP @ solution_P
    return float(residual_K @ residual_K), float(design_KP.shape[0] - design_KP.shape[1])


def _make_design(row_K: NDArray[np.int64], column_K: NDArray[np.int64]) -> Floats:
    """One column per candidate, and one per seed but the first.

    The seeds are left out where they do not link all candidates, as after an interrupted round:
    then the effects of seeds and candidates cannot be separated.
    """
    rows, columns = np.unique(row_K), np.unique(column_K)
    of_row = (row_K[:, None] == rows).astype(np.float64)
    of_column = (column_K[:, None] == columns[1:]).astype(np.float64)
    joined = np.concatenate([of_row, of_column], axis=1)
    return joined if np.linalg.matrix_rank(joined) == joined.shape[1] else of_row


def _half_intervals(table: _ScoreTable) -> Floats:
    """Half the 95% interval of each candidate's mean over seeds, by Student's distribution.

    The noise is that of all candidates together, effects of the seeds included.
    """
    groups = [table.finite_of(row) for row in range(table.candidates)]
    freedom = PRIOR_FREEDOM + sum(max(len(group) - 1, 0) for group in groups)
    squares = PRIOR_FREEDOM * table.prior_noise**2
    squares += sum(float(((group - group.mean()) ** 2).sum()) for group in groups if len(group))
    quantile = float(stdtrit(freedom, 0.5 + INTERVAL / 2))
    deviation = math.sqrt(squares / freedom)
    return np.array([quantile * deviation / math.sqrt(max(len(group), 1)) for group in groups])
