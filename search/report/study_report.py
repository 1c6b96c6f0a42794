"""The report on a study, read from the store in a few queries.

It works on a study that is running, has ended, or has not begun, and contains data only: the
console prints it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from search.diagnosis.failure_regions import Trial, find_failure_regions
from search.diagnosis.health import find_dead_classes, name_classes
from search.diagnosis.stored_diagnosis import list_class_names
from search.export import best_weights
from search.planning.base_rate import wants_probe
from search.report.confirmation import read_confirmation
from search.report.limited_trials import collect_limited
from search.report.models import ActiveWorker, ClassScore, LeaderboardRow, StudyReport, metric_noise
from search.report.remedied_values import find_remedied_values
from search.report.remedy_outcomes import measure_remedies, summarize_remedies
from search.report.search_outlook import describe_search
from search.report.stopped_trials import collect_kills, collect_warnings
from search.report.study_health import describe_study_health
from search.stored_study import find_study, sampled_values
from spaces.loader import check
from spaces.records import EpochRecord, best_record
from spaces.study import StudySpec
from storage.rows import ACTIVE_STATES, FINAL_STATES, Progress, StoredStudy, StoredTrial

if TYPE_CHECKING:
    from storage.files.study_files import StudyFiles
    from storage.store import Store

Records = Mapping[int, list[EpochRecord]]
"""Id of a trial → its records."""


def study_report(store: Store, name: str, files: StudyFiles | None = None) -> StudyReport:
    """Report the state of a study.

    Args:
        store: an open store.
        name: of the study.
        files: of the store's studies, which may contain the weights of the best trial.

    Raises:
        StoreError: when there is no such study.
    """
    stored = find_study(store, name)
    spec = check(StudySpec, stored.definition, f"study {name} in the store")
    trials = store.trials.list_trials(stored.id)
    records = store.epochs.study_records(stored.id)
    complete = [trial for trial in trials if trial.state == "complete"]
    findings = store.findings.study_evidence(stored.id)
    kills = collect_kills(trials, records, findings)
    device_time = store.budget.find_device_time(stored.id)
    tried = store.remedies.list_tried(stored.id)
    remedied = find_remedied_values(trials, tried, spec)
    leaderboard = tuple(
        replace(row, remedied=remedied.get(row.number, {}))
        for row in _rank_complete(complete, records, spec)
    )
    remedy_trials = measure_remedies(tried, trials, records, spec.metric)
    weights = None
    if files is not None and leaderboard:
        weights = best_weights(files, stored, leaderboard[0].number)
    return StudyReport(
        name=name,
        about=spec.about,
        objective=spec.objective,
        metric=spec.metric.name,
        direction=spec.metric.direction,
        score_rule=spec.metric.score,
        epochs=spec.epochs,
        budget=spec.trials,
        states=_count_states(trials, spec.trials),
        leaderboard=leaderboard,
        kills=kills,
        causes=dict(Counter(kill.cause for kill in kills).most_common()),
        lessons=_describe_regions(trials, spec),
        health=describe_study_health(complete, records, spec.metric.direction),
        workers=active_workers(store.trials.list_progress(stored.id)),
        device_s=device_time.charged_s,
        device_budget_s=device_time.budget_s,
        weights=weights,
        warnings=collect_warnings(complete, findings),
        limited=collect_limited(complete, records, spec.metric.direction),
        remedies=summarize_remedies(remedy_trials),
        remedy_trials=remedy_trials,
        trained_epochs=count_epochs(stored, records),
        epochs_budget=spec.epochs_budget,
        **describe_search(store, stored, spec, trials),
        rate_probe=stored.rate_probe if wants_probe(spec) else None,
        confirmed=read_confirmation(store, stored),
    )


def count_epochs(stored: StoredStudy, records: Records) -> int:
    """The epochs of all trials together, with those of the probe of the learning rate."""
    probed = 0 if stored.rate_probe is None else stored.rate_probe.charged_epochs
    return probed + sum(len(of_trial) for of_trial in records.values())


def active_workers(lines: Sequence[Progress]) -> tuple[ActiveWorker, ...]:
    """The workers that are working on a trial, in the order of the trials."""
    return tuple(
        ActiveWorker(
            worker=line.worker,
            host=line.host,
            device=line.device or "",
            trial=line.number,
            epochs=line.epochs,
            silent_s=line.silent_s,
            overdue=(line.lease_left_s or 0) < 0,
            attempts=line.attempt,
            lost=line.lost,
        )
        for line in lines
        if line.state in ACTIVE_STATES
    )


def _describe_regions(trials: Sequence[StoredTrial], spec: StudySpec) -> tuple[str, ...]:
    """The failure regions of the trials that ended without an error, as text."""
    ended: list[Trial] = [
        (sampled_values(spec, trial.config or {})[0], trial.state)
        for trial in trials
        if trial.state in ("complete", "pruned", "diverged")
    ]
    return tuple(map(str, find_failure_regions(ended)))


def _count_states(trials: Sequence[StoredTrial], budget: int) -> dict[str, int]:
    found = Counter(trial.state for trial in trials)
    counts: dict[str, int] = {
        state: found[state] for state in (*FINAL_STATES, "running", "paused", "reserved")
    }
    counts["left"] = max(0, budget - len(trials))
    return counts


def _rank_complete(
    complete: Sequence[StoredTrial], records: Records, spec: StudySpec
) -> tuple[LeaderboardRow, ...]:
    """The complete trials with a finite score, the best first; of equal ones the earlier first."""
    rows = [
        _leaderboard_row(trial.score, trial, records[trial.id], spec)
        for trial in complete
        if trial.score is not None and math.isfinite(trial.score) and records.get(trial.id)
    ]
    sign = -1 if spec.metric.direction == "maximize" else 1
    rows.sort(key=lambda row: sign * row.score)
    return tuple(
        replace(row, rank=rank, tied=rank > 1 and _is_tied(row, rows[0]))
        for rank, row in enumerate(rows, 1)
    )


def _is_tied(row: LeaderboardRow, first: LeaderboardRow) -> bool:
    return abs(row.score - first.score) <= math.hypot(row.noise or 0.0, first.noise or 0.0)


def _leaderboard_row(
    score: float, trial: StoredTrial, records: list[EpochRecord], spec: StudySpec
) -> LeaderboardRow:
    """The row of a trial, not ranked yet."""
    params, lr = sampled_values(spec, trial.config or {})
    tests = [record.test.metric for record in records if record.test is not None]
    best = best_record(records, spec.metric.direction)
    names = list_class_names(trial.used or {}, records)
    dead = find_dead_classes(records)
    return LeaderboardRow(
        rank=1,
        number=trial.number or 0,
        score=score,
        noise=metric_noise(records),
        best_epoch=best.epoch,
        epochs=records[-1].epoch,
        preset=trial.preset or "",
        params=params,
        lr=lr,
        test=tests[-1] if tests else None,
        tied=False,
        worst_class=_find_worst_class(best, names),
        never_found=name_classes(dead.never_found, names),
        lost=name_classes(dead.lost, names),
    )


def _find_worst_class(record: EpochRecord, names: Sequence[str]) -> ClassScore | None:
    """The first class with the lowest metric in an epoch; None where there is one class at most."""
    found = {
        index: metric for index, metric in enumerate(record.class_metric) if metric is not None
    }
    if len(found) < 2:
        return None
    worst = min(found, key=lambda index: found[index])
    (name,) = name_classes([worst], names)
    return ClassScore(name, found[worst])
