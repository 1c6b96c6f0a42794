"""The diagnosis of a trial in the store: of what ended it, or of a complete trial's problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.diagnosis.health import check_health
from search.diagnosis.rank_causes import diagnose
from spaces.config import Direction
from spaces.records import ClassCounts, Diagnosis, EpochRecord
from storage.rows import Finding, StoredTrial


def find_ending(trial: StoredTrial, found: Sequence[Finding]) -> Finding | None:
    """The finding that ended a trial; the others are warnings.

    Stores before version 0003 did not record what ended a trial; there it is the last finding.
    """
    if trial.state not in ("diverged", "pruned"):
        return None
    named = [finding for finding in found if finding[0].signal == trial.signal]
    if named or trial.state == "pruned":
        return named[-1] if named else None
    return found[-1] if found else None


def diagnose_complete(
    records: Sequence[EpochRecord],
    config: Mapping[str, Any],
    direction: Direction,
    names: tuple[str, ...],
    *,
    is_worse: bool = False,
) -> Diagnosis | None:
    """Diagnose what limited a complete trial that lacks a sign of health or is worse than its peers.

    Args:
        records: of the trial.
        config: of the trial, nested.
        direction: of the metric.
        names: of the classes.
        is_worse: whether its score is clearly worse than those of its peers.

    Returns:
        The diagnosis; None for a healthy trial, and where no cause is clear and it is not worse.
    """
    signs = check_health(records, direction, names)
    if not records or (not is_worse and all(sign.present is not False for sign in signs)):
        return None
    counts = ClassCounts(names, (0,) * len(names))  # the names alone
    found = diagnose(None, records, config, counts)
    return found.withhold_unclear() if found.is_clear or is_worse else None


def list_class_names(used: Mapping[str, Any], records: Sequence[EpochRecord]) -> tuple[str, ...]:
    """The class names that the objective recorded, else the indices of the classes."""
    recorded = used.get("environment.classes")
    if recorded:
        return tuple(map(str, recorded))
    return tuple(map(str, range(len(records[0].class_metric)))) if records else ()
