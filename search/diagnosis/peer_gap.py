"""Whether a complete trial is clearly worse than its peers, so that what limited it matters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

from spaces.config import Direction

LEAST_TRIALS = 4
"""Complete trials with a score without which nothing is compared."""

LEAST_GAP = 0.1
"""Distance to the median score, as a share of it, that another seed alone hardly explains.

The best epoch's score of one configuration deviates by 6 to 9% from seed to seed.
"""

DEVIATIONS = 2.0
"""Standard deviations of a trial's own noise within which it is not worse."""


def find_usual_score(scores: Iterable[float | None]) -> float | None:
    """The median of the finite scores of complete trials; None where there are too few of them."""
    known = [score for score in scores if score is not None and math.isfinite(score)]
    return median(known) if len(known) >= LEAST_TRIALS else None


def is_clearly_worse(
    score: float | None, usual: float | None, noise: float | None, direction: Direction
) -> bool:
    """Return whether a score is worse than the usual one by more than seeds and noise explain.

    Args:
        score: of a complete trial; None without one.
        usual: median of the study, see `find_usual_score`; None where nothing is compared.
        noise: standard deviation of the trial's metric from epoch to epoch; None if unknown.
        direction: of the metric; where it is minimized, worse is above.
    """
    if score is None or usual is None or not math.isfinite(score):
        return False
    gap = usual - score if direction == "maximize" else score - usual
    return gap > max(LEAST_GAP * abs(usual), DEVIATIONS * (noise or 0.0))
