"""Failure regions: where in the search space more trials end early than chance explains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, combinations, pairwise
from math import comb
from typing import Literal

from spaces.parameters import Scalar

LEAST_ENDED = 3
"""Number of trials that ended early below which a side of a dimension is no region."""

SIGNIFICANCE = 0.05
"""Probability under chance, corrected for all candidates (Bonferroni), up to which one counts."""

SIDE_SIGNIFICANCE = 0.05
"""The same for each side of a region with two, against the trials between them.

It is corrected for the thresholds of the dimension, as the best of them was selected.
"""

LEAST_SHARE = 0.5
"""Share of the trials in a region that must have ended early for a warning to make sense."""

MOST_THRESHOLDS = 40
"""Thresholds of a dimension of which pairs are tried; with more, evenly spaced ones."""

End = Literal["complete", "pruned", "diverged"]

Trial = tuple[Mapping[str, Scalar], End]
"""The sampled values of an ended trial by dotted path, and how it ended."""

Labeled = Sequence[tuple[Scalar, bool]]
"""The value of one dimension in every trial that has it, and whether the trial ended early."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a dimension, or one of its choices.

    Attributes:
        condition: what is inside, as text: `> 0.4` or `= inverse_freq`.
        ended: trials inside that ended early.
        trials: all ended trials inside.
    """

    condition: str
    ended: int
    trials: int

    @property
    def is_warning(self) -> bool:
        """Whether enough of the trials inside ended early."""
        return self.ended >= LEAST_ENDED and self.ended >= LEAST_SHARE * self.trials


@dataclass(frozen=True, slots=True)
class FailureRegion:
    """One side of a dimension, or both, in which most trials ended early.

    Attributes:
        path: the dimension.
        sides: one, or the upper and the lower one.
        ended_else: trials outside the region that ended early.
        trials_else: all ended trials outside the region.
        chance: probability of so many inside by chance (Fisher's exact test), not corrected for the
            number of candidates.
        how: whether the trials diverged, or ended early: diverged or pruned.
    """

    path: str
    sides: tuple[Side, ...]
    ended_else: int
    trials_else: int
    chance: float
    how: Literal["diverged", "ended early"] = "ended early"

    @property
    def ended(self) -> int:
        """Trials inside the region that ended early."""
        return sum(side.ended for side in self.sides)

    @property
    def trials(self) -> int:
        """All ended trials inside the region."""
        return sum(side.trials for side in self.sides)

    def __str__(self) -> str:
        first, *others = self.sides
        inside = f"{_count_ended(first)} trials with {self.path} {first.condition}"
        for side in others:
            inside += f" and {_count_ended(side)} with {side.condition}"
        return f"{inside} {self.how} ({self.ended_else} of {self.trials_else} others)"


def _count_ended(side: Side) -> str:
    return f"all {side.trials}" if side.ended == side.trials else f"{side.ended} of {side.trials}"


def find_failure_regions(trials: Sequence[Trial]) -> tuple[FailureRegion, ...]:
    """Find, per dimension, the most significant region of trials that diverged or ended early.

    There are three families of candidates: sides and choices in which trials diverged, those in
    which they ended early, and pairs of sides of the latter. Each family gets the same part of the
    significance, and each of its candidates the same part of that.

    Args:
        trials: those that ended without an error.

    Returns:
        One region at most per dimension, the most significant first.
    """
    paths = dict.fromkeys(path for params, _ in trials for path in params)
    ended = {path: _label_trials(path, trials, ("pruned", "diverged")) for path in paths}
    diverged = {path: _label_trials(path, trials, ("diverged",)) for path in paths}
    families = [
        [region for path in paths for region in _list_sides(path, diverged[path])],
        [region for path in paths for region in _list_pairs(path, ended[path])],
    ]
    if any(end == "pruned" for _, end in trials):
        families.insert(1, [region for path in paths for region in _list_sides(path, ended[path])])
        families[0] = [replace(region, how="diverged") for region in families[0]]
    else:
        families = [[replace(each, how="diverged") for each in family] for family in families]
    significant = [
        (region.chance * len(family), region)
        for family in families
        for region in family
        if region.chance * len(family) * len(families) <= SIGNIFICANCE
    ]
    best: dict[str, FailureRegion] = {}
    for _, region in sorted(significant, key=lambda found: (found[0], -found[1].ended)):
        best.setdefault(region.path, region)
    return tuple(best.values())


def _label_trials(path: str, trials: Sequence[Trial], ends: Sequence[End]) -> Labeled:
    return [(params[path], end in ends) for params, end in trials if path in params]


def _list_sides(path: str, labeled: Labeled) -> Iterator[FailureRegion]:
    """Every region with one side: both sides of each threshold, or each single choice."""
    total = _sum_side("", [ended for _, ended in labeled])
    if not _is_numeric(labeled):
        for choice in dict.fromkeys(value for value, _ in labeled):
            name = f"= {'none' if choice is None else choice}"
            inside = [ended for value, ended in labeled if value == choice]
            yield _make_region(path, (_sum_side(name, inside),), total)
        return
    for below, above in _split_sides(labeled):
        yield _make_region(path, (above,), total)
        yield _make_region(path, (below,), total)


def _list_pairs(path: str, labeled: Labeled) -> Iterator[FailureRegion]:
    """Every region above one threshold and below a lower one."""
    if not _is_numeric(labeled):
        return
    total = _sum_side("", [ended for _, ended in labeled])
    splits = list(_split_sides(labeled))
    step = max(1, -(-len(splits) // MOST_THRESHOLDS))
    tried = splits[::step]
    for (below, _), (_, above) in combinations(tried, 2):
        yield _make_region(path, (above, below), total, SIDE_SIGNIFICANCE / len(tried))


def _is_numeric(labeled: Labeled) -> bool:
    return not any(isinstance(value, (bool, str)) or value is None for value, _ in labeled)


def _sum_side(condition: str, ended: Sequence[bool]) -> Side:
    return Side(condition, sum(ended), len(ended))


def _split_sides(labeled: Labeled) -> Iterator[tuple[Side, Side]]:
    """The trials below and above each threshold between two values, in ascending order."""
    ordered = sorted((float(value or 0), ended) for value, ended in labeled)
    counts = list(accumulate(ended for _, ended in ordered))
    for at, ((low, _), (high, _)) in enumerate(pairwise(ordered), 1):
        if low == high:
            continue
        shown = _show_threshold(low, high, (low * high) ** 0.5 if low > 0 else (low + high) / 2)
        below = Side(f"< {shown}", counts[at - 1], at)
        yield below, Side(f"> {shown}", counts[-1] - below.ended, len(ordered) - at)


def _show_threshold(low: float, high: float, threshold: float) -> str:
    """The threshold with as few digits as separate the two numbers next to it."""
    for digits in range(2, 17):
        text = f"{threshold:.{digits}g}"
        if low <= float(text) < high:
            return text
    return repr(threshold)


def _make_region(
    path: str, sides: tuple[Side, ...], total: Side, side_significance: float = 1.0
) -> FailureRegion:
    """The region with its chance, which is 1 where it could be no warning anyway.

    Args:
        path: the dimension.
        sides: of the region.
        total: all trials that have the dimension.
        side_significance: chance of each side up to which the region counts.
    """
    ended_else = total.ended - sum(side.ended for side in sides)
    trials_else = total.trials - sum(side.trials for side in sides)
    region = FailureRegion(path, sides, ended_else, trials_else, 1.0)
    if not all(side.is_warning for side in sides):
        return region
    if side_significance < 1 and any(
        _fisher_test(side.ended, side.trials, ended_else, trials_else) > side_significance
        for side in sides
    ):
        return region
    chance = _fisher_test(region.ended, region.trials, ended_else, trials_else)
    return replace(region, chance=chance)


def _fisher_test(ended: int, trials: int, ended_else: int, trials_else: int) -> float:
    """One-sided p-value of Fisher's exact test: as many ended trials inside, or more, by chance.

    The sum of the hypergeometric probabilities, in integers; a tail beyond the precision of a float
    is left out.
    """
    all_ended = ended + ended_else
    term = comb(trials, ended) * comb(trials_else, ended_else)
    ways = term
    for inside in range(ended, min(all_ended, trials)):
        outside = trials_else - all_ended + inside + 1
        term = term * (trials - inside) * (all_ended - inside) // ((inside + 1) * outside)
        ways += term
        if term << 80 < ways:
            break
    return ways / comb(trials + trials_else, all_ended)
