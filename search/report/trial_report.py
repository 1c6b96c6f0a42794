"""The report on one trial, read from the store in a few queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.diagnosis.health import describe_health
from search.diagnosis.stored_diagnosis import find_ending, list_class_names
from search.report.limited_trials import diagnose_among_peers
from search.report.models import TrialReport
from search.report.remedy_offers import offer_remedies
from search.report.remedy_outcomes import measure_remedy
from search.stored_study import find_study, sampled_values
from spaces.errors import StoreError
from spaces.loader import check
from spaces.records import Diagnosis
from spaces.study import StudySpec
from storage.rows import Finding, StoredStudy, StoredTrial

if TYPE_CHECKING:
    from storage.store import Store

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
    names = list_class_names(trial.used or {}, records)
    findings = tuple(
        (evidence, None if diagnosis is None else diagnosis.withhold_unclear())
        for evidence, diagnosis in store.findings.trial_evidence(trial.id)
    )
    trouble = None
    if trial.state == "complete":
        trials = store.trials.list_trials(stored.id)
        trouble = diagnose_among_peers(trial, records, trials, spec.metric.direction)
    diagnosis = _choose_diagnosis(trial, findings, trouble)
    tried = store.remedies.list_tried(stored.id)
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
        findings=findings,
        health=describe_health(records, spec.metric.direction, names),
        class_names=names,
        trouble=trouble,
        attempts=trial.attempt,
        worker=trial.worker,
        host=trial.host,
        diagnosis=diagnosis,
        remedies=offer_remedies(spec, trial, diagnosis, tried),
        remedy_of=measure_remedy(store, stored.id, spec.metric, trial, tried),
    )


def _choose_diagnosis(
    trial: StoredTrial, findings: Sequence[Finding], trouble: Diagnosis | None
) -> Diagnosis | None:
    """The diagnosis of what ended the trial, else of its last warning, else of its problem."""
    ending = find_ending(trial, findings)
    for _, diagnosis in [ending] if ending is not None else [*reversed(findings)]:
        if diagnosis is not None:
            return diagnosis
    return trouble


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
