"""The signals that fired, with their diagnoses."""

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
    """Read evidence and diagnoses; they are written when a trial ends."""

    def trial_evidence(self, trial_id: int) -> list[Finding]:
        """Return the signals that fired in a trial, ordered by epoch."""
        with self._database.reading() as connection:
            rows = connection.execute(_select_signals().where(Signal.trial_id == trial_id)).all()
        return [_make_finding(row) for row in rows]

    def study_evidence(self, study_id: int) -> dict[int, list[Finding]]:
        """Return the signals that fired in a study, by id of the trial.

        A trial in which none fired is left out.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                _select_signals()
                .join(Trial, Trial.id == Signal.trial_id)
                .where(Trial.study_id == study_id)
            ).all()
        found: dict[int, list[Finding]] = defaultdict(list)
        for row in rows:
            found[row.trial_id].append(_make_finding(row))
        return dict(found)


def save_finding(
    connection: Connection, trial_id: int, evidence: Evidence, diagnosis: Diagnosis | None
) -> None:
    """Write a finding, within the transaction that ends the trial."""
    row = {
        "trial_id": trial_id,
        "diagnosis": None if diagnosis is None else asdict(diagnosis),
        **asdict(evidence),
    }
    connection.execute(insert(Signal).values(row))


def _select_signals() -> Select[int, str, int, int | None, str, Any, float, Any]:
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


def _make_finding(row: _Columns) -> Finding:
    _, signal, *evidence, diagnosis = row
    fired = Evidence(rename_former_signals(signal), *evidence)
    return fired, None if diagnosis is None else _make_diagnosis(diagnosis)


def _make_diagnosis(stored: Mapping[str, Any]) -> Diagnosis:
    remedies = tuple(map(_make_remedy, stored["remedies"]))
    others = tuple((cause, likelihood) for cause, likelihood in stored.get("others", ()))
    return Diagnosis(
        stored["cause"],
        tuple(stored["because"]),
        remedies,
        stored.get("confidence", 1.0),
        tuple(stored.get("against", ())),
        others,
    )


def _make_remedy(stored: Mapping[str, Any]) -> Remedy:
    """Make a remedy; version 0.1.0 stored its title and its patch as one text."""
    patch = stored["patch"]
    title: str | None = stored.get("title")
    if title is None:
        title = stored["text"]
        if patch:
            title = title.partition(f": {next(iter(patch))} ")[0]
    return Remedy(title, patch)
