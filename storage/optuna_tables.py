"""Optuna's own tables, written directly, so that a trial is taken or made, and given all that was sampled, in few transactions.

Optuna's class opens a transaction for every parameter, and one more for whatever else it is told. Here a trial is running
as soon as it is claimed, and its parameters go with its configuration. The rows are those that Optuna's class writes, in
its order and under its locks; nothing of its schema is altered. All of this is tied to the version of the schema below:
with any other one `known` is false, and the caller has Optuna's class do the writing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import Connection, TableClause, bindparam, column

from storage.rows import Sampled, Waiting

SCHEMA = "v3.2.0.a"
"""The migration of Optuna's that made the tables which this file knows."""

VERSION_TABLE = "alembic_version"

KILLED = "killed"
"""User attribute of a trial that did not complete: why."""

_STATE = sa.Enum("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING", name="trialstate")
_studies = sa.table("studies", column("study_id", sa.Integer))
_trials = sa.table(
    "trials", column("trial_id", sa.Integer), column("number", sa.Integer), column("study_id", sa.Integer),
    column("state", _STATE), column("datetime_start", sa.DateTime), column("datetime_complete", sa.DateTime),
)  # fmt: skip
_ATTRIBUTE = ("trial_id", "key", "value_json")
_params = sa.table("trial_params", *map(column, ("trial_id", "param_name", "param_value", "distribution_json")))
_user_attributes, _system_attributes = (sa.table(f"trial_{owner}_attributes", *map(column, _ATTRIBUTE)) for owner in ("user", "system"))


class OptunaTables:
    """Optuna's tables in one database. Every method is a part of the caller's transaction."""

    def __init__(self) -> None:
        self.seen = False

    def known(self, connection: Connection) -> bool:
        """Whether the tables are there, in the version of this file. Once they were they stay so, and are not asked again."""
        if not self.seen and sa.inspect(connection).has_table(VERSION_TABLE):
            self.seen = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() == SCHEMA
        return self.seen

    def take(self, connection: Connection, study_id: int) -> tuple[int, int] | None:
        """Id and number of a trial that is running from now on: the first that waits, else a new one. None without a study."""
        if not self.known(connection) or connection.execute(_LOCK, {"b_study": study_id}).scalar() is None:
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
            _write_attributes(connection, _user_attributes, trial_id, {key: json.dumps(value) for key, value in each.user_attrs.items()})
            _write_attributes(connection, _system_attributes, trial_id, {"fixed_params": json.dumps(each.params)})

    def write(self, connection: Connection, trial_id: int, sampled: Sampled) -> None:
        """What was sampled for a trial."""
        rows = [
            {"trial_id": trial_id, "param_name": param.name, "param_value": param.value, "distribution_json": param.distribution_json}
            for param in sampled.params
        ]
        if rows:
            connection.execute(_INSERT_PARAM, rows)
        _write_attributes(connection, _system_attributes, trial_id, sampled.system_attrs)

    def give_up(self, connection: Connection, trial_ids: Sequence[int], reason: str) -> None:
        """Fail those of the trials that still run, so that no sampler reckons with them any more."""
        running = (_trials.c.trial_id.in_(trial_ids), _trials.c.state == "RUNNING")
        ended = sa.update(_trials).where(*running).values(state="FAIL", datetime_complete=_now()).returning(_trials.c.trial_id)
        for trial_id in connection.execute(ended).scalars().all():
            _write_attributes(connection, _user_attributes, trial_id, {KILLED: json.dumps(reason)})


def _make(connection: Connection, study_id: int, *, state: str, started: datetime | None) -> tuple[int, int]:
    made = connection.execute(_MAKE, {"b_study": study_id, "b_state": state, "b_started": started}).one()
    return made.trial_id, made.number


def _write_attributes(connection: Connection, table: TableClause, trial_id: int, attributes: Mapping[str, str]) -> None:
    """Keys → JSON. What stands under one of the keys is replaced, as Optuna's class does."""
    if attributes:
        connection.execute(sa.delete(table).where(table.c.trial_id == trial_id, table.c.key.in_(attributes)))
        connection.execute(sa.insert(table), [{"trial_id": trial_id, "key": key, "value_json": value} for key, value in attributes.items()])


def _now() -> datetime:
    """The worker's own clock, in UTC and without saying so: that is how Optuna keeps times."""
    return datetime.now(UTC).replace(tzinfo=None)


# Built once, as building a statement takes as long as running it. The lock on the study makes trials come one at a time:
# a trial's number is how many the study had before it. SQLite has no such lock and needs none; its writers take turns.
_past = _trials.alias("past")
_OF_STUDY = _trials.c.study_id == bindparam("b_study")
_LOCK = sa.select(_studies.c.study_id).where(_studies.c.study_id == bindparam("b_study")).with_for_update()
_FIRST_WAITING = (
    sa.select(_trials.c.trial_id, _trials.c.number)
    .where(_OF_STUDY, _trials.c.state == "WAITING")
    .order_by(_trials.c.number)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_START = sa.update(_trials).where(_trials.c.trial_id == bindparam("b_trial")).values(state="RUNNING", datetime_start=bindparam("b_started"))
_MAKE = (
    sa.insert(_trials)
    .values(
        study_id=bindparam("b_study"),
        number=sa.select(sa.func.count()).select_from(_past).where(_past.c.study_id == bindparam("b_study")).scalar_subquery(),
        state=bindparam("b_state"),
        datetime_start=bindparam("b_started"),
    )
    .returning(_trials.c.trial_id, _trials.c.number)
)
_INSERT_PARAM = sa.insert(_params)
