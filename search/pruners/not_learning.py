"""The signal `not_learning`: most classes were never learned, and the metric no longer improves."""

from __future__ import annotations

from collections.abc import Sequence

from search.pruners.dead_classes import find_dead, select_learned, select_never_found
from search.pruners.epoch_windows import Records, has_metric, make_evidence
from search.pruners.sparing import is_improving
from spaces.records import Evidence
from spaces.thresholds import NotLearning, Sparing


def not_learning(
    records: Records, rule: NotLearning, sparing: Sparing, sign: float = 1.0
) -> Evidence | None:
    """Most classes are near zero and always were, and the metric has stopped improving.

    Args:
        records: of the trial.
        rule: the thresholds.
        sparing: the thresholds from which on a trial is improving.
        sign: 1 where the metric is maximized, -1 where it is minimized.
    """
    found = find_dead(records, rule) if rule.enabled else None
    if found is None or not found.are_most:
        return None
    known = select_learned(records, found.dead, rule)
    never = [index for index in found.dead if index not in known]
    enough = not known or len(never) >= rule.share * len(found.present)
    if not enough or is_improving(records, sparing, sign):
        return None
    epochs = [record.epoch for record in records[-found.epochs :]]
    level = f"{rule.level:g} or less" if rule.level else "0"
    best = max((sign * record.metric for record in records if has_metric(record)), default=None)
    statement = f"{len(never)} of {len(found.present)} classes were never learned:"
    statement += f" {_describe_span(epochs)} they stayed at {level}"
    if unseen := select_never_found(records, never):
        how_many = "all" if len(unseen) == len(never) else str(len(unseen))
        statement += f" ({how_many} of them never found)"
    if best is not None:
        statement += f", and the metric has stopped improving ({sign * best:.4f} at best)"
    return make_evidence(
        "not_learning",
        records[-1],
        statement,
        {"dead_classes": never, "present_classes": found.present, "epochs": epochs},
        len(never) / len(found.present),
    )


def _describe_span(epochs: Sequence[int]) -> str:
    if len(epochs) == 1:
        return f"in epoch {epochs[0]}"
    return f"from epoch {epochs[0]} to {epochs[-1]}"
