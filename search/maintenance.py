"""Stores looked after: checked, brought to this program's version, copied to another place, and tidied up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spaces.errors import StoreError
from storage.database.engine import Database
from storage.location import StoreLocation
from storage.maintenance.check import Checkup, check_database
from storage.maintenance.copy import Copied, copy_studies
from storage.maintenance.migrate import upgrade_store
from storage.maintenance.orphans import Leftover, leftovers, remove_leftovers
from storage.maintenance.vacuum import back_up, kind, refuse_held, size_bytes, tidy
from storage.tables import schema
from storage.tables.optuna_version import optuna_version


@dataclass(frozen=True)
class Inspection:
    """A store and its files, looked at."""

    store: Checkup
    files: Path
    leftovers: tuple[Leftover, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.store.faults and not self.leftovers

    def as_dict(self) -> dict[str, Any]:
        """A mapping of JSON values."""
        left = [
            {
                "path": str(file.path),
                "study": file.study,
                "trial": file.trial,
                "size_bytes": file.size_bytes,
            }
            for file in self.leftovers
        ]
        return {
            "sound": self.sound,
            **asdict(self.store),
            "files": str(self.files),
            "leftovers": left,
        }


def inspect_store(location: StoreLocation) -> Inspection:
    """Look at all of a store, and at its files.

    Raises:
        StoreError: when there is no store, or it cannot be read at all.
    """
    with closing(location.open_database()) as database:
        found = check_database(database)
    root = location.files_root
    if found.version != schema.HEAD:
        return Inspection(found, root, ())
    with location.open(create=False) as store:
        return Inspection(found, root, tuple(leftovers(store, root)))


def migrate(location: StoreLocation, *, backup: bool = True, backed_up: bool = False) -> list[str]:
    """Bring a store of an older program, and Optuna's tables in it, to the versions of this one; what was done, in words.

    Args:
        backup: copy an SQLite file first.
        backed_up: the user says that there is a copy of a server's database.

    Raises:
        StoreError: when there is no store, or a newer one, workers hold trials, or there is no copy.
    """
    with closing(location.open_database()) as database:
        with database.reading() as connection:
            found = schema.check_upgradable(connection, database.where)
            theirs = optuna_version(connection)
        head = _optuna_head(location, theirs, database.where) if theirs else None
        if found == schema.HEAD and theirs == head:
            return []
        with database.reading() as connection:
            refuse_held(connection, database.where, "migrated")
        done = _copy_first(location, database, found, backup=backup, backed_up=backed_up)
    if found != schema.HEAD:
        upgrade_store(location)
        done.append(f"our tables: version {found} → {schema.HEAD}")
    if theirs != head:
        _upgrade_optuna(location)
        done.append(f"Optuna's tables: version {theirs} → {head}")
    return done


def _copy_first(
    location: StoreLocation, database: Database, version: str, *, backup: bool, backed_up: bool
) -> list[str]:
    file = location.sqlite_file
    if file is not None and backup:
        copy = file.with_name(f"{file.name}.backup-{version}")
        back_up(database, copy)
        return [f"copied to {copy}"]
    if file is None and not backed_up:
        raise StoreError(
            "the database of a server is copied by its own means before its tables are changed",
            where=database.where,
            next_step=f"{location.dump_command()}, then search store migrate --backed-up",
        )
    return []


def _optuna_head(location: StoreLocation, found: str, where: str) -> str:
    from search.sampling.connection import close_trials, open_any_version

    storage = open_any_version(location)
    try:
        if found not in storage.get_all_versions():
            raise StoreError(
                "Optuna's tables were made by a newer Optuna",
                where=where,
                found=f"version {found}",
                allowed=storage.get_head_version(),
                next_step="install that newer Optuna, or choose another store",
            )
        return storage.get_head_version()
    finally:
        close_trials(storage)


def _upgrade_optuna(location: StoreLocation) -> None:
    from search.sampling.connection import close_trials, open_any_version

    storage = open_any_version(location)
    try:
        storage.upgrade()
    finally:
        close_trials(storage)


def copy(
    location: StoreLocation, to: StoreLocation, names: Sequence[str] = (), *, running: bool = False
) -> list[Copied]:
    """Copy studies into another store, which is made when there is none; all of them, or none and nothing is left behind.

    Raises:
        StoreError: as `copy_studies` does.
    """
    if location == to:
        raise StoreError(
            "a store cannot be copied into itself",
            where=location.safe_url,
            next_step="name another store with --to",
        )
    with location.open(create=False):
        pass  # it is there, and of this version
    with to.open() as target:
        try:
            _make_optuna_tables(to)
            with closing(location.open_database()) as read, closing(to.open_database()) as write:
                copied = copy_studies(read, write, names, running=running)
        except BaseException:
            target.unmake()
            raise
    return copied


def _make_optuna_tables(location: StoreLocation) -> None:
    from search.sampling.connection import close_trials, open_trials

    close_trials(open_trials(location))


@dataclass(frozen=True)
class Tidied:
    """What tidying up came to: the size of the database before and after, and the files that had no owner."""

    before_bytes: int
    after_bytes: int
    leftovers: tuple[Leftover, ...]
    removed: int
    shared: bool


def vacuum(location: StoreLocation, *, dry_run: bool = False, shared_files: bool = False) -> Tidied:
    """Give room back, and remove the files of trials and studies that are gone.

    Args:
        dry_run: only tell what would be removed.
        shared_files: remove files from a folder that other stores may use as well, whose files cannot be told from leftovers.

    Raises:
        StoreError: when there is no store, or workers hold trials of one on SQLite.
    """
    root = location.files_root
    with location.open(create=False) as store:
        found = leftovers(store, root)
    with closing(location.open_database()) as database:
        with database.reading() as connection:
            before = size_bytes(connection)
            if kind(database) == "sqlite" and not dry_run:  # it is locked for as long as it takes
                refuse_held(connection, database.where, "vacuumed")
        shared = location.files_shared
        if dry_run:
            return Tidied(before, before, tuple(found), 0, shared)
        tidy(database)
        with database.reading() as connection:
            after = size_bytes(connection)
    if shared_files or not shared:
        with location.open(create=False) as store:
            found = leftovers(
                store, root
            )  # once more: tidying may have taken minutes, in which a study was made under an old name
        removed = remove_leftovers(found, root)
    else:
        removed = 0
    return Tidied(before, after, tuple(found), removed, shared)
