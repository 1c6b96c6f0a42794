"""The signal `class_collapse`: classes are lost, or dead for good once nothing more is learned."""

from __future__ import annotations

from search.pruners.dead_classes import FoundDead, find_dead, select_learned
from search.pruners.epoch_windows import (
    LEAST_SEVERITY,
    Records,
    last_comparable,
    make_evidence,
    recombined_losses,
)
from search.pruners.robust_stats import estimate_noise, median_slope
from spaces.records import Evidence
from spaces.thresholds import ClassCollapse


def class_collapse(records: Records, rule: ClassCollapse) -> Evidence | None:
    """Classes that were learned are lost, or most classes are dead for good.

    A class that was never learned has not collapsed while the trial still learns; see
    `not_learning`.
    """
    found = find_dead(records, rule) if rule.enabled else None
    if found is None:
        return None
    lost = select_learned(records, found.dead, rule)
    if lost and (found.are_most or _lost_enough(records, found, lost, rule)):
        return _make_evidence(records, rule, found, lost)
    if not lost and found.are_most and _is_stuck(records, found, rule):
        return _make_evidence(records, rule, found, lost)
    return None


def _lost_enough(records: Records, found: FoundDead, lost: list[int], rule: ClassCollapse) -> bool:
    """Whether enough of the classes that were learned are lost."""
    alive = [index for index in found.present if index not in found.dead]
    known = len(lost) + len(select_learned(records, alive, rule))
    return len(lost) >= rule.lost_share * known


def _is_stuck(records: Records, found: FoundDead, rule: ClassCollapse) -> bool:
    """Whether the classes were dead long after the schedule settled, with a loss that is flat."""
    window = records[-rule.settled_epochs :]
    if len(window) < rule.settled_epochs or not window[0].settled:
        return False
    for record in window:
        values = [record.class_metric[index : index + 1] for index in found.dead]
        if any(value and value[0] is not None and value[0] > rule.level for value in values):
            return False
    losses = recombined_losses(last_comparable(records, rule.settled_epochs))
    if len(losses) < rule.settled_epochs:
        return False
    fall = -median_slope(losses) * (len(losses) - 1)
    return fall <= rule.loss_noise * estimate_noise(losses)


def _make_evidence(
    records: Records, rule: ClassCollapse, found: FoundDead, lost: list[int]
) -> Evidence:
    epochs = [record.epoch for record in records[-found.epochs :]]
    level = f"{rule.level:g} or less" if rule.level else "0"
    count = f"{len(found.dead)} of {len(found.present)} classes"
    statement = f"{count} stayed at {level} from epoch {epochs[0]} to {epochs[-1]}"
    if lost:
        statement += f"; {len(lost)} of them had been above {rule.found_level:g}"
    else:
        statement += f", and the loss has not fallen for {rule.settled_epochs} epochs"
    return make_evidence(
        "class_collapse",
        records[-1],
        statement,
        {
            "dead_classes": found.dead,
            "lost_classes": lost,
            "present_classes": found.present,
            "epochs": epochs,
        },
        max(LEAST_SEVERITY, len(found.dead) / len(found.present)),
    )
