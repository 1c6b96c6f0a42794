"""Consistency check: do Optuna's tables and ours agree, and which rows are orphaned? Read-only."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, column, func, select

from storage.database.database import Database, now
from storage.database.url import find_sqlite_file
from storage.maintenance.database_upkeep import find_damage, size_bytes
from storage.rows import ACTIVE_STATES, FINAL_STATES
from storage.tables import schema_version
from storage.tables.models import Epoch, Signal, Study, Trial
from storage.tables.optuna_names import MADE_BY, optuna_version
from storage.tables.optuna_tables import SCHEMA

ENDS = {
    "complete": ("COMPLETE",),
    "pruned": ("PRUNED",),
    "diverged": ("PRUNED",),
    "failed": ("FAIL", "PRUNED"),
}
"""Final state in our tables → the states in Optuna's tables that agree with it."""

MAX_SHOWN = 20
"""Problems of one kind that are listed; the others are counted."""

_optuna_studies = sa.table("studies", column("study_id"), column("study_name"))
_optuna_trials = sa.table(
    "trials", column("trial_id"), column("number"), column("study_id"), column("state")
)
_optuna_marks = sa.table("study_user_attributes", column("study_id"), column("key"))

_RESUME = "start a worker, which resumes it: search worker --study {study}"
_RESTORE_STORE = "restore the store from an earlier copy"
_RESTORE_TRIAL = "restore the store from an earlier copy, or disregard the trial"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a store that is not as it should be.

    Attributes:
        kind: damage, version, study, lease, number, end, epochs or orphan.
        what: what was found, and where.
        next_step: what to do.
    """

    kind: str
    what: str
    next_step: str


@dataclass(frozen=True, slots=True)
class StudyCount:
    """The size of a study.

    Attributes:
        trials: by state.
    """

    name: str
    trials: dict[str, int]
    epochs: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The content of a store, and its problems.

    Attributes:
        where: URL of the store, without the password.
        version: of our tables.
        optuna_version: of Optuna's tables, None when there are none.
    """

    where: str
    version: str
    optuna_version: str | None
    size_bytes: int
    studies: tuple[StudyCount, ...]
    problems: tuple[Problem, ...]


_Row = Row[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class _Tables:
    """The rows of Optuna's tables and ours at one moment.

    Attributes:
        epochs: by id of the trial, their number, the first and the last.
        optuna_studies: names by id.
        optuna_trials: by id.
        marked: ids of the studies that this program created in Optuna's tables.
    """

    studies: Sequence[_Row]
    trials: Sequence[_Row]
    epochs: dict[int, _Row]
    optuna_studies: dict[int, str]
    optuna_trials: dict[int, _Row]
    marked: set[int]

    def study_name(self, study_id: int) -> str:
        for study in self.studies:
            if study.id == study_id:
                return str(study.name)
        return f"number {study_id}, which is not in the store"


def check_database(database: Database) -> CheckReport:
    """Check a whole store.

    Raises:
        StoreError: when there is no store, or it cannot be read at all.
    """
    damage = find_damage(database)
    if damage:
        step = "restore it from a copy, or recover it with `sqlite3 FILE .recover`"
        problems = tuple(Problem("damage", line, step) for line in damage)
        return CheckReport(database.where, "unknown", None, _file_size(database), (), problems)
    with database.snapshot() as connection:
        version = schema_version.read_version(connection)
        if version is None:
            raise schema_version.make_no_tables_error(database.where)
        theirs = optuna_version(connection)
        size = size_bytes(connection)
        if version != schema_version.HEAD:
            problem = _other_version(version)
            return CheckReport(database.where, version, theirs, size, (), (problem,))
        tables = _read_tables(connection, with_optuna=theirs == SCHEMA)
        found = [
            *_check_optuna_version(tables, theirs),
            *_check_studies(tables),
            *_check_trials(tables),
            *_check_optuna_trials(tables),
            *_check_epochs(tables),
            *_find_orphans(connection),
        ]
    counts = tuple(_count_studies(tables))
    return CheckReport(database.where, version, theirs, size, counts, tuple(_shorten_list(found)))


def _file_size(database: Database) -> int:
    file = find_sqlite_file(database.engine.url)
    return file.stat().st_size if file is not None and file.exists() else 0


def _other_version(found: str) -> Problem:
    if found > schema_version.HEAD:
        return Problem(
            "version",
            f"the store is of version {found}, newer than this program's {schema_version.HEAD}",
            "install the newer program",
        )
    return Problem(
        "version",
        f"the store is of version {found}, older than this program's {schema_version.HEAD}",
        "search store migrate",
    )


def _read_tables(connection: Connection, *, with_optuna: bool) -> _Tables:
    """Read the rows to compare; Optuna's only if its tables are of the known version."""
    lease_left_s = (Trial.lease_until - now()).label("lease_left_s")
    studies = select(*_as_columns(Study.id, Study.name, Study.optuna_study_id)).order_by(Study.id)
    trials = select(
        *_as_columns(
            Trial.id,
            Trial.study_id,
            Trial.number,
            Trial.optuna_trial_id,
            Trial.state,
            Trial.worker,
            lease_left_s,
        )
    ).order_by(Trial.study_id, Trial.number)
    epochs = select(
        *_as_columns(
            Epoch.trial_id,
            func.count().label("epochs"),
            func.min(Epoch.epoch).label("first"),
            func.max(Epoch.epoch).label("last"),
        )
    ).group_by(Epoch.trial_id)
    optuna_studies: dict[int, str] = {}
    optuna_trials: dict[int, _Row] = {}
    marked: set[int] = set()
    if with_optuna:
        made_by_us = select(_optuna_marks.c.study_id).where(_optuna_marks.c.key == MADE_BY)
        for study in connection.execute(select(*_optuna_studies.c)):
            optuna_studies[study.study_id] = study.study_name
        for trial in connection.execute(select(*_optuna_trials.c)):
            optuna_trials[trial.trial_id] = trial
        marked.update(connection.execute(made_by_us).scalars())
    return _Tables(
        studies=connection.execute(studies).all(),
        trials=connection.execute(trials).all(),
        epochs={row.trial_id: row for row in connection.execute(epochs)},
        optuna_studies=optuna_studies,
        optuna_trials=optuna_trials,
        marked=marked,
    )


def _as_columns(*columns: Any) -> tuple[Any, ...]:
    """Columns of any type, so that rows of different tables have one type."""
    return columns


def _check_optuna_version(tables: _Tables, found: str | None) -> Iterator[Problem]:
    if found is None and tables.studies:
        yield Problem("version", "Optuna's tables are not in the database", _RESTORE_STORE)
    if found not in (None, SCHEMA):
        yield Problem(
            "version",
            f"Optuna's tables are of version {found}, and this program writes {SCHEMA}; "
            "they were not compared with ours",
            "search store migrate, if they are older",
        )


def _check_studies(tables: _Tables) -> Iterator[Problem]:
    if not tables.optuna_studies and not tables.marked:
        return
    for study in tables.studies:
        theirs = tables.optuna_studies.get(study.optuna_study_id)
        if theirs is None:
            what = f"study {study.name}: it is not in Optuna's tables"
            yield Problem("study", what, _RESTORE_STORE)
        elif theirs != study.name:
            what = f"study {study.name}: its name in Optuna's tables is {theirs}"
            yield Problem("study", what, _RESTORE_STORE)
    known = {study.optuna_study_id for study in tables.studies}
    for study_id in sorted(tables.marked - known):
        name = tables.optuna_studies.get(study_id, str(study_id))
        yield Problem(
            "study",
            f"study {name}: it was created in Optuna's tables only",
            f"start it again, which completes it: search run --study {name}",
        )


def _check_trials(tables: _Tables) -> Iterator[Problem]:
    """Find trials with an expired lease, and those that Optuna's tables have differently."""
    owners = Counter(
        trial.optuna_trial_id for trial in tables.trials if trial.optuna_trial_id is not None
    )
    for trial in tables.trials:
        study = tables.study_name(trial.study_id)
        name = trial.number if trial.number is not None else f"with id {trial.id}"
        label = f"study {study}, trial {name}"
        if trial.state in ACTIVE_STATES and _is_abandoned(trial):
            what = f"{label}: worker {trial.worker} {_describe_lease(trial)}"
            yield Problem("lease", what, _RESUME.format(study=study))
        if trial.optuna_trial_id is None or not tables.optuna_studies:
            continue
        if owners[trial.optuna_trial_id] > 1:
            what = f"{label}: another trial refers to the same trial of Optuna's"
            yield Problem("number", what, _RESTORE_TRIAL)
        theirs = tables.optuna_trials.get(trial.optuna_trial_id)
        yield from _compare_trial(trial, theirs, label, _RESUME.format(study=study))


def _is_abandoned(trial: _Row) -> bool:
    return trial.lease_left_s is None or trial.lease_left_s < 0


def _describe_lease(trial: _Row) -> str:
    if trial.lease_left_s is None:
        return "has no lease"
    return f"lost its lease {-trial.lease_left_s:.0f} s ago"


def _compare_trial(trial: _Row, theirs: _Row | None, label: str, resume: str) -> Iterator[Problem]:
    """Compare a trial with the same one in Optuna's tables.

    Args:
        label: names the trial and its study.
        resume: the next step for a trial that is open.
    """
    if theirs is None:
        yield Problem("end", f"{label}: it is not in Optuna's tables", _RESTORE_TRIAL)
        return
    if theirs.number != trial.number:
        what = f"{label}: its number in Optuna's tables is {theirs.number}"
        yield Problem("number", what, _RESTORE_TRIAL)
        return
    what = f"{label}: it is {trial.state}, and {theirs.state} in Optuna's tables"
    if trial.state in FINAL_STATES:
        if theirs.state not in ENDS[trial.state]:
            yield Problem("end", what, _RESTORE_TRIAL)
    elif theirs.state not in ("RUNNING", "WAITING") and _is_abandoned(trial):
        yield Problem("end", what, resume)


def _check_optuna_trials(tables: _Tables) -> Iterator[Problem]:
    """Find trials of our studies that only Optuna's tables have, and numbers that occur twice."""
    names = {study.optuna_study_id: study.name for study in tables.studies}
    ours = {trial.optuna_trial_id for trial in tables.trials}
    theirs = [trial for trial in tables.optuna_trials.values() if trial.study_id in names]
    numbers = Counter((trial.study_id, trial.number) for trial in theirs)
    for (study_id, number), times in sorted(numbers.items()):
        if times > 1:
            what = (
                f"study {names[study_id]}, trial {number}: "
                f"{times} trials in Optuna's tables have that number"
            )
            yield Problem("number", what, _RESTORE_TRIAL)
    for trial in theirs:
        if trial.trial_id not in ours and trial.state != "WAITING":
            yield Problem(
                "end",
                f"study {names[trial.study_id]}, trial {trial.number}: "
                f"it is in Optuna's tables only ({trial.state})",
                "search did not create it; the sampler learns from it all the same",
            )


def _check_epochs(tables: _Tables) -> Iterator[Problem]:
    for trial in tables.trials:
        row = tables.epochs.get(trial.id)
        if row is not None and (row.first != 1 or row.last != row.epochs):
            what = (
                f"study {tables.study_name(trial.study_id)}, trial {trial.number}: "
                f"{row.epochs} epochs from {row.first} to {row.last}, so some are missing"
            )
            yield Problem("epochs", what, _RESTORE_TRIAL)


def _find_orphans(connection: Connection) -> Iterator[Problem]:
    """Find rows without an owner. Foreign keys forbid them, but SQLite does not enforce those."""
    for table, key, owner in (
        (Trial, Trial.study_id, Study),
        (Epoch, Epoch.trial_id, Trial),
        (Signal, Signal.trial_id, Trial),
    ):
        owned = select(owner.id).where(owner.id == key).exists()
        orphans = select(func.count()).select_from(table).where(~owned)
        rows = connection.execute(orphans).scalar_one()
        if rows:
            what = f"{rows} rows of {table.__tablename__} belong to no row of {owner.__tablename__}"
            yield Problem("orphan", what, _RESTORE_STORE)


def _count_studies(tables: _Tables) -> Iterator[StudyCount]:
    states: dict[int, Counter[str]] = defaultdict(Counter)
    epochs: Counter[int] = Counter()
    for trial in tables.trials:
        states[trial.study_id][trial.state] += 1
        if trial.id in tables.epochs:
            epochs[trial.study_id] += tables.epochs[trial.id].epochs
    for study in tables.studies:
        yield StudyCount(study.name, dict(states[study.id]), epochs[study.id])


def _shorten_list(problems: Sequence[Problem]) -> Iterator[Problem]:
    """Return the first problems of each kind, and then how many more there are."""
    counts: Counter[str] = Counter()
    for problem in problems:
        counts[problem.kind] += 1
        if counts[problem.kind] <= MAX_SHOWN:
            yield problem
    for kind, count in counts.items():
        if count > MAX_SHOWN:
            yield Problem(
                kind,
                f"{count - MAX_SHOWN} more problems of this kind ({kind})",
                "fix the first ones, then check again",
            )
