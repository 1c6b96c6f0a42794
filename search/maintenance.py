"""Maintenance of stores: check, migrate, copy to another place, and free unused space."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spaces.errors import StoreError
from storage.database.database import Database
from storage.location import StoreLocation
from storage.maintenance.check import CheckReport, check_database
from storage.maintenance.copy import CopiedStudy, copy_studies
from storage.maintenance.database_upkeep import (
    back_up,
    database_kind,
    free_space,
    refuse_active,
    size_bytes,
)
from storage.maintenance.migrate import upgrade_store
from storage.maintenance.orphans import OrphanFile, find_orphans, remove_orphans
from storage.tables import schema_version
from storage.tables.optuna_names import optuna_version


@dataclass(frozen=True)
class Inspection:
    """The result of a check.

    Attributes:
        store: what was found in the database.
        files: folder of the store's files.
        orphans: files without an owner.
    """

    store: CheckReport
    files: Path
    orphans: tuple[OrphanFile, ...]

    @property
    def is_consistent(self) -> bool:
        """Whether no problem was found."""
        return not self.store.problems and not self.orphans

    def as_dict(self) -> dict[str, Any]:
        """Return a mapping of JSON values, under the keys that scripts rely on."""
        store = asdict(self.store)
        orphans = [
            {
                "path": str(file.path),
                "study": file.study,
                "trial": file.trial,
                "size_bytes": file.size_bytes,
            }
            for file in self.orphans
        ]
        return {
            "consistent": self.is_consistent,
            **store,
            "files": str(self.files),
            "orphans": orphans,
            # Their names in version 0.1.
            "sound": self.is_consistent,
            "faults": store["problems"],
            "leftovers": orphans,
        }


@dataclass(frozen=True)
class VacuumResult:
    """What a vacuum did.

    Attributes:
        before_bytes: size of the database before.
        after_bytes: size of the database after.
        orphans: files without an owner.
        removed: how many of them were removed.
        files_shared: whether other stores may keep files in the same folder.
    """

    before_bytes: int
    after_bytes: int
    orphans: tuple[OrphanFile, ...]
    removed: int
    files_shared: bool


def inspect_store(location: StoreLocation) -> Inspection:
    """Check the database of a store and its files.

    Raises:
        StoreError: when there is no store, or it cannot be read at all.
    """
    with closing(location.open_database()) as database:
        report = check_database(database)
    orphans: list[OrphanFile] = []
    if report.version == schema_version.HEAD:
        orphans = _find_orphans(location)
    return Inspection(report, location.files_root, tuple(orphans))


def migrate_store(
    location: StoreLocation, *, backup: bool = True, backed_up: bool = False
) -> list[str]:
    """Upgrade our tables and Optuna's in a store to the versions of this program.

    Args:
        backup: copy an SQLite file first.
        backed_up: the user states that there is a copy of a server's database.

    Returns:
        What was done, for the user; empty if the store was of these versions already.

    Raises:
        StoreError: when there is no store, or a newer one, workers own trials, or there is no copy.
    """
    with closing(location.open_database()) as database:
        with database.reading() as connection:
            found = schema_version.check_upgradable(connection, database.where)
            theirs = optuna_version(connection)
        head = _check_optuna_upgradable(location, theirs) if theirs else None
        if found == schema_version.HEAD and theirs == head:
            return []
        with database.reading() as connection:
            refuse_active(connection, database.where, "migrated")
        done = _back_up(location, database, found, backup=backup, backed_up=backed_up)
    if found != schema_version.HEAD:
        upgrade_store(location)
        done.append(f"our tables: version {found} → {schema_version.HEAD}")
    if theirs != head:
        _upgrade_optuna(location)
        done.append(f"Optuna's tables: version {theirs} → {head}")
    return done


def copy_store(
    source: StoreLocation,
    target: StoreLocation,
    names: Sequence[str] = (),
    *,
    running: bool = False,
) -> list[CopiedStudy]:
    """Copy studies to another store, which is created if there is none.

    Either all of them are copied, or none, and nothing is left behind.

    Raises:
        StoreError: as `copy_studies` does.
    """
    if source == target:
        raise StoreError(
            "a store cannot be copied into itself",
            where=source.safe_url,
            next_step="name another store with --to",
        )
    with source.open(create=False):
        pass  # it exists, in this version
    with target.open() as store:
        try:
            _create_optuna_tables(target)
            with closing(source.open_database()) as read, closing(target.open_database()) as write:
                return copy_studies(read, write, names, running=running)
        except BaseException:
            store.delete_if_created()
            raise


def vacuum_store(
    location: StoreLocation, *, dry_run: bool = False, shared_files: bool = False
) -> VacuumResult:
    """Free unused space, and remove the files of trials and studies that no longer exist.

    Args:
        dry_run: only report what would be removed.
        shared_files: remove files from a folder that other stores may use as well; their files
            cannot be distinguished from orphaned ones.

    Raises:
        StoreError: when there is no store, or workers own trials of one on SQLite.
    """
    orphans = _find_orphans(location)
    with closing(location.open_database()) as database:
        with database.reading() as connection:
            before = size_bytes(connection)
            # SQLite is locked for the whole time.
            if database_kind(database) == "sqlite" and not dry_run:
                refuse_active(connection, database.where, "vacuumed")
        if dry_run:
            return VacuumResult(before, before, tuple(orphans), 0, location.files_shared)
        free_space(database)
        with database.reading() as connection:
            after = size_bytes(connection)
    removed = 0
    if shared_files or not location.files_shared:
        # Once more: meanwhile, which may be minutes, a study of an old name may have been created.
        orphans = _find_orphans(location)
        removed = remove_orphans(orphans, location.files_root)
    return VacuumResult(before, after, tuple(orphans), removed, location.files_shared)


def _find_orphans(location: StoreLocation) -> list[OrphanFile]:
    with location.open(create=False) as store:
        return find_orphans(store, location.files_root)


def _back_up(
    location: StoreLocation, database: Database, version: str, *, backup: bool, backed_up: bool
) -> list[str]:
    """Copy an SQLite file, or check that the user copied a server's database."""
    file = location.sqlite_file
    if file is not None and backup:
        copy = file.with_name(f"{file.name}.backup-{version}")
        back_up(database, copy)
        return [f"copied to {copy}"]
    if file is None and not backed_up:
        raise StoreError(
            "a server's database has to be dumped with its own tool before its tables are changed",
            where=location.safe_url,
            next_step=f"{location.dump_command()}, then search store migrate --backed-up",
        )
    return []


def _check_optuna_upgradable(location: StoreLocation, found: str) -> str:
    """Check that the installed Optuna knows the version of its tables; return its own version."""
    from search.sampling.connection import close_trials, open_any_version

    storage = open_any_version(location)
    try:
        head = storage.get_head_version()
        if found in storage.get_all_versions():
            return head
        raise StoreError(
            "Optuna's tables were created by a newer Optuna",
            where=location.safe_url,
            found=f"version {found}",
            allowed=head,
            next_step="install that newer Optuna, or choose another store",
        )
    finally:
        close_trials(storage)


def _upgrade_optuna(location: StoreLocation) -> None:
    from search.sampling.connection import close_trials, open_any_version

    storage = open_any_version(location)
    try:
        storage.upgrade()
    finally:
        close_trials(storage)


def _create_optuna_tables(location: StoreLocation) -> None:
    from search.sampling.connection import close_trials, open_trials

    close_trials(open_trials(location))
