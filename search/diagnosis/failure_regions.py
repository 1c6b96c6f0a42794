"""Failure regions: where in the search space more trials diverge than chance explains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb

from spaces.parameters import Scalar

LEAST_DIVERGED = 3
"""Number of diverged trials below which no region is reported."""

SIGNIFICANCE = 0.05
"""Probability under chance, corrected for all candidates (Bonferroni), up to which one counts."""

LEAST_SHARE = 0.5
"""Share of the trials in a region that must have diverged for a warning to make sense."""


@dataclass(frozen=True, slots=True)
class FailureRegion:
    """A half-space or a choice of one dimension in which most trials diverged.

    Attributes:
        path: the dimension.
        condition: what is in the region, as text: `> 0.4` or `= inverse_freq`.
        killed: diverged trials inside the region.
        trials: all ended trials inside the region.
        killed_else: diverged trials outside the region.
        trials_else: all ended trials outside the region.
        chance: probability of so many diverged trials inside by chance (Fisher's exact test), not
            corrected for the number of candidates.
    """

    path: str
    condition: str
    killed: int
    trials: int
    killed_else: int
    trials_else: int
    chance: float

    @property
    def is_warning(self) -> bool:
        """Whether enough of the trials inside the region diverged."""
        return self.killed >= LEAST_DIVERGED and self.killed >= LEAST_SHARE * self.trials

    def __str__(self) -> str:
        inside = f"{self.killed} of {self.trials} trials with {self.path} {self.condition} diverged"
        return f"{inside} ({self.killed_else} of {self.trials_else} others)"


Trial = tuple[Mapping[str, Scalar], bool]
"""The sampled values of an ended trial by dotted path, and whether it diverged."""


def find_failure_regions(trials: Sequence[Trial]) -> tuple[FailureRegion, ...]:
    """Find, per dimension, the most significant region of diverged trials.

    Args:
        trials: those that ended: complete, pruned, or diverged.

    Returns:
        One region at most per dimension, the most significant first.
    """
    if sum(diverged for _, diverged in trials) < LEAST_DIVERGED:
        return ()
    candidates: list[FailureRegion] = []
    for path in dict.fromkeys(path for params, _ in trials for path in params):
        candidates += _candidate_regions(path, [trial for trial in trials if path in trial[0]])
    best: dict[str, FailureRegion] = {}
    for region in sorted(candidates, key=lambda region: (region.chance, -region.killed)):
        if region.is_warning and region.chance * len(candidates) <= SIGNIFICANCE:
            best.setdefault(region.path, region)
    return tuple(best.values())


def _candidate_regions(path: str, trials: Sequence[Trial]) -> Iterator[FailureRegion]:
    """Every region of one dimension: both sides of each threshold, or each single choice."""
    values = [params[path] for params, _ in trials]
    if any(isinstance(value, (bool, str)) or value is None for value in values):
        for choice in dict.fromkeys(values):
            condition = f"= {'none' if choice is None else choice}"
            yield _count_region(path, condition, trials, [value == choice for value in values])
        return
    numbers = sorted({float(value) for value in values if value is not None})
    for low, high in pairwise(numbers):
        threshold = (low * high) ** 0.5 if low > 0 else (low + high) / 2
        above = [float(value or 0) > threshold for value in values]
        shown = _show_threshold(low, high, threshold)
        yield _count_region(path, f"> {shown}", trials, above)
        yield _count_region(path, f"< {shown}", trials, [not inside for inside in above])


def _show_threshold(low: float, high: float, threshold: float) -> str:
    """The threshold with as few digits as separate the two numbers next to it."""
    for digits in range(2, 17):
        text = f"{threshold:.{digits}g}"
        if low <= float(text) < high:
            return text
    return repr(threshold)


def _count_region(
    path: str, condition: str, trials: Sequence[Trial], inside: Sequence[bool]
) -> FailureRegion:
    """The region with its counts, given which of the trials are inside of it."""
    sides = list(zip(inside, (diverged for _, diverged in trials), strict=True))
    killed = sides.count((True, True))
    killed_else = sides.count((False, True))
    trials_in = killed + sides.count((True, False))
    trials_else = killed_else + sides.count((False, False))
    chance = _fisher_test(killed, trials_in, killed_else, trials_else)
    return FailureRegion(path, condition, killed, trials_in, killed_else, trials_else, chance)


def _fisher_test(killed: int, trials: int, killed_else: int, trials_else: int) -> float:
    """One-sided p-value of Fisher's exact test: as many diverged trials inside, or more, by chance.

    The sum of the hypergeometric probabilities, in integers; a tail beyond the precision of a float
    is left out.
    """
    kills = killed + killed_else
    term = comb(trials, killed) * comb(trials_else, killed_else)
    ways = term
    for inside in range(killed, min(kills, trials)):
        outside = trials_else - kills + inside + 1
        term = term * (trials - inside) * (kills - inside) // ((inside + 1) * outside)
        ways += term
        if term << 80 < ways:
            break
    return ways / comb(trials + trials_else, kills)
