"""Optuna's tables, written directly, so that one transaction writes Optuna's tables and ours.

Optuna's class opens a transaction for every parameter, and another one for everything else that it
records. Here a trial runs in Optuna's tables as soon as it is claimed, its parameters are written
with its configuration, a report with the epoch, and its end with the end in our tables. The rows
are the same as those that Optuna's class writes, in its order and under its locks; its schema is
not changed. This depends on the version of the schema below: with any other version
`check_version` is false, and the caller uses Optuna's class instead.
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

from storage.rows import EnqueuedTrial, OptunaEnd, SampledTrial
from storage.tables.optuna_names import optuna_version

SCHEMA = "v3.2.0.a"
"""Optuna's migration that made the tables as this file knows them."""

CONSTRAINTS = "constraints"
"""Prefix of the keys of constraints among the system attributes."""

KILLED = "killed"
"""User attribute of a trial that did not complete: why."""

REMEDY = "remedy"
"""User attribute of a trial that tries another trial's remedy.

The number of that trial (`of`), its `preset`, the `patch` outside the search space, and, but for
trials of version 0.1.0, which of its remedies (`choice`), the `title`, the `cause`, and whether the
sampler chose it (`by_sampler`).
"""

CONFIRM = "confirm"
"""User attribute of a trial that trains a configuration of another study again.

The number of that study's trial (`of`), which of the seeds it is (`seed_number`, counted from 1),
the `seed` itself, and the `patch` of all values that no active dimension has.
"""

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
_VALUE_TYPE = sa.Enum(*_FLOATS, name="trialvaluetype")
_REPORT_TYPE = sa.Enum(*_FLOATS, "NAN", name="trialintermediatevaluetype")
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
user_attributes = sa.table("trial_user_attributes", *map(column, _ATTRIBUTE))
system_attributes = sa.table("trial_system_attributes", *map(column, _ATTRIBUTE))


class OptunaTables:
    """Optuna's tables in one database. Every method is a part of the caller's transaction.

    Attributes:
        is_known: whether the tables were found in the version of this file; it stays true then.
    """

    def __init__(self) -> None:
        self.is_known = False

    def check_version(self, connection: Connection) -> bool:
        """Whether the tables exist in the version of this file."""
        if not self.is_known:
            self.is_known = optuna_version(connection) == SCHEMA
        return self.is_known

    def start_trial(self, connection: Connection, study_id: int) -> tuple[int, int] | None:
        """Start the first enqueued trial, or a new one.

        Returns:
            Its id and its number; None without known tables or without the study.
        """
        if not self.check_version(connection):
            return None
        if connection.execute(_LOCK, {"b_study": study_id}).scalar() is None:
            return None
        enqueued = connection.execute(_FIRST_WAITING, {"b_study": study_id}).one_or_none()
        if enqueued is None:
            return _insert_trial(connection, study_id, state="RUNNING", started=_utc_now())
        connection.execute(_START, {"b_trial": enqueued.trial_id, "b_started": _utc_now()})
        return enqueued.trial_id, enqueued.number

    def enqueue_trials(
        self, connection: Connection, study_id: int, enqueued: Iterable[EnqueuedTrial]
    ) -> None:
        """Enqueue configurations that are tried, in this order, before any is sampled."""
        connection.execute(_LOCK, {"b_study": study_id})
        for each in enqueued:
            trial_id, _ = _insert_trial(connection, study_id, state="WAITING", started=None)
            user_attrs = {key: json.dumps(value) for key, value in each.user_attrs.items()}
            system_attrs = {"fixed_params": json.dumps(each.params)}
            _write_attributes(connection, user_attributes, trial_id, user_attrs)
            _write_attributes(connection, system_attributes, trial_id, system_attrs)

    def write_sampled(self, connection: Connection, trial_id: int, sampled: SampledTrial) -> None:
        """Write the parameters that were sampled for a trial."""
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

    def report_value(self, connection: Connection, trial_id: int, step: int, value: float) -> None:
        """Report a running trial's value at a step, in place of an earlier report for that step."""
        stored, kind = _encode_float(value)
        row = {"b_trial": trial_id, "b_step": step, "b_value": stored, "b_kind": kind}
        connection.execute(_REPORT[connection.dialect.name], row)

    def delete_reports_after(self, connection: Connection, trial_id: int, step: int) -> None:
        """Delete later reports of a running trial, which resumes from an older checkpoint."""
        connection.execute(_DELETE_REPORTS, {"b_trial": trial_id, "b_step": step})

    def end_trial(self, connection: Connection, trial_id: int, end: OptunaEnd) -> None:
        """End a running trial. One that has ended already keeps that end."""
        row = {"b_trial": trial_id, "b_state": end.state, "b_completed": _utc_now()}
        if connection.execute(_END, row).rowcount != 1:
            return
        constraints = {
            f"{CONSTRAINTS}:{key}": json.dumps(value) for key, value in end.constraints.items()
        }
        user_attrs = {key: json.dumps(value) for key, value in end.user_attrs.items()}
        _write_attributes(connection, system_attributes, trial_id, constraints)
        _write_attributes(connection, user_attributes, trial_id, user_attrs)
        _write_value(connection, trial_id, end)

    def fail_trials(self, connection: Connection, trial_ids: Sequence[int], reason: str) -> None:
        """Fail those of the trials that still run, so that no sampler counts them as running."""
        running = (trials.c.trial_id.in_(trial_ids), trials.c.state == "RUNNING")
        locked = sa.select(trials.c.trial_id).where(*running).with_for_update()
        failed = connection.execute(locked).scalars().all()
        connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id.in_(failed))
            .values(state="FAIL", datetime_complete=_utc_now())
        )
        for trial_id in failed:
            _write_attributes(connection, user_attributes, trial_id, {KILLED: json.dumps(reason)})


def decode_float(value: float | None, kind: str) -> float:
    """Decode a float as Optuna stores it: the inverse of how it is written."""
    if value is not None:
        return value
    return {"INF_POS": math.inf, "INF_NEG": -math.inf}.get(kind, math.nan)


def has_waiting(connection: Connection, study_id: int) -> bool:
    """Whether a configuration is enqueued that no worker has started."""
    return connection.execute(_ANY_WAITING, {"b_study": study_id}).first() is not None


def _insert_trial(
    connection: Connection, study_id: int, *, state: str, started: datetime | None
) -> tuple[int, int]:
    """Insert a trial and return its id and its number."""
    row = {"b_study": study_id, "b_state": state, "b_started": started}
    if connection.dialect.name == "mysql":
        # It cannot return a row, nor read the table that it writes to.
        number = connection.execute(_COUNT, row).scalar_one()
        inserted = connection.execute(_INSERT_NUMBERED, row | {"b_number": number})
        return inserted.lastrowid, number
    trial = connection.execute(_INSERT, row).one()
    return trial.trial_id, trial.number


def _write_attributes(
    connection: Connection, table: TableClause, trial_id: int, attributes: Mapping[str, str]
) -> None:
    """Write JSON values by key. An existing value is replaced, as Optuna's class does."""
    if not attributes:
        return
    rows = [
        {"trial_id": trial_id, "key": key, "value_json": value} for key, value in attributes.items()
    ]
    connection.execute(
        sa.delete(table).where(table.c.trial_id == trial_id, table.c.key.in_(attributes))
    )
    connection.execute(sa.insert(table), rows)


def _write_value(connection: Connection, trial_id: int, end: OptunaEnd) -> None:
    """Write the final value of a trial, if it has one. A pruned trial has its last report."""
    value: float | None = None
    kind = "NAN"
    if end.state == "PRUNED":
        last = connection.execute(_LAST_REPORT, {"b_trial": trial_id}).one_or_none()
        value, kind = last or (None, "NAN")
    elif end.value is not None:
        value, kind = _encode_float(end.value)
    if kind != "NAN":
        row = {"trial_id": trial_id, "objective": 0, "value": value, "value_type": kind}
        connection.execute(_INSERT_VALUE, row)


def _encode_float(value: float) -> tuple[float | None, str]:
    """A float as Optuna stores it: not every database can store NaN and infinity."""
    if math.isfinite(value):
        return value, "FINITE"
    if math.isnan(value):
        return None, "NAN"
    return None, "INF_POS" if value > 0 else "INF_NEG"


def _utc_now() -> datetime:
    """The process's own time in UTC without a time zone, which is how Optuna stores times."""
    return datetime.now(UTC).replace(tzinfo=None)


# The statements are built once, because building one takes as long as running it. The lock on the
# study makes transactions insert trials one at a time: the number of a trial is how many trials the
# study had before it. SQLite has no such lock and needs none: its writers run one at a time.
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
_ANY_WAITING = sa.select(trials.c.trial_id).where(_OF_STUDY, trials.c.state == "WAITING").limit(1)
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
_INSERT = _NEW.values(number=_COUNT.scalar_subquery()).returning(trials.c.trial_id, trials.c.number)
_INSERT_NUMBERED = _NEW.values(number=bindparam("b_number"))
_INSERT_PARAM = sa.insert(params)
_INSERT_VALUE = sa.insert(values)

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
_DELETE_REPORTS = sa.delete(reports).where(
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
