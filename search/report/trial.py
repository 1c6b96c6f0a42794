"""Everything that is known of one trial: read from the store in a handful of queries, and nothing but data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.diagnosis import diagnose
from search.diagnosis.health import health, signs
from search.report.models import TrialReport
from search.stored_study import find_study, sampled
from spaces.config import Direction
from spaces.errors import StoreError
from spaces.loader import check
from spaces.records import ClassCounts, Diagnosis, EpochRecord
from spaces.study import StudySpec
from storage.rows import StoredStudy, StoredTrial

if TYPE_CHECKING:
    from storage.store import Store

STANDS_OUT = 0.5
"""A cause that is likelier than all others together is worth telling of a trial that nobody killed."""


def trial_report(store: Store, name: str, number: int) -> TrialReport:
    """Everything that is known of one trial of the study called `name`.

    Raises:
        StoreError: when there is no such study, or no such trial in it.
    """
    stored = find_study(store, name)
    spec = check(StudySpec, stored.definition, f"study {name} in the store")
    trial = store.trials.find_trial(stored.id, number)
    if trial is None:
        raise _no_trial(store, stored, number)
    records = tuple(store.epochs.trial_records(trial.id))
    params, lr = sampled(spec, trial.config or {})
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
        health=health(records, spec.metric.direction),
        class_names=names,
        trouble=_trouble(trial, records, spec.metric.direction, names),
        attempts=trial.attempt,
        worker=trial.worker,
        host=trial.host,
    )


def _trouble(
    trial: StoredTrial, records: Sequence[EpochRecord], direction: Direction, names: tuple[str, ...]
) -> Diagnosis | None:
    """A diagnosis of a complete trial that lacks a sign of health, where one cause stands out."""
    if trial.state != "complete" or all(
        sign.present is not False for sign in signs(records, direction)
    ):
        return None
    found = diagnose(
        None, records, trial.config or {}, ClassCounts(names, (0,) * len(names))
    )  # names alone
    return found if found.confidence > STANDS_OUT else None


def _class_names(trial: StoredTrial, records: Sequence[EpochRecord]) -> tuple[str, ...]:
    """As the objective told them when it ran, else their indices."""
    told = (trial.used or {}).get("environment.classes")
    return tuple(map(str, told or range(len(records[0].class_metric) if records else 0)))


def _no_trial(store: Store, stored: StoredStudy, number: int) -> StoreError:
    known = sorted(
        trial.number for trial in store.trials.list_trials(stored.id) if trial.number is not None
    )
    allowed = ", ".join(map(str, known[:20])) + (f" … {known[-1]}" if len(known) > 20 else "")
    what, next_step = (
        f"the study {stored.name!r} has no trial {number}",
        f"`search show --study {stored.name}` shows how it stands",
    )
    return StoreError(
        what,
        where=store.where,
        found=f"trial {number}",
        allowed=allowed or "none has begun yet",
        next_step=next_step,
    )
