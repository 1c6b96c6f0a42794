"""The signals that fired, and what was made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select

from spaces.records import Diagnosis, Evidence, Remedy
from spaces.thresholds import rename_former_signals
from storage.repositories.base import Repository
from storage.rows import Finding
from storage.tables.models import Signal, Trial

_Columns = Row[int, str, int, int | None, str, Any, float, Any]


class FindingRepository(Repository):
    """Reading evidence and diagnoses; they are written when a trial ends."""

    def trial_evidence(self, trial_id: int) -> list[Finding]:
        """What fired in one trial, by epoch."""
        with self._database.reading() as connection:
            rows = connection.execute(_signals().where(Signal.trial_id == trial_id)).all()
        return [_finding(row) for row in rows]

    def study_evidence(self, study_id: int) -> dict[int, list[Finding]]:
        """What fired in every trial of a study, by the trial's id; a trial in which nothing fired is left out."""
        with self._database.reading() as connection:
            rows = connection.execute(
                _signals()
                .join(Trial, Trial.id == Signal.trial_id)
                .where(Trial.study_id == study_id)
            ).all()
        found: dict[int, list[Finding]] = defaultdict(list)
        for row in rows:
            found[row.trial_id].append(_finding(row))
        return dict(found)


def keep(
    connection: Connection, trial_id: int, evidence: Evidence, diagnosis: Diagnosis | None
) -> None:
    """Writes one finding, within the transaction that ends the trial."""
    told = None if diagnosis is None else asdict(diagnosis)
    connection.execute(insert(Signal).values(trial_id=trial_id, diagnosis=told, **asdict(evidence)))


def _signals() -> Select[int, str, int, int | None, str, Any, float, Any]:
    columns = (
        Signal.trial_id,
        Signal.signal,
        Signal.epoch,
        Signal.step,
        Signal.statement,
        Signal.numbers,
        Signal.severity,
        Signal.diagnosis,
    )
    return select(*columns).order_by(Signal.trial_id, Signal.epoch)


def _finding(row: _Columns) -> Finding:
    _, signal, *evidence, diagnosis = row
    return (
        Evidence(rename_former_signals(signal), *evidence),
        None if diagnosis is None else _diagnosis(diagnosis),
    )


def _diagnosis(told: Mapping[str, Any]) -> Diagnosis:
    remedies = tuple(Remedy(remedy["text"], remedy["patch"]) for remedy in told["remedies"])
    others = tuple((cause, likelihood) for cause, likelihood in told.get("others", ()))
    return Diagnosis(
        told["cause"],
        tuple(told["because"]),
        remedies,
        told.get("confidence", 1.0),
        tuple(told.get("against", ())),
        others,
    )
