"""Fit the confidence of the diagnosis to planted faults: `python -m benchmarks.calibration`.

Reads trials that `python -m benchmarks.faults --from 100` trained, so with seeds that are not
reported, and prints the temperature and the weight of the unknown cause under which the stated
confidence fits best: those with the lowest log loss of "the first cause is right". They are
constants in `search/diagnosis/rank_causes.py`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from benchmarks.planted_trials import DEFAULT_FILE, PlantedTrial, load_trials
from search.diagnosis.rank_causes import (
    TEMPERATURE,
    UNKNOWN_CAUSE,
    sum_weights,
    weigh_likelihoods,
)

FIRST_SEED = 100
TEMPERATURES = tuple(0.4 + 0.1 * step for step in range(27))
UNKNOWN_WEIGHTS = tuple(1 + 0.5 * step for step in range(7))
"""From 1 on: below it a single weak observation would be a clear cause, in healthy trials, too."""


class Ranked(NamedTuple):
    """Summed weights of the causes of one trial, and the planted cause."""

    totals: Mapping[str, float]
    planted: str

    @property
    def first(self) -> str:
        """The cause that is named first."""
        return max(self.totals, key=lambda cause: self.totals[cause])


def rank_trial(trial: PlantedTrial) -> Ranked:
    """Judge a trial as a worker would, and sum the weights of every cause."""
    evidence, records = trial.judged()
    totals = sum_weights(evidence, records, trial.config, trial.counts)
    return Ranked(totals, trial.job.fault.cause)


def log_loss(ranked: Sequence[Ranked], temperature: float, unknown: float) -> float:
    """Mean log loss of the stated confidence that the first cause is right.

    With Platt's targets (1999): of n right ones each counts as right by (n + 1)/(n + 2), as other
    seeds than those that were fitted will not all be right.
    """
    total = 0.0
    right = sum(each.first == each.planted for each in ranked)
    target = (right + 1) / (right + 2)
    target_wrong = 1 / (len(ranked) - right + 2)
    for each in ranked:
        stated = weigh_likelihoods(each.totals, temperature, unknown)[each.first]
        stated = min(max(stated, 1e-6), 1 - 1e-6)
        likely = target if each.first == each.planted else target_wrong
        total -= likely * math.log(stated) + (1 - likely) * math.log(1 - stated)
    return total / len(ranked)


def main() -> int:
    """Print the best pair, and the loss of the current one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=Path, default=DEFAULT_FILE, help="where records are kept")
    options = parser.parse_args()
    trials = [
        trial
        for trial in load_trials(options.trials).values()
        if trial.job.seed >= FIRST_SEED and not trial.job.is_healthy
    ]
    if not trials:
        parser.error(f"{options.trials} has no trial with a planted fault and a seed from 100 on")
    ranked = [rank_trial(trial) for trial in trials]
    right = sum(each.first == each.planted for each in ranked)
    pairs = product(TEMPERATURES, UNKNOWN_WEIGHTS)
    loss, temperature, unknown = min((log_loss(ranked, *pair), *pair) for pair in pairs)
    print(f"{len(ranked)} trials, of which {right} are right")
    print(f"best: temperature {temperature:.1f}, unknown cause {unknown:g}, log loss {loss:.4f}")
    current = log_loss(ranked, TEMPERATURE, UNKNOWN_CAUSE)
    print(f"now: temperature {TEMPERATURE:g}, unknown cause {UNKNOWN_CAUSE:g}, {current:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
