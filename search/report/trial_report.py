"""The report on one trial, read from the store in a few queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.diagnosis.health import check_health, describe_health
from search.diagnosis.rank_causes import diagnose
from search.report.models import TrialReport
from search.stored_study import find_study, sampled_values
from spaces.config import Direction
from spaces.errors import StoreError
from spaces.loader import check
from spaces.records import ClassCounts, Diagnosis, EpochRecord
from spaces.study import StudySpec
from storage.rows import StoredStudy, StoredTrial

if TYPE_CHECKING:
    from storage.store import Store

CLEAR_CONFIDENCE = 0.5
"""Confidence above which a complete trial's cause is reported: likelier than all others."""

LISTED_TRIALS = 20
"""Numbers of trials that an error lists."""


def trial_report(store: Store, name: str, number: int) -> TrialReport:
    """Report everything that the store has of one trial of a study.

    Args:
        store: an open store.
        name: of the study.
        number: of the trial.

    Raises:
        StoreError: when there is no such study, or no such trial in it.
    """
    stored = find_study(store, name)
    spec = check(StudySpec, stored.definition, f"study {name} in the store")
    trial = store.trials.find_trial(stored.id, number)
    if trial is None:
        raise _unknown_trial(store, stored, number)
    records = tuple(store.epochs.trial_records(trial.id))
    params, lr = sampled_values(spec, trial.config or {})
    names = _class_names(trial, records)
    return TrialReport(
        study=name,
        number=number,
        state=trial.state,
        preset=trial.preset or "",
        metric=spec.metric.name,
        direction=spec.metric.direction,
        score_rule=spec.metric.score,
        epochs=spec.epochs,
        score=trial.score,
        config=trial.config or {},
        params=params,
        lr=lr,
        used=trial.used or {},
        reason=trial.reason,
        error=trial.error,
        records=records,
        findings=tuple(store.findings.trial_evidence(trial.id)),
        health=describe_health(records, spec.metric.direction),
        class_names=names,
        trouble=_diagnose_complete(trial, records, spec.metric.direction, names),
        attempts=trial.attempt,
        worker=trial.worker,
        host=trial.host,
    )


def _diagnose_complete(
    trial: StoredTrial, records: Sequence[EpochRecord], direction: Direction, names: tuple[str, ...]
) -> Diagnosis | None:
    """Diagnose a complete trial that lacks a sign of health; None where no cause is clear."""
    if trial.state != "complete":
        return None
    if all(sign.present is not False for sign in check_health(records, direction)):
        return None
    counts = ClassCounts(names, (0,) * len(names))  # the names alone
    found = diagnose(None, records, trial.config or {}, counts)
    return found if found.confidence > CLEAR_CONFIDENCE else None


def _class_names(trial: StoredTrial, records: Sequence[EpochRecord]) -> tuple[str, ...]:
    """The class names that the objective recorded, else the indices of the classes."""
    recorded = (trial.used or {}).get("environment.classes")
    if recorded:
        return tuple(map(str, recorded))
    return tuple(map(str, range(len(records[0].class_metric)))) if records else ()


def _unknown_trial(store: Store, stored: StoredStudy, number: int) -> StoreError:
    numbers = [trial.number for trial in store.trials.list_trials(stored.id)]
    known = sorted(each for each in numbers if each is not None)
    allowed = ", ".join(map(str, known[:LISTED_TRIALS])) or "none has begun yet"
    if len(known) > LISTED_TRIALS:
        allowed += f" … {known[-1]}"
    return StoreError(
        f"the study {stored.name!r} has no trial {number}",
        where=store.where,
        found=f"trial {number}",
        allowed=allowed,
        next_step=f"`search show --study {stored.name}` lists its trials",
    )
