"""Studies from one store to another, of any kind: both books of them, read as they stood at one moment, written all or not at all.

Every row is numbered anew, for the numbers may be taken; what a trial is called, its number within the study, stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, TableClause, Text, column, select
from sqlalchemy.exc import IntegrityError

from spaces.errors import StoreError, nearest
from storage.database.engine import Database
from storage.maintenance.vacuum import refuse_held
from storage.rows import HELD_STATES
from storage.tables.columns import Json
from storage.tables.models import ClassCount, Epoch, Signal, Study, Table, Trial
from storage.tables.optuna import SCHEMA
from storage.tables.optuna_version import OF_STUDIES, OF_TRIALS, optuna_version

TRIALS_AT_ONCE = 200
"""So many trials' rows are in memory at once; each has one row for every epoch, and a kilobyte or two in it."""

Numbers = dict[int, int]
"""Id in the source → id in the target."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A study that was copied, and how much of it there was. `held` trials were being worked on, and are paused in the copy."""

    name: str
    trials: int
    epochs: int
    held: int


def copy_studies(
    source: Database, target: Database, names: Sequence[str] = (), *, running: bool = False
) -> list[Copied]:
    """Copies the studies of those names, or all, in one transaction of the target.

    Args:
        running: copy a study although workers hold trials of it; those are paused in the copy, with the epochs they had.

    Raises:
        StoreError: when there is no such study, the target has one of that name, workers hold trials, or either store is
            of a version whose tables this program does not know, or fails.
    """
    try:
        with source.snapshot() as read:
            chosen = _chosen(read, names, source.where)
            if not running:
                refuse_held(read, source.where, "copied", [study["id"] for study in chosen])
            with target.writing() as write:
                target.lock_schema(write)
                for database, connection in ((source, read), (target, write)):
                    _check_tables(connection, database.where)
                _refuse_taken(write, [study["name"] for study in chosen], target.where)
                transfer = _Transfer(read, write, source.where)
                copied = [transfer.study(study) for study in chosen]
                _copy_counts(read, write)
                return copied
    except IntegrityError as error:
        found = " ".join(str(error.orig).split())
        raise StoreError(
            "a study of that name came into the target meanwhile",
            where=target.where,
            found=found,
            next_step="try again",
        ) from None


def _chosen(read: Connection, names: Sequence[str], where: str) -> list[dict[str, Any]]:
    held = {
        row["name"]: dict(row)
        for row in read.execute(select(*_raw(Study).c).order_by(Study.id)).mappings()
    }
    for name in names:
        if name not in held:
            what = f"there is no study {name!r} in the store{nearest(name, held)}"
            raise StoreError(
                what,
                where=where,
                found=name,
                allowed=", ".join(held) or "none yet",
                next_step="`search store check` lists them",
            )
    return [study for name, study in held.items() if not names or name in names]


def _check_tables(connection: Connection, where: str) -> None:
    found = optuna_version(connection)
    if found != SCHEMA:
        what = (
            f"version {found}"
            if found
            else "none of Optuna's tables, so no study was ever begun there"
        )
        raise StoreError(
            "studies can be copied between tables of one version only",
            where=where,
            found=what,
            allowed=SCHEMA,
            next_step="search store migrate",
        )


def _refuse_taken(write: Connection, names: Sequence[str], where: str) -> None:
    ours = write.execute(select(Study.name).where(Study.name.in_(names))).scalars().all()
    theirs = sa.table("studies", column("study_name"))
    taken = {
        *ours,
        *write.execute(select(theirs.c.study_name).where(theirs.c.study_name.in_(names))).scalars(),
    }
    if taken:
        step = "copy into another store, or name the studies to copy with --study"
        raise StoreError(
            "the target has a study of that name",
            where=where,
            found=", ".join(sorted(taken)),
            next_step=step,
        )


def _copy_counts(read: Connection, write: Connection) -> None:
    """Class counts belong to data and not to studies; those that are there already are the same."""
    table = _raw(ClassCount)
    there = set(write.execute(select(ClassCount.fingerprint)).scalars())
    rows = [
        dict(row)
        for row in read.execute(select(*table.c)).mappings()
        if row["fingerprint"] not in there
    ]
    if rows:
        write.execute(sa.insert(table), rows)


def _raw(model: type[Table]) -> TableClause:
    """The table with JSON as the text that it is: it is the same everywhere, and need not be understood."""
    columns = model.__table__.columns
    return sa.table(
        model.__tablename__,
        *(
            column(each.name, Text() if isinstance(each.type, Json) else each.type)
            for each in columns
        ),
    )


class _Transfer:
    """Studies on their way. Optuna's tables are taken as they are found in either database."""

    def __init__(self, read: Connection, write: Connection, where: str) -> None:
        self.read, self.write, self.where = read, write, where
        self._found = (sa.MetaData(), sa.MetaData())

    def study(self, study: Mapping[str, Any]) -> Copied:
        """Copies it. The transaction of the target has it then."""
        theirs, optuna_trials = self._optuna_study(study["optuna_study_id"], study["name"])
        new = {key: value for key, value in study.items() if key != "id"} | {
            "optuna_study_id": theirs
        }
        self.write.execute(sa.insert(_raw(Study)), [new])
        study_id = self.write.execute(
            select(Study.id).where(Study.name == study["name"])
        ).scalar_one()
        trials, held = self._trials(study["id"], study_id, optuna_trials)
        epochs = sum(self._ours(Epoch, batch, trials) for batch in _batches(trials))
        for batch in _batches(trials):
            self._ours(Signal, batch, trials)
        return Copied(study["name"], len(trials), epochs, held)

    def _trials(self, old: int, new: int, optuna_trials: Numbers) -> tuple[Numbers, int]:
        """The trials of a study of ours; one that somebody holds is paused in the copy, for nobody works on it there."""
        table, rows = _raw(Trial), []
        for row in self.read.execute(
            select(*table.c).where(table.c.study_id == old).order_by(table.c.id)
        ).mappings():
            theirs = row["optuna_trial_id"]
            if theirs is not None and theirs not in optuna_trials:
                found = f"trial {row['number']} is not in Optuna's tables"
                raise StoreError(
                    "the study cannot be copied",
                    where=self.where,
                    found=found,
                    next_step="search store check says what is wrong",
                )
            rows.append(
                dict(row)
                | {
                    "study_id": new,
                    "optuna_trial_id": None if theirs is None else optuna_trials[theirs],
                }
            )
        held = [row for row in rows if row["state"] in HELD_STATES]
        for trial in held:
            trial.update(state="paused", lease_until=None, charged_until=None)
        return self._insert(table, rows, "id", table.c.study_id == new), len(held)

    def _optuna_study(self, old: int, name: str) -> tuple[int, Numbers]:
        source, target = self._both("studies")
        row = (
            self.read.execute(select(source).where(source.c.study_id == old))
            .mappings()
            .one_or_none()
        )
        if row is None:
            found = f"study {name} is not in Optuna's tables"
            raise StoreError(
                "the study cannot be copied",
                where=self.where,
                found=found,
                next_step="search store check says what is wrong",
            )
        self.write.execute(
            sa.insert(target),
            [{key: row[key] for key in _shared(source, target) if key != "study_id"}],
        )
        new = self.write.execute(
            select(target.c.study_id).where(target.c.study_name == row["study_name"])
        ).scalar_one()
        for table in OF_STUDIES:
            self._theirs(table, "study_id", {old: new})
        source, target = self._both("trials")
        told = self.read.execute(
            select(source).where(source.c.study_id == old).order_by(source.c.trial_id)
        ).mappings()
        rows = [
            {key: row[key] for key in _shared(source, target)} | {"study_id": new} for row in told
        ]
        numbers = self._insert(target, rows, "trial_id", target.c.study_id == new)
        for batch in _batches(numbers):
            for table in OF_TRIALS:
                self._theirs(table, "trial_id", batch)
        return new, numbers

    def _insert(
        self, table: Any, rows: Sequence[dict[str, Any]], key: str, mine: sa.ColumnElement[bool]
    ) -> Numbers:
        """Inserts rows under new ids, which a database gives out in order."""
        if not rows:
            return {}
        self.write.execute(
            sa.insert(table),
            [{name: value for name, value in row.items() if name != key} for row in rows],
        )
        new = (
            self.write.execute(select(table.c[key]).where(mine).order_by(table.c[key]))
            .scalars()
            .all()
        )
        return dict(zip((row[key] for row in rows), new, strict=True))

    def _ours(self, model: type[Table], batch: Numbers, trials: Numbers) -> int:
        table = _raw(model)
        rows = (
            self.read.execute(select(*table.c).where(table.c.trial_id.in_(batch))).mappings().all()
        )
        if rows:
            self.write.execute(
                sa.insert(table),
                [dict(row) | {"trial_id": trials[row["trial_id"]]} for row in rows],
            )
        return len(rows)

    def _theirs(self, name: str, owner: str, numbers: Numbers) -> None:
        source, target = self._both(name)
        own = {each.name for each in target.primary_key.columns}
        kept = [key for key in _shared(source, target) if key not in own]
        told = self.read.execute(
            select(source).where(source.c[owner].in_(numbers)).order_by(*source.primary_key.columns)
        ).mappings()
        rows = [{key: row[key] for key in kept} | {owner: numbers[row[owner]]} for row in told]
        if rows:
            self.write.execute(sa.insert(target), rows)

    def _both(self, name: str) -> tuple[sa.Table, sa.Table]:
        """A table of Optuna's as it is in either database."""
        source, target = self._found
        return _reflected(self.read, name, source), _reflected(self.write, name, target)


def _reflected(connection: Connection, name: str, found: sa.MetaData) -> sa.Table:
    if name in found.tables:
        return found.tables[name]
    table = sa.Table(name, found, autoload_with=connection, resolve_fks=False)
    for each in table.columns:
        if isinstance(each.type, sa.Numeric | sa.Float):
            each.type = (
                sa.Double()
            )  # as MySQL's is found it would come as a decimal, which is shorter than the float
    return table


def _shared(source: sa.Table, target: sa.Table) -> list[str]:
    return [each.name for each in source.columns if each.name in target.columns]


def _batches(numbers: Numbers) -> Iterator[Numbers]:
    pairs = list(numbers.items())
    for start in range(0, len(pairs), TRIALS_AT_ONCE):
        yield dict(pairs[start : start + TRIALS_AT_ONCE])
