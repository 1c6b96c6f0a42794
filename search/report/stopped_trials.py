"""The stopped trials of a study, with what ended them, and the warnings of its complete trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from search.diagnosis.remedies import describe_remedy
from search.diagnosis.stored_diagnosis import find_ending
from search.report.models import Kill, TrialWarning
from spaces.records import SPARED, UNCLEAR_CAUSE, Diagnosis, EpochRecord
from spaces.thresholds import SIGNALS
from storage.rows import FINAL_STATES, Finding, StoredTrial

KILLED_STATES = tuple(state for state in FINAL_STATES if state != "complete")

WORSE_THAN_PEERS = "worse than its peers"
"""The cause of a trial that its peers ended, without a clear diagnosis; it may be healthy."""

NOT_DIAGNOSED = "unknown"
"""The cause of a diverged trial without a diagnosis."""

Records = Mapping[int, Sequence[EpochRecord]]
"""Id of a trial → its records."""

Findings = Mapping[int, Sequence[Finding]]
"""Id of a trial → its findings, ordered by epoch."""


def collect_kills(
    trials: Sequence[StoredTrial], records: Records, findings: Findings
) -> tuple[Kill, ...]:
    """The trials that ended without being complete, and why."""
    return tuple(
        _make_kill(trial, records.get(trial.id, ()), findings.get(trial.id, ()))
        for trial in trials
        if trial.state in KILLED_STATES
    )


def collect_warnings(
    complete: Sequence[StoredTrial], findings: Findings
) -> tuple[TrialWarning, ...]:
    """What was found in complete trials without ending them."""
    return tuple(
        TrialWarning(
            trial.number,
            evidence.signal,
            evidence.epoch,
            evidence.statement,
            str(evidence.numbers.get(SPARED, "")),
            diagnosis.cause if diagnosis is not None and diagnosis.is_clear else "",
        )
        for trial in complete
        for evidence, diagnosis in findings.get(trial.id, ())
    )


def _make_kill(
    trial: StoredTrial, records: Sequence[EpochRecord], found: Sequence[Finding]
) -> Kill:
    ending = find_ending(trial, found)
    is_pruned = trial.state == "pruned"
    ended_by = trial.signal or ""
    cause = ended_by
    if is_pruned:
        cause = UNCLEAR_CAUSE if ended_by in SIGNALS else WORSE_THAN_PEERS
    kill = Kill(
        number=trial.number,
        state=trial.state,
        signal=ended_by if is_pruned else "error",
        epoch=records[-1].epoch if records else None,
        step=None,
        reason=trial.reason,
        cause=cause,
        remedy="",
        severity=None,
    )
    return kill if ending is None else _add_finding(kill, ending, trial)


def _add_finding(kill: Kill, finding: Finding, trial: StoredTrial) -> Kill:
    """The same with the evidence and what its diagnosis says.

    Without a clear cause a trial that its peers ended remains worse than they are.
    """
    evidence, diagnosis = finding
    kill = replace(
        kill,
        signal=evidence.signal,
        epoch=evidence.epoch,
        step=evidence.step,
        statement=evidence.statement,
        severity=evidence.severity or None,
    )
    if diagnosis is None:
        return kill if kill.state == "pruned" else replace(kill, cause=NOT_DIAGNOSED)
    kill = replace(kill, confidence=diagnosis.confidence)
    if not diagnosis.is_clear and kill.cause == WORSE_THAN_PEERS:
        return kill
    if not diagnosis.is_clear:
        return replace(kill, cause=UNCLEAR_CAUSE)
    return replace(kill, cause=diagnosis.cause, remedy=_describe_first_remedy(diagnosis, trial))


def _describe_first_remedy(diagnosis: Diagnosis, trial: StoredTrial) -> str:
    if not diagnosis.remedies:
        return ""
    return describe_remedy(diagnosis.remedies[0], trial.config or {})
