"""The signs of health of a study: those that distinguish its trials, and classes never found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from search.diagnosis.health import DeadClasses, check_health, find_dead_classes, name_classes
from search.diagnosis.stored_diagnosis import list_class_names
from spaces.config import Direction
from spaces.records import EpochRecord
from storage.rows import StoredTrial

LISTED_TRIALS = 8
"""Numbers of trials that a line lists."""

Records = Mapping[int, Sequence[EpochRecord]]
"""Id of a trial → its records."""


def describe_study_health(
    complete: Sequence[StoredTrial], records: Records, direction: Direction
) -> tuple[str, ...]:
    """The signs of health by which complete trials differ, and the classes that they do not find.

    The signs that all trials show, or none, say nothing about one of them: they are in one line.
    """
    signs = {
        trial.number: check_health(records.get(trial.id, ()), direction)[:-1] for trial in complete
    }
    lines = []
    common: dict[str, list[str]] = {"all": [], "none": []}
    for column in zip(*signs.values(), strict=True):
        found = dict(zip(signs, column, strict=True))
        judged = [number for number, sign in found.items() if sign.present is not None]
        missing = [number for number, sign in found.items() if sign.present is False]
        name = column[0].name
        if 0 < len(missing) < len(judged):
            shown = f"{len(judged) - len(missing)} of {len(judged)} complete trials"
            lines.append(f"{name}: {shown}; missing in {_list_trials(missing)}")
        elif judged:
            common["none" if missing else "all"].append(name)
    lines += _describe_dead_classes(complete, records)
    return (*lines, *_describe_common(common, len(complete)))


def _describe_common(common: Mapping[str, Sequence[str]], trials: int) -> list[str]:
    if trials < 2:
        return []
    parts = []
    if common["all"]:
        parts.append(f"all {trials} complete trials show: {', '.join(common['all'])}")
    if common["none"]:
        parts.append(f"none of the {trials} shows: {', '.join(common['none'])}")
    return ["; ".join(parts)] if parts else []


def _describe_dead_classes(complete: Sequence[StoredTrial], records: Records) -> list[str]:
    """A line with the classes that were never found, and one with those that were lost."""
    kinds: dict[str, Callable[[DeadClasses], tuple[int, ...]]] = {
        "never found": lambda dead: dead.never_found,
        "learned and lost": lambda dead: dead.lost,
    }
    dead = {trial.id: find_dead_classes(records.get(trial.id, ())) for trial in complete}
    lines = []
    for kind, choose in kinds.items():
        trials_of: dict[str, list[int | None]] = defaultdict(list)
        for trial in complete:
            names = list_class_names(trial.used or {}, records.get(trial.id, ()))
            for name in name_classes(choose(dead[trial.id]), names):
                trials_of[name].append(trial.number)
        if trials_of:
            lines.append(f"{kind}: {_list_classes(trials_of, len(complete))}")
    return lines


def _list_classes(trials_of: Mapping[str, Sequence[int | None]], complete: int) -> str:
    """Classes with the trials; those of all trials come first."""
    parts = []
    everywhere = [name for name, numbers in trials_of.items() if len(numbers) == complete > 1]
    if everywhere:
        parts.append(f"{', '.join(everywhere)} (in all {complete} complete trials)")
    parts += [
        f"{name} (in {_list_trials(numbers)})"
        for name, numbers in trials_of.items()
        if name not in everywhere
    ]
    return ", ".join(parts)


def _list_trials(numbers: Sequence[int | None]) -> str:
    more = " …" if len(numbers) > LISTED_TRIALS else ""
    noun = "trial" if len(numbers) == 1 else "trials"
    return f"{noun} {', '.join(map(str, numbers[:LISTED_TRIALS]))}{more}"
