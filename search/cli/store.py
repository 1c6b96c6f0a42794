"""Commands that maintain a store: `store check`, `store migrate`, `store copy`, `store vacuum`."""

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
    help="Maintain a store: check it, migrate an older one, copy studies, free unused space.",
    epilog="Example: search store check",
)
app.add_typer(store_app, name="store")


@store_app.command(
    "check",
    epilog=(
        "Examples: search store check · "
        "search store check --store postgresql://user@host/db --json | jq .faults"
    ),
)
def check_store(
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """Report versions, sizes, counts, and every problem with what to do about it.

    Exit code 1 when there is a problem.
    """
    import json

    from search.cli.parsing import store_location
    from search.console import terminal
    from search.maintenance import inspect_store

    found = inspect_store(store_location(store))
    if as_json:
        terminal.say_raw(json.dumps(found.as_dict(), indent=2, allow_nan=False))
    else:
        _print_inspection(found)
    if not found.is_consistent:
        raise typer.Exit(ExitCode.FAILED)


@store_app.command(
    "migrate",
    epilog=(
        "Examples: search store migrate · "
        "search store migrate --store postgresql://user@host/db --backed-up"
    ),
)
def migrate_store(
    store: StoreOption = None,
    no_backup: Annotated[
        bool,
        typer.Option(
            "--no-backup", help="do not copy an SQLite file first, to search.db.backup-VERSION"
        ),
    ] = False,
    backed_up: Annotated[
        bool, typer.Option("--backed-up", help="you have dumped a server's database")
    ] = False,
) -> None:
    """Upgrade a store of an older version of this program, after a copy was made.

    No worker may own a trial of it.
    """
    from search import maintenance
    from search.cli.parsing import store_location
    from search.console import terminal

    done = maintenance.migrate_store(
        store_location(store), backup=not no_backup, backed_up=backed_up
    )
    for line in done or ["the store is of this program's version; there is nothing to do"]:
        terminal.say(line)


@store_app.command(
    "copy",
    epilog="Example: search store copy --to postgresql://user@host/db --study focal_gamma",
)
def copy_store(
    to: Annotated[
        str,
        typer.Option("--to", help="database URL of the other store, created if there is none"),
    ],
    study: Annotated[
        Optional[list[str]],
        typer.Option("--study", "-s", help="name of a study, may be repeated; default: all"),
    ] = None,
    store: StoreOption = None,
    running: Annotated[
        bool,
        typer.Option(
            "--running", help="copy even while trials are running (they are paused in the copy)"
        ),
    ] = False,
) -> None:
    """Copy studies to another store of any kind: all of them, or none.

    The store does not change. Files are not copied.
    """
    from search import maintenance
    from search.cli.parsing import store_location
    from search.console import terminal

    source = store_location(store)
    target = store_location(to)
    for copied in maintenance.copy_store(source, target, study or [], running=running):
        paused = f", {copied.paused} of them paused" if copied.paused else ""
        trials = f"{copied.trials} trials{paused}"
        terminal.say(f"study {copied.name}: {trials}, {copied.epochs} epochs")


@store_app.command("vacuum", epilog="Example: search store vacuum --dry-run")
def vacuum_store(
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only list the files that would be removed")
    ] = False,
    shared_files: Annotated[
        bool,
        typer.Option(
            "--shared-files", help="remove files from a folder that other stores may use, too"
        ),
    ] = False,
) -> None:
    """Free unused space, and remove the files of trials and studies that no longer exist."""
    from search import maintenance
    from search.cli.parsing import store_location
    from search.console import terminal

    done = maintenance.vacuum_store(
        store_location(store), dry_run=dry_run, shared_files=shared_files
    )
    for file in done.orphans:
        terminal.say(f"{file.path}  {file.size_bytes / MIB:.1f} MiB")
    if dry_run:
        terminal.say(f"{len(done.orphans)} files without an owner; none was removed")
        return
    sizes = f"{done.before_bytes / MIB:.1f} → {done.after_bytes / MIB:.1f} MiB"
    terminal.say(f"database: {sizes}; {done.removed} files without an owner removed")
    if done.removed < len(done.orphans) and done.files_shared:
        terminal.say(
            "other stores may keep files in that folder, so none was removed; "
            "if no other store does: search store vacuum --shared-files"
        )


def _print_inspection(found: Inspection) -> None:
    from search.console import terminal

    store = found.store
    versions = f"version {store.version}, Optuna's tables {store.optuna_version or 'none'}"
    size = f"{store.size_bytes / MIB:.1f} MiB"
    terminal.say(f"{store.where}: {versions}, {size}; files in {found.files}")
    for study in store.studies:
        states = [f"{count} {state}" for state, count in sorted(study.trials.items())]
        trials = ", ".join(states) or "no trials"
        terminal.say(f"  study {study.name}: {trials}; {study.epochs} epochs")
    for problem in store.problems:
        terminal.say(f"problem: {problem.what}; {problem.next_step}")
    for file in found.orphans:
        owner = "belongs to no trial or study of the store"
        terminal.say(f"problem: {file.path} {owner}; search store vacuum")
    if found.is_consistent:
        terminal.say("no problems found")
