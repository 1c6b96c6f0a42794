"""A long search for the best true score of a task, which its regrets are measured from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.search.configurations import draw_params, mutate_params
from benchmarks.search.tasks.base import Params
from spaces.parameters import Parameter

RANDOM, ROUNDS, KEPT, CHILDREN = 20_000, 120, 60, 30
"""Random configurations; then rounds in which each of the best is changed so many times."""

ScoreMany = Callable[[Sequence[Params]], np.ndarray]
"""Configurations → their true scores, shape (configurations,); larger is better."""


def find_best(
    space: Mapping[str, Parameter],
    score_many: ScoreMany,
    random: int = RANDOM,
    rounds: int = ROUNDS,
) -> tuple[float, float]:
    """Search a space by mutation of the best; the same result every time.

    Returns:
        The best score, and the median score of the random configurations.
    """
    generator = np.random.default_rng(0)
    pool = [draw_params(space, generator) for _ in range(random)]
    scores = score_many(pool)
    median = float(np.median(scores))
    for number in range(rounds):
        order = np.argsort(-scores)[:KEPT]
        pool, scores = [pool[index] for index in order], scores[order]
        spread = 0.3 * 0.01 ** (number / rounds)  # from a third of the axis to a three-hundredth
        children = [
            mutate_params(space, parent, generator, chance=0.3, spread=spread)
            for parent in pool
            for _ in range(CHILDREN)
        ]
        pool += children
        scores = np.concatenate([scores, score_many(children)])
    return float(scores.max()), median
