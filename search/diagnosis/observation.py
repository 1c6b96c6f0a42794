"""Observations about a trial, each with a weight for or against a cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from search.diagnosis.facts import Facts


class Observation(NamedTuple):
    """One observation about a trial.

    Attributes:
        weight: logarithm of how much likelier the observation is under the cause than under the
            others: 1 leans, 2 is strong, 4 settles it; negative where it speaks against the cause.
        text: the observation with its numbers.
        measured: whether it comes from the training, or from the configuration alone.
    """

    weight: float
    text: str
    measured: bool = True


Observations = Iterator[Observation]

Cause = Callable[[Facts], Observations]
"""What speaks for and against one cause, given the facts of a trial."""

LARGE_NORM = 100.0
"""Gradient norm above which a training is not healthy; a usual one is within 0.1 to 10."""

VANISHING_NORM = 1e-3
"""Gradient norm below which nothing can be learned."""

FOREIGN_SCALE = 10.0
"""First loss, over that of a guess, above which the loss has an unusual scale."""

NOTHING_LEARNED = 0.1
"""Share by which the loss fell below which nothing was learned."""

EARLY_EPOCHS = 3
"""Epochs at the start of a trial in which the loss may jump for many reasons."""

JUMP = 1.4
"""Ratio of two losses above which the loss jumped."""

PRESET_RATE = 0.3
"""Multiple of the base rate of the presets for a weighted loss; below it a rate may be too low."""

CHANCE = 0.1
"""Class metric up to which a class is not recognized."""

TINY_BATCH = 2
"""Samples up to which the statistics of batch normalization are noise."""
