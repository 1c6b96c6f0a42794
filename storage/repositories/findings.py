"""Why trials ended, with the diagnoses, and warnings of signals that spared a trial."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select

from spaces.records import Diagnosis, Evidence, Remedy
from spaces.thresholds import rename_former_signals
from storage.repositories.base import Repository
from storage.rows import Finding
from storage.tables.models import Signal, Trial

_Columns = Row[int, str, int, int | None, str, Any, float, Any]


class FindingRepository(Repository):
    """Read evidence and diagnoses, which are written when a trial ends or a signal warns."""

    def trial_evidence(self, trial_id: int) -> list[Finding]:
        """Return the signals and the peer pruner that judged a trial, ordered by epoch.

        Warnings are among them; see `Evidence.is_warning`.
        """
        with self._database.reading() as connection:
            rows = connection.execute(_select_signals().where(Signal.trial_id == trial_id)).all()
        return [_make_finding(row) for row in rows]

    def study_evidence(self, study_id: int, since: float | None = None) -> dict[int, list[Finding]]:
        """Return the same for all trials of a study, by id of the trial.

        A trial without any is left out; so are those that ended before `since`, if it is given, and
        those that have not ended then.
        """
        found_in = (
            _select_signals()
            .join(Trial, Trial.id == Signal.trial_id)
            .where(Trial.study_id == study_id)
        )
        if since is not None:
            found_in = found_in.where(Trial.finished_at >= since)
        with self._database.reading() as connection:
            rows = connection.execute(found_in).all()
        found: dict[int, list[Finding]] = defaultdict(list)
        for row in rows:
            found[row.trial_id].append(_make_finding(row))
        return dict(found)


def save_finding(
    connection: Connection, trial_id: int, evidence: Evidence, diagnosis: Diagnosis | None
) -> None:
    """Write a finding, within a transaction, in place of the same signal's at that epoch.

    An earlier attempt may have written that, if this one repeats the epoch.
    """
    row = {
        "trial_id": trial_id,
        "diagnosis": None if diagnosis is None else asdict(diagnosis),
        **asdict(evidence),
    }
    connection.execute(
        delete(Signal).where(
            Signal.trial_id == trial_id,
            Signal.signal == evidence.signal,
            Signal.epoch == evidence.epoch,
        )
    )
    connection.execute(insert(Signal).values(row))


def forget_warnings_after(connection: Connection, trial_id: int, epoch: int) -> None:
    """Delete the warnings about epochs that are deleted; a trial that is open has no others."""
    connection.execute(delete(Signal).where(Signal.trial_id == trial_id, Signal.epoch > epoch))


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
