"""Optuna's own tables, written directly, so that what both books hold is written in one transaction.

Optuna's class opens a transaction for every parameter, and one more for whatever else it is told. Here a trial is running
as soon as it is claimed, its parameters go with its configuration, a report with the epoch, and its end with ours. The rows
are those that Optuna's class writes, in its order and under its locks; nothing of its schema is altered. All of this is
tied to the version of the schema below: with any other one `known` is false, and the caller has Optuna's class do the writing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, TableClause, bindparam, column
from sqlalchemy.dialects import mysql, postgresql, sqlite

from storage.rows import OptunaEnd, Sampled, Waiting

SCHEMA = "v3.2.0.a"
"""The migration of Optuna's that made the tables which this file knows."""

VERSION_TABLE = "alembic_version"

CONSTRAINTS = "constraints"
"""What the keys of constraints among the system attributes begin with."""

KILLED = "killed"
"""User attribute of a trial that did not complete: why."""

_STATE = sa.Enum("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING", name="trialstate")
studies = sa.table("studies", column("study_id", sa.Integer))
trials = sa.table(
    "trials",
    column("trial_id", sa.Integer),
    column("number", sa.Integer),
    column("study_id", sa.Integer),
    column("state", _STATE),
    column("datetime_start", sa.DateTime),
    column("datetime_complete", sa.DateTime),
)
_FLOATS = ("FINITE", "INF_POS", "INF_NEG")
_VALUE_TYPE, _REPORT_TYPE = (
    sa.Enum(*_FLOATS, name="trialvaluetype"),
    sa.Enum(*_FLOATS, "NAN", name="trialintermediatevaluetype"),
)
values = sa.table(
    "trial_values",
    column("trial_id", sa.Integer),
    column("objective", sa.Integer),
    column("value", sa.Double),
    column("value_type", _VALUE_TYPE),
)
reports = sa.table(
    "trial_intermediate_values",
    column("trial_id", sa.Integer),
    column("step", sa.Integer),
    column("intermediate_value", sa.Double),
    column("intermediate_value_type", _REPORT_TYPE),
)
_ATTRIBUTE = ("trial_id", "key", "value_json")
params = sa.table(
    "trial_params",
    *map(column, ("param_id", "trial_id", "param_name", "param_value", "distribution_json")),
)
user_attributes, system_attributes = (
    sa.table(f"trial_{owner}_attributes", *map(column, _ATTRIBUTE)) for owner in ("user", "system")
)


class OptunaTables:
    """Optuna's tables in one database. Every method is a part of the caller's transaction."""

    def __init__(self) -> None:
        self.seen = False

    def known(self, connection: Connection) -> bool:
        """Whether the tables are there, in the version of this file. Once they were they stay so, and are not asked again."""
        if not self.seen and sa.inspect(connection).has_table(VERSION_TABLE):
            self.seen = (
                connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
                == SCHEMA
            )
        return self.seen

    def take(self, connection: Connection, study_id: int) -> tuple[int, int] | None:
        """Id and number of a trial that is running from now on: the first that waits, else a new one. None without a study."""
        if (
            not self.known(connection)
            or connection.execute(_LOCK, {"b_study": study_id}).scalar() is None
        ):
            return None
        waiting = connection.execute(_FIRST_WAITING, {"b_study": study_id}).one_or_none()
        if waiting is None:
            return _make(connection, study_id, state="RUNNING", started=_now())
        connection.execute(_START, {"b_trial": waiting.trial_id, "b_started": _now()})
        return waiting.trial_id, waiting.number

    def enqueue(self, connection: Connection, study_id: int, waiting: Iterable[Waiting]) -> None:
        """Have these tried before anything is sampled, in their order."""
        connection.execute(_LOCK, {"b_study": study_id})
        for each in waiting:
            trial_id, _ = _make(connection, study_id, state="WAITING", started=None)
            _write_attributes(
                connection,
                user_attributes,
                trial_id,
                {key: json.dumps(value) for key, value in each.user_attrs.items()},
            )
            _write_attributes(
                connection, system_attributes, trial_id, {"fixed_params": json.dumps(each.params)}
            )

    def write(self, connection: Connection, trial_id: int, sampled: Sampled) -> None:
        """What was sampled for a trial."""
        rows = [
            {
                "trial_id": trial_id,
                "param_name": param.name,
                "param_value": param.value,
                "distribution_json": param.distribution_json,
            }
            for param in sampled.params
        ]
        if rows:
            connection.execute(_INSERT_PARAM, rows)
        _write_attributes(connection, system_attributes, trial_id, sampled.system_attrs)

    def report(self, connection: Connection, trial_id: int, step: int, value: float) -> None:
        """The value of a trial that runs at one step, in the place of what was reported for that step before."""
        stored, kind = _spelled(value)
        told = {"b_trial": trial_id, "b_step": step, "b_value": stored, "b_kind": kind}
        connection.execute(_REPORT[connection.dialect.name], told)

    def forget_reports_after(self, connection: Connection, trial_id: int, step: int) -> None:
        """Drop what a running trial reported later, as an attempt that went on from an older checkpoint knows nothing of it."""
        connection.execute(_FORGET, {"b_trial": trial_id, "b_step": step})

    def end(self, connection: Connection, trial_id: int, told: OptunaEnd) -> None:
        """The end of a trial, if it runs; one that has ended keeps the end that it has."""
        if (
            connection.execute(
                _END, {"b_trial": trial_id, "b_state": told.state, "b_completed": _now()}
            ).rowcount
            != 1
        ):
            return
        _write_attributes(
            connection,
            system_attributes,
            trial_id,
            {f"{CONSTRAINTS}:{key}": json.dumps(v) for key, v in told.constraints.items()},
        )
        _write_attributes(
            connection,
            user_attributes,
            trial_id,
            {key: json.dumps(value) for key, value in told.user_attrs.items()},
        )
        value, kind = (None, "NAN") if told.value is None else _spelled(told.value)
        if told.state == "PRUNED":
            value, kind = connection.execute(_LAST_REPORT, {"b_trial": trial_id}).one_or_none() or (
                None,
                "NAN",
            )
        if kind != "NAN":
            connection.execute(
                _INSERT_VALUE,
                {"trial_id": trial_id, "objective": 0, "value": value, "value_type": kind},
            )

    def give_up(self, connection: Connection, trial_ids: Sequence[int], reason: str) -> None:
        """Fail those of the trials that still run, so that no sampler reckons with them any more."""
        running = (trials.c.trial_id.in_(trial_ids), trials.c.state == "RUNNING")
        ended = (
            connection.execute(sa.select(trials.c.trial_id).where(*running).with_for_update())
            .scalars()
            .all()
        )
        connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id.in_(ended))
            .values(state="FAIL", datetime_complete=_now())
        )
        for trial_id in ended:
            _write_attributes(connection, user_attributes, trial_id, {KILLED: json.dumps(reason)})


def _make(
    connection: Connection, study_id: int, *, state: str, started: datetime | None
) -> tuple[int, int]:
    new = {"b_study": study_id, "b_state": state, "b_started": started}
    if (
        connection.dialect.name == "mysql"
    ):  # it neither returns a row, nor reads the table that it writes to
        number = connection.execute(_COUNT, new).scalar_one()
        return connection.execute(_MAKE_NUMBERED, new | {"b_number": number}).lastrowid, number
    made = connection.execute(_MAKE, new).one()
    return made.trial_id, made.number


def _write_attributes(
    connection: Connection, table: TableClause, trial_id: int, attributes: Mapping[str, str]
) -> None:
    """Keys → JSON. What stands under one of the keys is replaced, as Optuna's class does."""
    if attributes:
        connection.execute(
            sa.delete(table).where(table.c.trial_id == trial_id, table.c.key.in_(attributes))
        )
        connection.execute(
            sa.insert(table),
            [
                {"trial_id": trial_id, "key": key, "value_json": value}
                for key, value in attributes.items()
            ],
        )


def _spelled(value: float) -> tuple[float | None, str]:
    """A float as Optuna keeps it: databases do not agree on what is none."""
    if math.isfinite(value):
        return value, "FINITE"
    return None, "NAN" if math.isnan(value) else "INF_POS" if value > 0 else "INF_NEG"


def float_of(value: float | None, kind: str) -> float:
    """The inverse of how Optuna keeps a float."""
    if value is not None:
        return value
    return {"INF_POS": math.inf, "INF_NEG": -math.inf}.get(kind, math.nan)


def _now() -> datetime:
    """The worker's own clock, in UTC and without saying so: that is how Optuna keeps times."""
    return datetime.now(UTC).replace(tzinfo=None)


# Built once, as building a statement takes as long as running it. The lock on the study makes trials come one at a time:
# a trial's number is how many the study had before it. SQLite has no such lock and needs none; its writers take turns.
_past = trials.alias("past")
_OF_STUDY = trials.c.study_id == bindparam("b_study")
_LOCK = (
    sa.select(studies.c.study_id)
    .where(studies.c.study_id == bindparam("b_study"))
    .with_for_update()
)
_FIRST_WAITING = (
    sa.select(trials.c.trial_id, trials.c.number)
    .where(_OF_STUDY, trials.c.state == "WAITING")
    .order_by(trials.c.number)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_START = (
    sa.update(trials)
    .where(trials.c.trial_id == bindparam("b_trial"))
    .values(state="RUNNING", datetime_start=bindparam("b_started"))
)
_COUNT = (
    sa.select(sa.func.count()).select_from(_past).where(_past.c.study_id == bindparam("b_study"))
)
_NEW = sa.insert(trials).values(
    study_id=bindparam("b_study"), state=bindparam("b_state"), datetime_start=bindparam("b_started")
)
_MAKE = _NEW.values(number=_COUNT.scalar_subquery()).returning(trials.c.trial_id, trials.c.number)
_MAKE_NUMBERED = _NEW.values(number=bindparam("b_number"))
_INSERT_PARAM, _INSERT_VALUE = sa.insert(params), sa.insert(values)

_OF_RUNNING = (trials.c.trial_id == bindparam("b_trial"), trials.c.state == "RUNNING")
_REPORTED: tuple[Any, ...] = (
    bindparam("b_value", type_=sa.Double()),
    bindparam("b_kind", type_=_REPORT_TYPE),
)
_ROW = sa.select(trials.c.trial_id, bindparam("b_step", type_=sa.Integer()), *_REPORTED).where(
    *_OF_RUNNING
)
_REPORT = {
    name: insert(reports)
    .from_select(["trial_id", "step", "intermediate_value", "intermediate_value_type"], _ROW)
    .on_conflict_do_update(
        index_elements=["trial_id", "step"],
        set_=dict(zip(("intermediate_value", "intermediate_value_type"), _REPORTED, strict=True)),
    )
    for name, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
} | {
    "mysql": mysql.insert(reports)
    .from_select(["trial_id", "step", "intermediate_value", "intermediate_value_type"], _ROW)
    .on_duplicate_key_update(
        dict(zip(("intermediate_value", "intermediate_value_type"), _REPORTED, strict=True))
    )
}
_FORGET = sa.delete(reports).where(
    reports.c.trial_id.in_(sa.select(trials.c.trial_id).where(*_OF_RUNNING)),
    reports.c.step > bindparam("b_step"),
)
_LAST_REPORT = (
    sa.select(reports.c.intermediate_value, reports.c.intermediate_value_type)
    .where(reports.c.trial_id == bindparam("b_trial"))
    .order_by(reports.c.step.desc())
    .limit(1)
)
_END = (
    sa.update(trials)
    .where(*_OF_RUNNING)
    .values(state=bindparam("b_state", type_=_STATE), datetime_complete=bindparam("b_completed"))
)
