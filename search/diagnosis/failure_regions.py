"""What the kills of a study have in common: where in the searched space trials diverge, and where they do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb

from spaces.parameters import Scalar

LEAST_KILLS = 3
"""Fewer are no pattern."""

LEVEL = 0.05
"""How likely chance alone may draw a line as sharp as this, all lines that were tried counted in (Bonferroni)."""

LEAST_SHARE = 0.5
"""A region is worth a warning when at least so many of its trials diverged."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One line through the space: of the trials on its far side so many diverged, of the others so few.

    Attributes:
        path: the dimension.
        condition: in words, `> 0.4` or `= inverse_freq`.
        killed, trials: on the far side.
        killed_else, trials_else: on the other.
        chance: how likely chance alone draws such a line (Fisher's exact test, corrected for the lines that were tried).
    """

    path: str
    condition: str
    killed: int
    trials: int
    killed_else: int
    trials_else: int
    chance: float

    def __str__(self) -> str:
        return f"{self.killed} of {self.trials} trials with {self.path} {self.condition} diverged ({self.killed_else} of {self.trials_else} others)"


Trial = tuple[Mapping[str, Scalar], bool]
"""What was sampled for an ended trial, and whether it diverged."""


def lessons(trials: Sequence[Trial]) -> tuple[Lesson, ...]:
    """For every dimension the sharpest line that chance does not explain, the sharpest first.

    Args:
        trials: those that ended, whether complete, pruned by their peers, or diverged.
    """
    if sum(diverged for _, diverged in trials) < LEAST_KILLS:
        return ()
    paths = dict.fromkeys(path for params, _ in trials for path in params)
    tried = [
        lesson
        for path in paths
        for lesson in _lines(path, [trial for trial in trials if path in trial[0]])
    ]
    best: dict[str, Lesson] = {}
    for lesson in sorted(tried, key=lambda lesson: (lesson.chance, -lesson.killed)):
        corrected = lesson.chance * len(tried)
        if (
            lesson.killed >= LEAST_KILLS
            and lesson.killed >= LEAST_SHARE * lesson.trials
            and corrected <= LEVEL
        ):
            best.setdefault(lesson.path, lesson)
    return tuple(best.values())


def _lines(path: str, trials: Sequence[Trial]) -> Iterator[Lesson]:
    """Every line that can be drawn at one dimension: thresholds between numbers, both ways, and single choices."""
    values = [params[path] for params, _ in trials]
    if any(isinstance(value, (bool, str)) or value is None for value in values):
        for choice in dict.fromkeys(values):
            yield _lesson(
                path,
                f"= {'none' if choice is None else choice}",
                trials,
                [value == choice for value in values],
            )
        return
    numbers = sorted({float(value) for value in values if value is not None})
    for low, high in pairwise(numbers):
        between = (low * high) ** 0.5 if low > 0 else (low + high) / 2
        above = [float(value or 0) > between for value in values]
        shown = _between(low, high, between)
        yield _lesson(path, f"> {shown}", trials, above)
        yield _lesson(path, f"< {shown}", trials, [not far for far in above])


def _between(low: float, high: float, middle: float) -> str:
    """The middle with as few digits as still part the two."""
    return next(
        (text for digits in range(2, 17) if low <= float(text := f"{middle:.{digits}g}") < high),
        repr(middle),
    )


def _lesson(path: str, condition: str, trials: Sequence[Trial], far: Sequence[bool]) -> Lesson:
    counts = {(side, diverged): 0 for side in (True, False) for diverged in (True, False)}
    for (_, diverged), side in zip(trials, far, strict=True):
        counts[side, diverged] += 1
    killed, killed_else = counts[True, True], counts[False, True]
    trials_far, trials_else = killed + counts[True, False], killed_else + counts[False, False]
    chance = _fisher(killed, trials_far, killed_else, trials_else)
    return Lesson(path, condition, killed, trials_far, killed_else, trials_else, chance)


def _fisher(killed: int, trials: int, killed_else: int, trials_else: int) -> float:
    """Fisher's exact test, one-sided: how likely chance alone puts so many of the kills, or more, on the far side.

    The sum of the hypergeometric probabilities, in whole numbers; a tail beyond a float's precision is left out.
    """
    kills = killed + killed_else
    ways = term = comb(trials, killed) * comb(trials_else, killed_else)
    for far in range(killed, min(kills, trials)):
        term = (
            term * (trials - far) * (kills - far) // ((far + 1) * (trials_else - kills + far + 1))
        )
        ways += term
        if term << 80 < ways:
            break
    return ways / comb(trials + trials_else, kills)
