"""Complete trials that are clearly worse than their peers, and what limited them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.diagnosis.peer_gap import find_usual_score, is_clearly_worse
from search.diagnosis.remedies import describe_remedy
from search.diagnosis.stored_diagnosis import diagnose_complete, list_class_names
from search.report.models import LimitedTrial, metric_noise
from spaces.config import Direction
from spaces.records import Diagnosis, EpochRecord
from storage.rows import StoredTrial

MOST_DIAGNOSED = 20
"""Trials that are diagnosed for a study's report at most, so that thousands cost no more."""

Records = Mapping[int, Sequence[EpochRecord]]
"""Id of a trial → its records."""


def diagnose_among_peers(
    trial: StoredTrial,
    records: Sequence[EpochRecord],
    trials: Sequence[StoredTrial],
    direction: Direction,
) -> Diagnosis | None:
    """Diagnose what limited a complete trial; None for one that is healthy and not worse.

    Args:
        trial: that is complete.
        records: of the trial.
        trials: of the study.
        direction: of the metric.
    """
    usual = find_usual_score(each.score for each in trials if each.state == "complete")
    is_worse = is_clearly_worse(trial.score, usual, metric_noise(records), direction)
    return _diagnose(trial, records, direction, is_worse=is_worse)


def collect_limited(
    complete: Sequence[StoredTrial], records: Records, direction: Direction
) -> tuple[LimitedTrial, ...]:
    """The complete trials that are clearly worse than their peers, the worst first."""
    usual = find_usual_score(trial.score for trial in complete)
    if usual is None:
        return ()
    worse = [
        (trial.score, trial)
        for trial in complete
        if trial.score is not None
        and is_clearly_worse(trial.score, usual, metric_noise(records.get(trial.id, ())), direction)
    ]
    sign = 1 if direction == "maximize" else -1
    worse.sort(key=lambda pair: sign * pair[0])
    found = []
    for score, trial in worse[:MOST_DIAGNOSED]:
        diagnosis = _diagnose(trial, records.get(trial.id, ()), direction, is_worse=True)
        if diagnosis is not None:
            found.append(_make_limited(trial, score, usual, diagnosis))
    return tuple(found)


def _diagnose(
    trial: StoredTrial, records: Sequence[EpochRecord], direction: Direction, *, is_worse: bool
) -> Diagnosis | None:
    names = list_class_names(trial.used or {}, records)
    return diagnose_complete(records, trial.config or {}, direction, names, is_worse=is_worse)


def _make_limited(trial: StoredTrial, score: float, usual: float, found: Diagnosis) -> LimitedTrial:
    remedy = ""
    if found.is_clear and found.remedies:
        remedy = describe_remedy(found.remedies[0], trial.config or {})
    return LimitedTrial(trial.number, score, usual, found.cause, found.confidence, remedy)
