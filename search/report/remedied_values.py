"""The values that trials have from remedies and that their study does not search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spaces.config_tree import ConfigTree
from spaces.study import StudySpec
from storage.rows import StoredTrial, TriedRemedy

SEED = "seed"
"""Differs in trials of older versions, without being a remedy."""


def find_remedied_values(
    trials: Sequence[StoredTrial], tried: Sequence[TriedRemedy], spec: StudySpec
) -> dict[int, Mapping[str, Any]]:
    """Find them by comparing each trial that tries a remedy with the one that it is the remedy of.

    Args:
        trials: of the study.
        tried: all remedies that the study has tried.
        spec: of the study.

    Returns:
        Number of a trial → dotted path → value; those of earlier remedies, which it keeps,
        included.
    """
    numbered = {trial.number: trial for trial in trials if trial.number is not None}
    found: dict[int, Mapping[str, Any]] = {}
    for each in sorted(tried, key=lambda remedy: remedy.number):
        trial, origin = numbered.get(each.number), numbered.get(each.of)
        if trial is None or origin is None:
            continue
        changes = _compare_unsearched(origin, trial, spec)
        found[each.number] = {**found.get(each.of, {}), **changes}
    return found


def _compare_unsearched(origin: StoredTrial, trial: StoredTrial, spec: StudySpec) -> dict[str, Any]:
    before = ConfigTree(origin.config or {})
    return {
        path: value
        for path, value in ConfigTree(trial.config or {}).items()
        if path not in spec.space and path != SEED and before.get(path, ...) != value
    }
