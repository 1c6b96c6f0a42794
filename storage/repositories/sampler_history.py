"""The past trials of a study as a sampler needs them: a few queries, not several per trial."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, func, or_, select

from storage.repositories.base import Repository
from storage.tables.optuna_tables import (
    CONSTRAINTS,
    decode_float,
    params,
    reports,
    system_attributes,
    trials,
    values,
)

LIKE_RELATIVE = "tpe:relative_params:%"
"""Attributes of running trials that a sampler reads again: what it sampled."""

LIKE_CONSTRAINTS = f"{CONSTRAINTS}%"
"""Attributes of ended trials that a sampler reads again: how infeasible they are."""


@dataclass(slots=True)
class PastTrial:
    """A trial, with what a sampler looks at.

    Attributes:
        state: Optuna's name of it.
        value: of a complete or pruned trial; None when it has none.
        params: name, value as a number, and distribution as JSON, in the order of sampling.
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
    """Read the past trials of a study."""

    def past_trials(
        self, optuna_study_id: int, after: int = -1, among: Sequence[int] = ()
    ) -> list[PastTrial]:
        """Return trials of a study. Requires `Store.knows_optuna`.

        Ids grow in the order in which trials become visible, because a process that inserts one has
        locked the study. So the trials after the last known one, and those that had not ended, are
        all that can be new.

        Args:
            after: return all trials with a larger id in Optuna's tables.
            among: return these earlier trials too, by the same id.
        """
        parameters = {"b_study": optuna_study_id, "b_after": after, "b_among": list(among)}
        with self._database.reading() as connection:
            found = {
                row.trial_id: PastTrial(*row) for row in connection.execute(_TRIALS, parameters)
            }
            if any(trial.state in _LOOKED_AT for trial in found.values()):
                _add_details(connection, found, parameters)
        return list(found.values())


def _add_details(
    connection: Connection, found: dict[int, PastTrial], parameters: dict[str, Any]
) -> None:
    """Add the rows of the trials. A trial that started or ended meanwhile stays as it was found."""
    filled: dict[int, PastTrial] = defaultdict(lambda: PastTrial(0, 0, ""), found)
    for trial_id, *param in connection.execute(_PARAMS, parameters):
        filled[trial_id].params.append((param[0], param[1], param[2]))
    for trial_id, value, kind in connection.execute(_VALUES, parameters):
        filled[trial_id].value = decode_float(value, kind)
    for trial_id, key, text in connection.execute(_ATTRIBUTES, parameters):
        filled[trial_id].attrs[key] = text
    for trial_id, step, value, kind in connection.execute(_LAST, parameters):
        filled[trial_id].last = (step, decode_float(value, kind))


def _select_details(*columns: Any) -> Select[*tuple[Any, ...]]:
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
_PARAMS = _select_details(
    params.c.trial_id, params.c.param_name, params.c.param_value, params.c.distribution_json
).order_by(params.c.param_id)
_VALUES = _select_details(values.c.trial_id, values.c.value, values.c.value_type).where(
    values.c.objective == 0
)
_ATTRIBUTES = _select_details(
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
_LAST = _select_details(
    reports.c.trial_id,
    reports.c.step,
    reports.c.intermediate_value,
    reports.c.intermediate_value_type,
).where(trials.c.state == "PRUNED", reports.c.step == _LAST_STEP)
