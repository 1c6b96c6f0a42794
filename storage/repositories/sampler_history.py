"""The past of a study as a sampler needs it: set-based queries over Optuna's tables, instead of one object graph a trial."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, func, or_, select

from storage.repositories.base import Repository
from storage.tables.optuna import (
    CONSTRAINTS,
    float_of,
    params,
    reports,
    system_attributes,
    trials,
    values,
)

LIKE_RELATIVE, LIKE_CONSTRAINTS = "tpe:relative_params:%", f"{CONSTRAINTS}%"
"""Attributes that a sampler reads again: of running trials what it drew, of ended ones how infeasible they are."""


@dataclass(slots=True)
class PastTrial:
    """One trial, with what a sampler looks at.

    Attributes:
        state: by Optuna's name of it.
        value: of a complete or pruned trial; None where it has none.
        params: name, value as a number, and where that came from as JSON, in the order in which they were sampled.
        attrs: system attributes, each as JSON.
        last: step and value of the last report of a pruned trial, by which such trials are ranked.
    """

    trial_id: int
    number: int
    state: str
    value: float | None = None
    params: list[tuple[str, float, str]] = field(default_factory=list)
    attrs: dict[str, str] = field(default_factory=dict)
    last: tuple[int, float] | None = None


class SamplerHistoryRepository(Repository):
    """Reading the past."""

    def past_trials(
        self, optuna_study_id: int, after: int = -1, among: Sequence[int] = ()
    ) -> list[PastTrial]:
        """Trials of a study by their id in Optuna: the later ones, and some of the earlier ones. The store must know Optuna's tables.

        Ids grow in the order in which trials can be seen, as whoever makes one holds a lock on the study: what is later than
        the latest, and what had not ended yet, is all that can be new.
        """
        asked = {"b_study": optuna_study_id, "b_after": after, "b_among": list(among)}
        with self._database.reading() as connection:
            found = {row.trial_id: PastTrial(*row) for row in connection.execute(_TRIALS, asked)}
            if any(trial.state in _LOOKED_AT for trial in found.values()):
                _fill(connection, found, asked)
        return list(found.values())


def _fill(connection: Connection, found: dict[int, PastTrial], asked: dict[str, Any]) -> None:
    """What stands below the trials. One that was made or has ended meanwhile is left as it was found."""
    told: dict[int, PastTrial] = defaultdict(lambda: PastTrial(0, 0, ""), found)
    for trial_id, *param in connection.execute(_PARAMS, asked):
        told[trial_id].params.append((param[0], param[1], param[2]))
    for trial_id, value, kind in connection.execute(_VALUES, asked):
        told[trial_id].value = float_of(value, kind)
    for trial_id, key, text in connection.execute(_ATTRIBUTES, asked):
        told[trial_id].attrs[key] = text
    for trial_id, step, value, kind in connection.execute(_LAST, asked):
        told[trial_id].last = (step, float_of(value, kind))


def _below(*columns: Any) -> Select[*tuple[Any, ...]]:
    table = columns[0].table
    return (
        select(*columns)
        .join_from(table, trials, trials.c.trial_id == table.c.trial_id)
        .where(_WANTED, trials.c.state.in_(_LOOKED_AT))
    )


_LOOKED_AT = ("COMPLETE", "PRUNED", "RUNNING")
_WANTED = and_(
    trials.c.study_id == bindparam("b_study"),
    or_(
        trials.c.trial_id > bindparam("b_after"),
        trials.c.trial_id.in_(bindparam("b_among", expanding=True)),
    ),
)
_TRIALS = select(trials.c.trial_id, trials.c.number, trials.c.state).where(_WANTED)
_PARAMS = _below(
    params.c.trial_id, params.c.param_name, params.c.param_value, params.c.distribution_json
).order_by(params.c.param_id)
_VALUES = _below(values.c.trial_id, values.c.value, values.c.value_type).where(
    values.c.objective == 0
)
_ATTRIBUTES = _below(
    system_attributes.c.trial_id, system_attributes.c.key, system_attributes.c.value_json
).where(
    or_(
        system_attributes.c.key.like(LIKE_CONSTRAINTS),
        and_(trials.c.state == "RUNNING", system_attributes.c.key.like(LIKE_RELATIVE)),
    )
)
_steps = reports.alias("steps")
_LAST_STEP = (
    select(func.max(_steps.c.step))
    .where(_steps.c.trial_id == trials.c.trial_id)
    .correlate(trials)
    .scalar_subquery()
)
_LAST = _below(
    reports.c.trial_id,
    reports.c.step,
    reports.c.intermediate_value,
    reports.c.intermediate_value_type,
).where(trials.c.state == "PRUNED", reports.c.step == _LAST_STEP)
