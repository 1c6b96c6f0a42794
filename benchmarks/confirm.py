"""Does `search confirm` find the best of three configurations if the leaderboard has it second?

The studies are planted: no training, three candidates of which the second is truly better than the
two others, by a gap in units of the noise from seed to seed. The noise of a score is one that was
recorded, that of a preset trained with 20 seeds (benchmarks/campaign/presets.jsonl.gz) around its
mean, and so is the noise from epoch to epoch, from which the race takes its prior. The race is the
product's own.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from benchmarks import report
from benchmarks.campaign import records
from benchmarks.report import Figure, Result
from search.planning.racing import RaceRules, rank_candidates, replay_race
from search.report.confirmation import expect_noise
from spaces.recordings import read_recording
from spaces.records import score

GAPS = (0.5, 1.0, 1.5, 2.0)
JUDGED_GAP = 1.0
"""The gap at which the bound is to hold, in units of the noise from seed to seed."""

STUDIES, QUICK_STUDIES = 1000, 20
CANDIDATES, BEST, SEEDS = (0, 1, 2), 1, 5
LEVEL = 0.4
LEAST_FOUND, MOST_TRAININGS = 0.85, 15


@dataclass(frozen=True)
class RecordedNoise:
    """Noise of recorded trainings.

    Attributes:
        deviations: of the scores from the mean of their preset, corrected for the mean's own noise.
        expected: noise from seed to seed that each training's epochs let expect.
    """

    deviations: np.ndarray
    expected: np.ndarray

    @property
    def deviation(self) -> float:
        """The standard deviation from seed to seed."""
        return float(np.sqrt((self.deviations**2).mean()))


def read_noise() -> RecordedNoise:
    """Read the noise of the presets."""
    recording = read_recording(records("presets"))
    metric = recording.study.metric
    groups = defaultdict(list)
    for trial in recording.trials:
        groups[trial.preset].append(score(trial.epochs, metric))
    deviations = [
        (np.array(group) - np.mean(group)) * np.sqrt(len(group) / (len(group) - 1))
        for group in groups.values()
    ]
    expected = [expect_noise([trial.epochs], metric.score) for trial in recording.trials]
    return RecordedNoise(
        np.concatenate(deviations), np.array([each for each in expected if each is not None])
    )


@dataclass(frozen=True)
class Outcome:
    """What a race came to: the winner, its chance to be the best, and the trainings it took."""

    winner: int
    chance: float
    trainings: int


def run_race(noise: RecordedNoise, gap: float, seed: int) -> Outcome:
    """Race the candidates of one planted study."""
    rng = np.random.default_rng(seed)
    prior = float(np.median(rng.choice(noise.expected, len(CANDIDATES))))
    rules = RaceRules("maximize", SEEDS, prior, seed)
    scores: dict[int, dict[int, float]] = {each: {} for each in CANDIDATES}
    while missing := replay_race(scores, CANDIDATES, rules).missing:
        for candidate, number in missing:
            level = LEVEL + (gap * noise.deviation if candidate == BEST else 0.0)
            scores[candidate][number] = level + rng.choice(noise.deviations)
    first = rank_candidates(scores, rules)[0]
    return Outcome(first.number, first.chance, sum(map(len, scores.values())))


def measure(*, quick: bool) -> Result:
    """Race the planted studies of every gap."""
    noise = read_noise()
    count = QUICK_STUDIES if quick else STUDIES
    figures, details = [], {}
    for gap in GAPS:
        outcomes = [run_race(noise, gap, seed) for seed in range(count)]
        found = float(np.mean([each.winner == BEST for each in outcomes]))
        trainings = [each.trainings for each in outcomes]
        bounds = {"bound": LEAST_FOUND, "at_least": True} if gap >= JUDGED_GAP else {}
        figures += [
            Figure(f"gap of {gap} noise deviations: the best one found", found, **bounds),
            Figure(
                f"gap of {gap} noise deviations: trainings, most",
                max(trainings),
                bound=MOST_TRAININGS,
            ),
            Figure(f"gap of {gap} noise deviations: trainings, mean", float(np.mean(trainings))),
            Figure(
                f"gap of {gap} noise deviations: chance that was reported, mean",
                float(np.mean([each.chance for each in outcomes])),
            ),
        ]
        details[str(gap)] = {
            "studies": count,
            "trainings": {str(n): trainings.count(n) for n in sorted(set(trainings))},
        }
    details["noise"] = {
        "deviation_from_seed_to_seed": noise.deviation,
        "expected_from_epochs_median": float(np.median(noise.expected)),
    }
    return Result(figures, details)


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("confirm", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
