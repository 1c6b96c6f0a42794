"""Searches the space for the configuration with the largest expected improvement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.special import ndtr

from search.sampling.freeze_thaw.curve_model import CurveModel
from search.sampling.freeze_thaw.curves import Floats
from search.sampling.freeze_thaw.encoding import EncodedSpace, Points, join_points
from spaces.parameters import Scalar

RANDOM_CANDIDATES = 250
MUTATED_CANDIDATES = 250
MUTATED_SHARE = 0.35
MUTATION = 0.15
"""Share of the coordinates that a mutation changes, and the standard deviation of the step."""

REFINED = 8
REFINEMENTS = 20
REFINED_STEPS = (0.1, 0.04)
"""The best candidates are mutated so many times each, in rounds with smaller steps."""


def expected_improvement(mean_P: Floats, deviation_P: Floats, reference: float) -> Floats:
    """The expected amount by which normal scores exceed a reference, 0 where they do not."""
    gap_P = (mean_P - reference) / deviation_P
    density_P = np.exp(-0.5 * gap_P**2) / np.sqrt(2.0 * np.pi)
    result: Floats = deviation_P * (gap_P * ndtr(gap_P) + density_P)
    return result


class CandidateSearch:
    """Random search with mutations of good configurations, then refinement of the best ones.

    Args:
        space: of the study.
        model: predicts the final score of a configuration.
        prior_mean: what earlier studies teach; None where nothing is known.
        generator: of all that is random.
    """

    def __init__(
        self,
        space: EncodedSpace,
        model: CurveModel,
        prior_mean: Callable[[Sequence[Mapping[str, Scalar]]], Floats] | None,
        generator: np.random.Generator,
    ) -> None:
        self._space = space
        self._model = model
        self._prior_mean = prior_mean
        self._generator = generator

    def maximize_improvement(self, good: Points, reference: float) -> tuple[Points, int, float]:
        """Find the configuration with the largest expected improvement over a reference.

        Args:
            good: configurations with a high expected score, which are mutated.
            reference: the score to improve.

        Returns:
            The last candidates, the row of the best one, and its expected improvement.
        """
        repeats = -(-MUTATED_CANDIDATES // len(good))
        parents = join_points([good] * repeats)
        points = join_points(
            [
                self._space.sample(self._generator, RANDOM_CANDIDATES),
                self._space.mutate(self._generator, parents, MUTATED_SHARE, MUTATION),
            ]
        )
        gain_P = self._find_gains(points, reference)
        for step in REFINED_STEPS:
            best = np.argsort(-gain_P, kind="stable")[:REFINED]
            kept = points.take(best)
            moved = self._space.mutate(
                self._generator, join_points([kept] * REFINEMENTS), MUTATED_SHARE, step
            )
            gain_P = np.concatenate([gain_P[best], self._find_gains(moved, reference)])
            points = join_points([kept, moved])
        row = int(np.argmax(gain_P))
        return points, row, float(gain_P[row])

    def _find_gains(self, points: Points, reference: float) -> Floats:
        features_PF, _ = self._space.features(points)
        prior_P = None
        if self._prior_mean is not None:
            decoded = [self._space.decode(points, row) for row in range(len(points))]
            prior_P = self._prior_mean(decoded)
        found = self._model.predict_new(features_PF, prior_P)
        return expected_improvement(found.mean_P, found.deviation_P, reference)
