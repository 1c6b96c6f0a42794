"""`search store check`, `migrate`, `copy` and `vacuum`: maintenance of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from search.cli.app import StoreOption, app
from spaces.exit_codes import ExitCode

if TYPE_CHECKING:
    from search.maintenance import Inspection

MIB = 2**20

store_app = typer.Typer(
    no_args_is_help=True,
    help="Check, migrate, copy and clean up stores.",
    epilog="Example: search store check",
)
app.add_typer(store_app, name="store")


@store_app.command(
    epilog=(
        "Examples: search store check · "
        "search store check --store postgresql://user@host/db --json | jq .problems"
    )
)
def check(
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for scripts")] = False,
) -> None:
    """Check a store and list its problems.

    Prints versions, sizes and counts, then each problem with its fix.

    Exit code 1: there are problems.
    """
    from search.cli.parsing import store_location
    from search.console import terminal
    from search.maintenance import inspect_store

    found = inspect_store(store_location(store))
    if as_json:
        terminal.print_json(found.as_dict())
    else:
        print_inspection(found)
    if not found.is_consistent:
        raise typer.Exit(ExitCode.FAILED)


def print_inspection(found: Inspection) -> None:
    """Print the versions, size, studies and problems of a store."""
    from search.console import terminal

    store = found.store
    versions = f"version {store.version}, Optuna's tables {store.optuna_version or 'none'}"
    terminal.print_line(
        f"{store.where}: {versions}, {store.size_bytes / MIB:.1f} MiB; files in {found.files}"
    )
    for study in store.studies:
        counts = [f"{count} {state}" for state, count in sorted(study.trials.items())]
        states = ", ".join(counts) or "no trials"
        terminal.print_line(f"  study {study.name}: {states}; {study.epochs} epochs")
    for fault in store.problems:
        terminal.print_line(f"problem: {fault.what}; {fault.next_step}")
    for file in found.orphans:
        terminal.print_line(
            f"problem: {file.path} belongs to no trial or study of the store; "
            "remove it with: search store vacuum"
        )
    if found.is_consistent:
        terminal.print_line("no problems found")


@store_app.command(
    epilog=(
        "Examples: search store migrate · "
        "search store migrate --store postgresql://user@host/db --backed-up"
    )
)
def migrate(
    store: StoreOption = None,
    no_backup: Annotated[
        bool,
        typer.Option(
            "--no-backup", help="do not first copy an SQLite file to search.db.backup-VERSION"
        ),
    ] = False,
    backed_up: Annotated[
        bool,
        typer.Option("--backed-up", help="confirm that you have a backup of the server's database"),
    ] = False,
) -> None:
    """Migrate an older store to this version, after a backup.

    No trial may be running.
    """
    from search.cli.parsing import store_location
    from search.console import terminal
    from search.maintenance import migrate_store

    done = migrate_store(store_location(store), backup=not no_backup, backed_up=backed_up)
    for line in done or ["the store already has this version; nothing to do"]:
        terminal.print_line(line)


@store_app.command(
    epilog="Example: search store copy --to postgresql://user@host/db --study focal_gamma"
)
def copy(
    to: Annotated[
        str,
        typer.Option("--to", help="database URL of the other store; created if it does not exist"),
    ],
    study: Annotated[
        Optional[list[str]],
        typer.Option("--study", "-s", help="name of a study; may be repeated; default: all"),
    ] = None,
    store: StoreOption = None,
    running: Annotated[
        bool,
        typer.Option(
            "--running",
            help="copy even while trials are running (they are paused in the copy)",
        ),
    ] = False,
) -> None:
    """Copy studies into another store.

    Either all of them are copied or none. The original store and its files do not change.
    """
    from search.cli.parsing import store_location
    from search.console import terminal
    from search.maintenance import copy_store

    for made in copy_store(store_location(store), store_location(to), study or [], running=running):
        paused = f", {made.paused} of them paused" if made.paused else ""
        terminal.print_line(
            f"study {made.name}: {made.trials} trials{paused}, {made.epochs} epochs"
        )


@store_app.command(epilog="Example: search store vacuum --dry-run")
def vacuum(
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list the files to remove, and remove nothing")
    ] = False,
    shared_files: Annotated[
        bool,
        typer.Option(
            "--shared-files", help="also remove files from a folder that other stores may use"
        ),
    ] = False,
) -> None:
    """Return unused space and remove orphaned files."""
    from search.cli.parsing import store_location
    from search.console import terminal
    from search.maintenance import vacuum_store

    done = vacuum_store(store_location(store), dry_run=dry_run, shared_files=shared_files)
    for file in done.orphans:
        terminal.print_line(f"{file.path}  {file.size_bytes / MIB:.1f} MiB")
    if dry_run:
        terminal.print_line(f"{len(done.orphans)} orphaned files; nothing was removed")
        return
    sizes = f"{done.before_bytes / MIB:.1f} → {done.after_bytes / MIB:.1f} MiB"
    terminal.print_line(f"database: {sizes}; {done.removed} orphaned files removed")
    if done.removed < len(done.orphans) and done.files_shared:
        terminal.print_line(
            "no file was removed, because other stores may use that folder; "
            "if none does: search store vacuum --shared-files"
        )
