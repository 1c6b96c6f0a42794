"""The curves of complete trials, which a running one is held against after every epoch."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from storage.repositories.base import Repository
from storage.tables.models import Trial
from storage.tables.optuna import float_of, reports

OVERLAP_S = 60.0
"""How far a look goes back behind the newest end that the one before saw: a trial's end is stamped a moment before others can see it."""


@dataclass(frozen=True, slots=True)
class Complete:
    """Complete trials that were not known before.

    Attributes:
        trial_ids: of ours.
        points: epoch and metric, of all of them; an epoch whose metric was no number is left out.
        seen_until: when the newest of all trials seen ended; None when there was none.
    """

    trial_ids: frozenset[int]
    points: list[tuple[int, float]]
    seen_until: float | None


class PeerCurveRepository(Repository):
    """Reading curves: all of them once, and then what is new."""

    def complete_curves(self, study_id: int) -> Complete:
        """All complete trials of a study. The store must know Optuna's tables.

        They are read from Optuna's table of reports, which is a tenth of the size of our epochs with their records.
        """
        asked = {"b_study": study_id}
        with self._database.snapshot() as connection:
            ended = connection.execute(_ENDED, asked).all()
            points: list[tuple[int, float]] = [
                (epoch, metric) for epoch, metric in connection.execute(_FINITE, asked)
            ]
            points += [
                (epoch, float_of(None, kind))
                for epoch, kind in connection.execute(_NOT_FINITE, asked)
            ]
        return Complete(
            frozenset(row[0] for row in ended),
            points,
            max((row[1] or 0.0 for row in ended), default=None),
        )

    def complete_since(self, study_id: int, seen_until: float, known: Container[int]) -> Complete:
        """Those that ended since a look that saw until `seen_until`, without the known ones; how many there were before costs nothing."""
        with self._database.reading() as connection:
            ended = connection.execute(
                _SINCE, {"b_study": study_id, "b_since": seen_until - OVERLAP_S}
            ).all()
            new = {row.id: row.optuna_trial_id for row in ended if row.id not in known}
            asked = {"b_trials": [trial_id for trial_id in new.values() if trial_id is not None]}
            rows = connection.execute(_POINTS, asked).all() if new else []
        latest = max((row.finished_at for row in ended), default=seen_until)
        return Complete(
            frozenset(new),
            [(row.step, float_of(row.intermediate_value, row.kind)) for row in rows],
            max(latest, seen_until),
        )


_COMPLETE = (Trial.study_id == bindparam("b_study"), Trial.state == "complete")
_POINT = (
    reports.c.step,
    reports.c.intermediate_value,
    reports.c.intermediate_value_type.label("kind"),
)
_ENDED = select(Trial.id, Trial.finished_at).where(*_COMPLETE)
_BELOW = (reports.c.trial_id == Trial.optuna_trial_id, *_COMPLETE)
_FINITE = select(reports.c.step, reports.c.intermediate_value).where(
    *_BELOW, reports.c.intermediate_value_type == "FINITE"
)
_NOT_FINITE = select(reports.c.step, reports.c.intermediate_value_type).where(
    *_BELOW, reports.c.intermediate_value_type != "FINITE"
)
_SINCE = select(Trial.id, Trial.optuna_trial_id, Trial.finished_at).where(
    *_COMPLETE, Trial.finished_at >= bindparam("b_since")
)
_POINTS = select(*_POINT).where(reports.c.trial_id.in_(bindparam("b_trials", expanding=True)))
