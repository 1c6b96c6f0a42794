"""Copy studies to another store of any kind: Optuna's tables and ours, consistently, all or none.

Every row gets a new id, because the old one may be in use; a trial keeps its number in the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, TableClause, Text, column, select
from sqlalchemy.exc import IntegrityError

from spaces.errors import StoreError, nearest
from storage.database.database import Database
from storage.maintenance.database_upkeep import refuse_active
from storage.rows import ACTIVE_STATES
from storage.tables.columns import Json
from storage.tables.models import ClassCount, Epoch, Signal, Study, Table, Trial
from storage.tables.optuna_names import OF_STUDIES, OF_TRIALS, optuna_version
from storage.tables.optuna_tables import SCHEMA

BATCH_SIZE = 200
"""Trials whose rows are in memory at once; each has a row of 1 or 2 KB per epoch."""

NewIds = dict[int, int]
"""Id in the source → id in the target."""


@dataclass(frozen=True, slots=True)
class CopiedStudy:
    """A study that was copied, and its size.

    Attributes:
        paused: how many of its trials were running, and are paused in the copy.
    """

    name: str
    trials: int
    epochs: int
    paused: int


def copy_studies(
    source: Database, target: Database, names: Sequence[str] = (), *, running: bool = False
) -> list[CopiedStudy]:
    """Copy studies in one transaction of the target.

    Args:
        names: of the studies; none: all of them.
        running: copy a study even while workers own its trials; they are paused in the copy, with
            the epochs that they had.

    Raises:
        StoreError: when there is no such study, the target has one of that name, workers own
            trials, a store fails, or has tables of an unknown version.
    """
    try:
        with source.snapshot() as read:
            chosen = _choose_studies(read, names, source.where)
            if not running:
                refuse_active(read, source.where, "copied", [study["id"] for study in chosen])
            with target.writing() as write:
                target.lock_schema(write)
                _check_version(read, source.where)
                _check_version(write, target.where)
                _refuse_duplicates(write, [study["name"] for study in chosen], target.where)
                transfer = _Transfer(read, write, source.where)
                copied = [transfer.copy_study(study) for study in chosen]
                _copy_class_counts(read, write)
                return copied
    except IntegrityError as error:
        raise StoreError(
            "another program has just created a study of that name in the target",
            where=target.where,
            found=" ".join(str(error.orig).split()),
            next_step="try again",
        ) from None


def _choose_studies(read: Connection, names: Sequence[str], where: str) -> list[dict[str, Any]]:
    rows = read.execute(select(*_as_text(Study).c).order_by(Study.id)).mappings()
    stored = {row["name"]: dict(row) for row in rows}
    for name in names:
        if name not in stored:
            raise StoreError(
                f"there is no study {name!r} in the store{nearest(name, stored)}",
                where=where,
                found=name,
                allowed=", ".join(stored) or "none yet",
                next_step="`search store check` lists them",
            )
    return [study for name, study in stored.items() if not names or name in names]


def _check_version(connection: Connection, where: str) -> None:
    found = optuna_version(connection)
    if found == SCHEMA:
        return
    shown = "none of Optuna's tables, so no study was ever started there"
    if found:
        shown = f"version {found}"
    raise StoreError(
        "studies can be copied only between tables of one version",
        where=where,
        found=shown,
        allowed=SCHEMA,
        next_step="search store migrate",
    )


def _refuse_duplicates(write: Connection, names: Sequence[str], where: str) -> None:
    optuna_studies = sa.table("studies", column("study_name"))
    ours = select(Study.name).where(Study.name.in_(names))
    theirs = select(optuna_studies.c.study_name).where(optuna_studies.c.study_name.in_(names))
    duplicates = {*write.execute(ours).scalars(), *write.execute(theirs).scalars()}
    if duplicates:
        raise StoreError(
            "the target has a study of that name",
            where=where,
            found=", ".join(sorted(duplicates)),
            next_step="copy to another store, or name the studies to copy with --study",
        )


def _copy_class_counts(read: Connection, write: Connection) -> None:
    """Copy class counts, which belong to data and not to studies; existing ones are the same."""
    table = _as_text(ClassCount)
    existing = set(write.execute(select(ClassCount.fingerprint)).scalars())
    rows = [
        dict(row)
        for row in read.execute(select(*table.c)).mappings()
        if row["fingerprint"] not in existing
    ]
    if rows:
        write.execute(sa.insert(table), rows)


class _Transfer:
    """Copies studies from one connection to another.

    Optuna's tables are reflected from either database.
    """

    def __init__(self, read: Connection, write: Connection, where: str) -> None:
        self._read = read
        self._write = write
        self._where = where
        self._source_tables = sa.MetaData()
        self._target_tables = sa.MetaData()

    def copy_study(self, study: Mapping[str, Any]) -> CopiedStudy:
        """Copy one study, within the transaction of the target."""
        optuna_study_id, optuna_trials = self._copy_optuna_study(
            study["optuna_study_id"], study["name"]
        )
        row = {**study, "optuna_study_id": optuna_study_id, "rate_probe_until": None}
        del row["id"]
        self._write.execute(sa.insert(_as_text(Study)), [row])
        query = select(Study.id).where(Study.name == study["name"])
        study_id = self._write.execute(query).scalar_one()
        trials, paused = self._copy_trials(study["id"], study_id, optuna_trials)
        epochs = sum(self._copy_rows(Epoch, batch, trials) for batch in _split_batches(trials))
        for batch in _split_batches(trials):
            self._copy_rows(Signal, batch, trials)
        return CopiedStudy(study["name"], len(trials), epochs, paused)

    def _copy_trials(self, old: int, new: int, optuna_trials: NewIds) -> tuple[NewIds, int]:
        """Copy our trials of a study. Running ones are paused: no worker owns them in the copy."""
        table = _as_text(Trial)
        query = select(*table.c).where(table.c.study_id == old).order_by(table.c.id)
        rows = []
        paused = 0
        for trial in self._read.execute(query).mappings():
            row = {**trial, "study_id": new}
            theirs = trial["optuna_trial_id"]
            if theirs is not None:
                if theirs not in optuna_trials:
                    raise self._make_incomplete_error(f"trial {trial['number']}")
                row["optuna_trial_id"] = optuna_trials[theirs]
            if trial["state"] in ACTIVE_STATES:
                row |= {"state": "paused", "lease_until": None, "charged_until": None}
                paused += 1
            rows.append(row)
        return self._insert_rows(table, rows, "id", table.c.study_id == new), paused

    def _copy_optuna_study(self, old: int, name: str) -> tuple[int, NewIds]:
        """Copy a study of Optuna's tables with its trials.

        Returns:
            Its new id, and the new ids of the trials.
        """
        source, target = self._reflect_both("studies")
        query = select(source).where(source.c.study_id == old)
        study = self._read.execute(query).mappings().one_or_none()
        if study is None:
            raise self._make_incomplete_error(f"study {name}")
        row = {key: study[key] for key in _common_columns(source, target) if key != "study_id"}
        self._write.execute(sa.insert(target), [row])
        by_name = select(target.c.study_id).where(target.c.study_name == study["study_name"])
        new = self._write.execute(by_name).scalar_one()
        for table in OF_STUDIES:
            self._copy_optuna_rows(table, "study_id", {old: new})
        trials = self._copy_optuna_trials(old, new)
        for batch in _split_batches(trials):
            for table in OF_TRIALS:
                self._copy_optuna_rows(table, "trial_id", batch)
        return new, trials

    def _copy_optuna_trials(self, old: int, new: int) -> NewIds:
        source, target = self._reflect_both("trials")
        query = select(source).where(source.c.study_id == old).order_by(source.c.trial_id)
        columns = _common_columns(source, target)
        rows = [
            {key: row[key] for key in columns} | {"study_id": new}
            for row in self._read.execute(query).mappings()
        ]
        return self._insert_rows(target, rows, "trial_id", target.c.study_id == new)

    def _insert_rows(
        self, table: Any, rows: Sequence[dict[str, Any]], key: str, mine: sa.ColumnElement[bool]
    ) -> NewIds:
        """Insert rows under new ids, which a database assigns in order.

        Args:
            key: column of the id.
            mine: whether a row of the target is one of these.
        """
        if not rows:
            return {}
        without_id = [{name: row[name] for name in row if name != key} for row in rows]
        self._write.execute(sa.insert(table), without_id)
        query = select(table.c[key]).where(mine).order_by(table.c[key])
        new = self._write.execute(query).scalars().all()
        return dict(zip((row[key] for row in rows), new, strict=True))

    def _copy_rows(self, model: type[Table], batch: NewIds, trials: NewIds) -> int:
        """Copy the rows of some trials in one of our tables, and return how many there were."""
        table = _as_text(model)
        query = select(*table.c).where(table.c.trial_id.in_(batch))
        rows = [
            {**row, "trial_id": trials[row["trial_id"]]}
            for row in self._read.execute(query).mappings()
        ]
        if rows:
            self._write.execute(sa.insert(table), rows)
        return len(rows)

    def _copy_optuna_rows(self, name: str, owner: str, new_ids: NewIds) -> None:
        """Copy the rows of some studies or trials in one of Optuna's tables.

        Args:
            owner: column of the study's or the trial's id.
        """
        source, target = self._reflect_both(name)
        own_ids = {each.name for each in target.primary_key.columns}
        columns = [key for key in _common_columns(source, target) if key not in own_ids]
        query = select(source).where(source.c[owner].in_(new_ids))
        rows = [
            {key: row[key] for key in columns} | {owner: new_ids[row[owner]]}
            for row in self._read.execute(query.order_by(*source.primary_key.columns)).mappings()
        ]
        if rows:
            self._write.execute(sa.insert(target), rows)

    def _reflect_both(self, name: str) -> tuple[sa.Table, sa.Table]:
        """One of Optuna's tables as it is in either database."""
        source = _reflect_table(self._read, name, self._source_tables)
        return source, _reflect_table(self._write, name, self._target_tables)

    def _make_incomplete_error(self, what: str) -> StoreError:
        return StoreError(
            "the study cannot be copied",
            where=self._where,
            found=f"{what} is not in Optuna's tables",
            next_step="search store check lists the problems",
        )


def _as_text(model: type[Table]) -> TableClause:
    """A table of ours with JSON as text, which is copied without decoding."""
    columns = [
        column(each.name, Text() if isinstance(each.type, Json) else each.type)
        for each in model.__table__.columns
    ]
    return sa.table(model.__tablename__, *columns)


def _reflect_table(connection: Connection, name: str, found: sa.MetaData) -> sa.Table:
    if name in found.tables:
        return found.tables[name]
    table = sa.Table(name, found, autoload_with=connection, resolve_fks=False)
    for each in table.columns:
        if isinstance(each.type, sa.Numeric | sa.Float):
            # The reflected type of MySQL would return a decimal, which is shorter than the float.
            each.type = sa.Double()
    return table


def _common_columns(source: sa.Table, target: sa.Table) -> list[str]:
    return [each.name for each in source.columns if each.name in target.columns]


def _split_batches(new_ids: NewIds) -> Iterator[NewIds]:
    pairs = list(new_ids.items())
    for start in range(0, len(pairs), BATCH_SIZE):
        yield dict(pairs[start : start + BATCH_SIZE])
