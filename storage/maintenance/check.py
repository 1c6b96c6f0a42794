"""What is wrong with a store: whether both of its books tell the same, and what in them nobody owns. It reads, and changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, column, func, select

from storage.database.engine import Database, now
from storage.database.url import find_sqlite_file
from storage.maintenance.vacuum import damage, size_bytes
from storage.rows import FINAL_STATES, HELD_STATES
from storage.tables import schema
from storage.tables.models import Epoch, Signal, Study, Trial
from storage.tables.optuna import SCHEMA
from storage.tables.optuna_version import MADE_BY, optuna_version

ENDS = {
    "complete": ("COMPLETE",),
    "pruned": ("PRUNED",),
    "diverged": ("PRUNED",),
    "failed": ("FAIL", "PRUNED"),
}
"""How a trial that ended here has ended in Optuna's tables."""

SHOWN = 20
"""Findings of one kind that are named one by one; the others are counted."""

_optuna_studies = sa.table("studies", column("study_id"), column("study_name"))
_optuna_trials = sa.table(
    "trials", column("trial_id"), column("number"), column("study_id"), column("state")
)
_optuna_marks = sa.table("study_user_attributes", column("study_id"), column("key"))

_RESUME = "start a worker, which carries it on: search worker --study {study}"
_RESTORE = "restore the store from a copy made before, or leave the trial out of account"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it should be: its kind, what it is, and what to do."""

    kind: str
    what: str
    next_step: str


@dataclass(frozen=True, slots=True)
class StudyCount:
    """How much of a study there is."""

    name: str
    trials: dict[str, int]
    epochs: int


@dataclass(frozen=True, slots=True)
class Checkup:
    """What a store holds, and what is wrong with it. Versions are those of our tables and of Optuna's."""

    where: str
    version: str
    optuna_version: str | None
    size_bytes: int
    studies: tuple[StudyCount, ...]
    faults: tuple[Fault, ...]


_Row = Row[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class _Books:
    """Both books of the trials of all studies, as they stood at one moment."""

    studies: Sequence[_Row]
    trials: Sequence[_Row]
    epochs: dict[int, _Row]
    optuna_studies: dict[int, str]
    optuna_trials: dict[int, _Row]
    marked: set[int]

    def name(self, study_id: int) -> str:
        return next(
            (study.name for study in self.studies if study.id == study_id),
            f"number {study_id}, which is not in the store",
        )


def check_database(database: Database) -> Checkup:
    """Looks at all of a store.

    Raises:
        StoreError: when there is no store, or it cannot be read at all.
    """
    broken = damage(database)
    if broken:
        step = "restore it from a copy, or rescue it with `sqlite3 FILE .recover`"
        return Checkup(
            database.where,
            "unknown",
            None,
            _file_size(database),
            (),
            tuple(Fault("damage", line, step) for line in broken),
        )
    with database.snapshot() as connection:
        found = schema.version(connection)
        if found is None:
            raise schema.nothing_there(database.where)
        theirs, size = optuna_version(connection), size_bytes(connection)
        if found != schema.HEAD:
            return Checkup(database.where, found, theirs, size, (), (_other_version(found),))
        books = _read(connection, theirs=theirs == SCHEMA)
        faults = [
            *_of_optuna(books, theirs),
            *_of_studies(books),
            *_of_trials(books),
            *_of_epochs(books),
            *_orphans(connection),
        ]
    return Checkup(
        database.where, found, theirs, size, tuple(_counts(books)), tuple(_shortened(faults))
    )


def _file_size(database: Database) -> int:
    file = find_sqlite_file(database.engine.url)
    return file.stat().st_size if file is not None and file.exists() else 0


def _other_version(found: str) -> Fault:
    if found > schema.HEAD:
        return Fault(
            "version",
            f"the store is of version {found}, newer than this program's {schema.HEAD}",
            "install the newer program",
        )
    return Fault(
        "version",
        f"the store is of version {found}, older than this program's {schema.HEAD}",
        "search store migrate",
    )


def _read(connection: Connection, *, theirs: bool) -> _Books:
    left_s = (Trial.lease_until - now()).label("left_s")
    columns = _any(
        Trial.id,
        Trial.study_id,
        Trial.number,
        Trial.optuna_trial_id,
        Trial.state,
        Trial.worker,
        left_s,
    )
    ends = (
        func.count().label("epochs"),
        func.min(Epoch.epoch).label("first"),
        func.max(Epoch.epoch).label("last"),
    )
    optuna_trials = connection.execute(select(*_optuna_trials.c)).all() if theirs else []
    return _Books(
        studies=connection.execute(
            select(*_any(Study.id, Study.name, Study.optuna_study_id)).order_by(Study.id)
        ).all(),
        trials=connection.execute(select(*columns).order_by(Trial.study_id, Trial.number)).all(),
        epochs={
            row.trial_id: row
            for row in connection.execute(
                select(*_any(Epoch.trial_id, *ends)).group_by(Epoch.trial_id)
            )
        },
        optuna_studies={
            row.study_id: row.study_name for row in connection.execute(select(*_optuna_studies.c))
        }
        if theirs
        else {},
        optuna_trials={row.trial_id: row for row in optuna_trials},
        marked=set(
            connection.execute(
                select(_optuna_marks.c.study_id).where(_optuna_marks.c.key == MADE_BY)
            ).scalars()
        )
        if theirs
        else set(),
    )


def _any(*columns: Any) -> tuple[Any, ...]:
    """Columns of any type, for rows that are kept side by side."""
    return columns


def _of_optuna(books: _Books, found: str | None) -> Iterator[Fault]:
    if found is None and books.studies:
        yield Fault(
            "version",
            "Optuna's tables are not in the database",
            "restore the store from a copy made before",
        )
    if found not in (None, SCHEMA):
        what = f"Optuna's tables are of version {found}, and this program writes {SCHEMA}; they were not compared with ours"
        yield Fault("version", what, "search store migrate, if they are older")


def _of_studies(books: _Books) -> Iterator[Fault]:
    if not books.optuna_studies and not books.marked:
        return
    known = {study.optuna_study_id for study in books.studies}
    for study in books.studies:
        theirs = books.optuna_studies.get(study.optuna_study_id)
        if theirs is None:
            yield Fault(
                "study",
                f"study {study.name}: it is not in Optuna's tables",
                "restore the store from a copy made before",
            )
        elif theirs != study.name:
            yield Fault(
                "study",
                f"study {study.name}: Optuna's tables call it {theirs}",
                "restore the store from a copy made before",
            )
    for study_id in sorted(books.marked - known):
        name = books.optuna_studies.get(study_id, str(study_id))
        yield Fault(
            "study",
            f"study {name}: it was begun in Optuna's tables only",
            f"start it again, which completes it: search run --study {name}",
        )


def _of_trials(books: _Books) -> Iterator[Fault]:
    """What a trial of ours lacks in Optuna's tables, and who has it for too long."""
    owners = Counter(
        trial.optuna_trial_id for trial in books.trials if trial.optuna_trial_id is not None
    )
    for trial in books.trials:
        study = books.name(trial.study_id)
        who = f"study {study}, trial {trial.number if trial.number is not None else f'with id {trial.id}'}"
        if trial.state in HELD_STATES and (trial.left_s is None or trial.left_s < 0):
            silent = (
                "has no lease"
                if trial.left_s is None
                else f"has not been heard of for {-trial.left_s:.0f} s after its lease"
            )
            yield Fault(
                "lease", f"{who}: worker {trial.worker} {silent}", _RESUME.format(study=study)
            )
        if trial.optuna_trial_id is None or not books.optuna_studies:
            continue
        theirs = books.optuna_trials.get(trial.optuna_trial_id)
        if owners[trial.optuna_trial_id] > 1:
            yield Fault("number", f"{who}: another trial has the same one of Optuna's", _RESTORE)
        if theirs is None:
            yield Fault("end", f"{who}: it is not in Optuna's tables", _RESTORE)
        elif theirs.number != trial.number:
            yield Fault(
                "number", f"{who}: Optuna's tables give it the number {theirs.number}", _RESTORE
            )
        elif trial.state in FINAL_STATES and theirs.state not in ENDS[trial.state]:
            yield Fault(
                "end",
                f"{who}: it is {trial.state}, and {theirs.state} in Optuna's tables",
                _RESTORE,
            )
        elif (
            trial.state not in FINAL_STATES
            and theirs.state not in ("RUNNING", "WAITING")
            and (trial.left_s is None or trial.left_s < 0)
        ):
            yield Fault(
                "end",
                f"{who}: it is {trial.state}, and {theirs.state} in Optuna's tables",
                _RESUME.format(study=study),
            )
    yield from _of_optuna_trials(books)


def _of_optuna_trials(books: _Books) -> Iterator[Fault]:
    """Trials of our studies that are in Optuna's tables only, and numbers that are there twice."""
    names = {study.optuna_study_id: study.name for study in books.studies}
    ours = {trial.optuna_trial_id for trial in books.trials}
    numbers = Counter(
        (trial.study_id, trial.number)
        for trial in books.optuna_trials.values()
        if trial.study_id in names
    )
    for (study_id, number), times in sorted(numbers.items()):
        if times > 1:
            yield Fault(
                "number",
                f"study {names[study_id]}, trial {number}: {times} trials of Optuna's have that number",
                _RESTORE,
            )
    for trial in books.optuna_trials.values():
        if trial.study_id in names and trial.trial_id not in ours and trial.state != "WAITING":
            what = f"study {names[trial.study_id]}, trial {trial.number}: it is in Optuna's tables only ({trial.state})"
            yield Fault(
                "end", what, "it was not made by search; the sampler learns from it all the same"
            )


def _of_epochs(books: _Books) -> Iterator[Fault]:
    for trial in books.trials:
        row = books.epochs.get(trial.id)
        if row is not None and (row.first != 1 or row.last != row.epochs):
            who = f"study {books.name(trial.study_id)}, trial {trial.number}"
            yield Fault(
                "epochs",
                f"{who}: {row.epochs} epochs from {row.first} to {row.last}, so some are missing",
                _RESTORE,
            )


def _orphans(connection: Connection) -> Iterator[Fault]:
    """Rows that belong to nothing. No foreign key of ours lets them come about, but SQLite does not hold to them."""
    for table, key, owner in (
        (Trial, Trial.study_id, Study),
        (Epoch, Epoch.trial_id, Trial),
        (Signal, Signal.trial_id, Trial),
    ):
        lonely = (
            select(func.count())
            .select_from(table)
            .where(~select(owner.id).where(owner.id == key).exists())
        )
        rows = connection.execute(lonely).scalar_one()
        if rows:
            what = f"{rows} rows of {table.__tablename__} belong to no row of {owner.__tablename__}"
            yield Fault("orphan", what, "restore the store from a copy made before")


def _counts(books: _Books) -> Iterator[StudyCount]:
    states: dict[int, Counter[str]] = defaultdict(Counter)
    epochs: Counter[int] = Counter()
    for trial in books.trials:
        states[trial.study_id][trial.state] += 1
        if trial.id in books.epochs:
            epochs[trial.study_id] += books.epochs[trial.id].epochs
    return (
        StudyCount(study.name, dict(states[study.id]), epochs[study.id]) for study in books.studies
    )


def _shortened(faults: Sequence[Fault]) -> Iterator[Fault]:
    """The first of each kind, then how many more there are."""
    seen: Counter[str] = Counter()
    for fault in faults:
        seen[fault.kind] += 1
        if seen[fault.kind] <= SHOWN:
            yield fault
    for kind, times in seen.items():
        if times > SHOWN:
            yield Fault(
                kind,
                f"{times - SHOWN} more findings of this kind ({kind})",
                "mend the first ones, then check again",
            )
