"""The curves of complete trials, with which a running one is compared after every epoch."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from storage.repositories.base import Repository
from storage.tables.models import Trial
from storage.tables.optuna_tables import decode_float, reports

OVERLAP_S = 60.0
"""How far a query looks back before the newest end that the previous one saw.

The time of a trial's end is written a moment before other transactions see it.
"""


@dataclass(frozen=True, slots=True)
class Complete:
    """Complete trials that were not known before.

    Attributes:
        trial_ids: ids in our table.
        points: epoch and metric of all these trials; an epoch whose metric is NaN is left out.
        seen_until: when the last of all trials seen so far ended; None when there was none.
    """

    trial_ids: frozenset[int]
    points: list[tuple[int, float]]
    seen_until: float | None


class PeerCurveRepository(Repository):
    """Read curves: all of them once, and then the new ones."""

    def complete_curves(self, study_id: int) -> Complete:
        """Return all complete trials of a study. Requires `Store.knows_optuna`.

        They are read from Optuna's table of reports, which is a tenth of the size of our epochs.
        """
        parameters = {"b_study": study_id}
        with self._database.snapshot() as connection:
            ended = connection.execute(_ENDED, parameters).all()
            points: list[tuple[int, float]] = [
                (epoch, metric) for epoch, metric in connection.execute(_FINITE, parameters)
            ]
            points += [
                (epoch, decode_float(None, kind))
                for epoch, kind in connection.execute(_NOT_FINITE, parameters)
            ]
        return Complete(
            frozenset(row[0] for row in ended),
            points,
            max((row[1] or 0.0 for row in ended), default=None),
        )

    def complete_since(self, study_id: int, seen_until: float, known: Container[int]) -> Complete:
        """Return the trials that completed since an earlier query.

        The cost does not depend on how many were complete before.

        Args:
            seen_until: of the earlier result.
            known: ids of the trials that were returned already.
        """
        with self._database.reading() as connection:
            ended = connection.execute(
                _SINCE, {"b_study": study_id, "b_since": seen_until - OVERLAP_S}
            ).all()
            new = {row.id: row.optuna_trial_id for row in ended if row.id not in known}
            parameters = {
                "b_trials": [trial_id for trial_id in new.values() if trial_id is not None]
            }
            rows = connection.execute(_POINTS, parameters).all() if new else []
        latest = max((row.finished_at for row in ended), default=seen_until)
        return Complete(
            frozenset(new),
            [(row.step, decode_float(row.intermediate_value, row.kind)) for row in rows],
            max(latest, seen_until),
        )


_COMPLETE = (Trial.study_id == bindparam("b_study"), Trial.state == "complete")
_POINT = (
    reports.c.step,
    reports.c.intermediate_value,
    reports.c.intermediate_value_type.label("kind"),
)
_ENDED = select(Trial.id, Trial.finished_at).where(*_COMPLETE)
_REPORTS_OF_COMPLETE = (reports.c.trial_id == Trial.optuna_trial_id, *_COMPLETE)
_FINITE = select(reports.c.step, reports.c.intermediate_value).where(
    *_REPORTS_OF_COMPLETE, reports.c.intermediate_value_type == "FINITE"
)
_NOT_FINITE = select(reports.c.step, reports.c.intermediate_value_type).where(
    *_REPORTS_OF_COMPLETE, reports.c.intermediate_value_type != "FINITE"
)
_SINCE = select(Trial.id, Trial.optuna_trial_id, Trial.finished_at).where(
    *_COMPLETE, Trial.finished_at >= bindparam("b_since")
)
_POINTS = select(*_POINT).where(reports.c.trial_id.in_(bindparam("b_trials", expanding=True)))
