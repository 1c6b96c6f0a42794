"""What a study amounts to: read from the store in a handful of queries, and nothing but data.

It works on a study that runs, that has ended, or that has not begun. How it is shown is another matter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from search.diagnosis.failure_regions import lessons
from search.diagnosis.health import signs
from search.export import best_weights
from search.report.models import Holder, Kill, LeaderboardRow, StudyReport, metric_noise
from search.stored_study import find_study, sampled
from spaces.config import MetricConfig
from spaces.loader import check
from spaces.records import EpochRecord, best_record
from spaces.study import StudySpec
from storage.rows import FINAL_STATES, HELD_STATES, Finding, Progress, StoredTrial

if TYPE_CHECKING:
    from storage.files.study_files import CheckpointFiles
    from storage.store import Store

KILLED_STATES = tuple(state for state in FINAL_STATES if state != "complete")

WORSE_THAN_PEERS = "worse than its peers"
"""The cause of every prune: the trial itself may be healthy."""

CLEAR, UNCLEAR = 0.3, "no clear cause"
"""A diagnosis that is less sure is counted as none."""


def study_report(store: Store, name: str, files: CheckpointFiles | None = None) -> StudyReport:
    """How the study called `name` stands.

    Args:
        files: of the studies, where the trained state of the best trial may lie.

    Raises:
        StoreError: when there is none.
    """
    stored = find_study(store, name)
    spec = check(StudySpec, stored.definition, f"study {name} in the store")
    trials = store.trials.list_trials(stored.id)
    records, findings = (
        store.epochs.study_records(stored.id),
        store.findings.study_evidence(stored.id),
    )
    killed = [trial for trial in trials if trial.state in KILLED_STATES]
    kills = tuple(
        _kill(trial, records.get(trial.id, []), findings.get(trial.id, [])) for trial in killed
    )
    complete = [trial for trial in trials if trial.state == "complete"]
    taken = store.budget.find_device_time(stored.id)
    leaderboard = _leaderboard(complete, records, spec)
    return StudyReport(
        name=name,
        about=spec.about,
        objective=spec.objective,
        metric=spec.metric.name,
        direction=spec.metric.direction,
        score_rule=spec.metric.score,
        epochs=spec.epochs,
        budget=spec.trials,
        states=_states(trials, spec.trials),
        leaderboard=leaderboard,
        kills=kills,
        causes=dict(Counter(map(_counted_as, kills)).most_common()),
        lessons=_lessons(trials, spec),
        health=_study_health(complete, records, spec.metric),
        workers=holders(store.trials.list_progress(stored.id)),
        device_s=taken.charged_s,
        device_budget_s=taken.budget_s,
        weights=best_weights(files, stored, leaderboard[0].number)
        if files is not None and leaderboard
        else None,
    )


def holders(lines: Sequence[Progress]) -> tuple[Holder, ...]:
    """Who works on what, by the numbers of the trials."""
    return tuple(
        Holder(
            line.worker,
            line.host,
            line.device or "",
            line.number,
            line.epochs,
            line.silent_s,
            (line.lease_left_s or 0) < 0,
            line.attempt,
            line.lost,
        )
        for line in lines
        if line.state in HELD_STATES
    )


def _study_health(
    complete: Sequence[StoredTrial], records: Mapping[int, list[EpochRecord]], metric: MetricConfig
) -> tuple[str, ...]:
    """Each sign with how many of the complete trials have it, and which have not."""
    found = {trial.number: signs(records.get(trial.id, []), metric.direction) for trial in complete}
    lines = []
    for column in zip(*found.values(), strict=True):
        missing = [
            str(number) for number, sign in zip(found, column, strict=True) if sign.present is False
        ]
        judged = sum(sign.present is not None for sign in column)
        shown = (
            f"; missing in trial {', '.join(missing[:8])}{' …' if len(missing) > 8 else ''}"
            if missing
            else ""
        )
        lines.append(
            f"{column[0].name}: {judged - len(missing)} of {judged} complete trials{shown}"
        )
    return tuple(lines)


def _counted_as(kill: Kill) -> str:
    """A guess is no cause to be counted."""
    return kill.cause if kill.confidence is None or kill.confidence >= CLEAR else UNCLEAR


def _lessons(trials: Sequence[StoredTrial], spec: StudySpec) -> tuple[str, ...]:
    ended = [trial for trial in trials if trial.state in ("complete", "pruned", "diverged")]
    return tuple(
        map(
            str,
            lessons(
                [
                    (sampled(spec, trial.config or {})[0], trial.state == "diverged")
                    for trial in ended
                ]
            ),
        )
    )


def _states(trials: Sequence[StoredTrial], budget: int) -> dict[str, int]:
    counted = Counter(trial.state for trial in trials)
    return {state: counted[state] for state in (*FINAL_STATES, "running", "paused", "reserved")} | {
        "left": max(0, budget - len(trials))
    }


def _leaderboard(
    complete: Sequence[StoredTrial], records: Mapping[int, list[EpochRecord]], spec: StudySpec
) -> tuple[LeaderboardRow, ...]:
    numbered = [
        (trial.score, trial)
        for trial in complete
        if trial.score is not None and records.get(trial.id)
    ]
    scored = [(score, trial) for score, trial in numbered if math.isfinite(score)]
    sign = -1 if spec.metric.direction == "maximize" else 1
    scored.sort(
        key=lambda pair: sign * pair[0]
    )  # stable: of equal scores, the earlier trial comes first
    if not scored:
        return ()
    rows = [_row(score, trial, records[trial.id], spec) for score, trial in scored]
    return tuple(
        replace(row, rank=rank, tied=rank > 1 and _tied(row, rows[0]))
        for rank, row in enumerate(rows, 1)
    )


def _tied(row: LeaderboardRow, first: LeaderboardRow) -> bool:
    return abs(row.score - first.score) <= math.hypot(row.noise or 0.0, first.noise or 0.0)


def _row(
    score: float, trial: StoredTrial, records: list[EpochRecord], spec: StudySpec
) -> LeaderboardRow:
    params, lr = sampled(spec, trial.config or {})
    tests = [record.test.metric for record in records if record.test is not None]
    best_epoch, test = (
        best_record(records, spec.metric.direction).epoch,
        tests[-1] if tests else None,
    )
    return LeaderboardRow(
        rank=1,
        number=trial.number or 0,
        score=score,
        noise=metric_noise(records),
        best_epoch=best_epoch,
        epochs=records[-1].epoch,
        preset=trial.preset or "",
        params=params,
        lr=lr,
        test=test,
        tied=False,
    )


def _kill(trial: StoredTrial, records: Sequence[EpochRecord], findings: Sequence[Finding]) -> Kill:
    ended_by = trial.signal or ""
    epoch = records[-1].epoch if records else None
    if not findings:
        signal, cause = (
            (ended_by, WORSE_THAN_PEERS) if trial.state == "pruned" else ("error", ended_by)
        )
        return Kill(trial.number, trial.state, signal, epoch, None, trial.reason, cause, "", None)
    evidence, diagnosis = findings[-1]
    cause, remedies = (diagnosis.cause, diagnosis.remedies) if diagnosis else ("unknown", ())
    remedy = remedies[0].text if remedies else ""
    confidence = None if diagnosis is None else diagnosis.confidence
    return Kill(
        trial.number,
        trial.state,
        evidence.signal,
        evidence.epoch,
        evidence.step,
        trial.reason,
        cause,
        remedy,
        evidence.severity,
        confidence,
    )
