"""The commands that look after a store: `store check`, `store migrate`, `store copy`, `store vacuum`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from search.cli.app import StoreOption, app

if TYPE_CHECKING:
    from search.maintenance import Inspection

MIB = 2**20

store_app = typer.Typer(
    no_args_is_help=True,
    help="Look after a store: check it, migrate an older one, copy studies, tidy up.",
    epilog="Example: search store check",
)
app.add_typer(store_app, name="store")


@store_app.command(
    epilog="Examples: search store check · search store check --store postgresql://user@host/db --json | jq .faults"
)
def check(
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """Versions, sizes and counts, and whatever is wrong, each finding with what to do.

    Exit code 1 when something is wrong.
    """
    import json

    from search.cli.parsing import store_location
    from search.console import terminal
    from search.maintenance import inspect_store

    found = inspect_store(store_location(store))
    if as_json:
        terminal.say_raw(json.dumps(found.as_dict(), indent=2, allow_nan=False))
    else:
        _tell(found)
    if not found.sound:
        raise typer.Exit(1)


def _tell(found: Inspection) -> None:
    from search.console import terminal

    store = found.store
    terminal.say(
        f"{store.where}: version {store.version}, Optuna's tables {store.optuna_version or 'none'}, {store.size_bytes / MIB:.1f} MiB; files in {found.files}"
    )
    for study in store.studies:
        states = (
            ", ".join(f"{count} {state}" for state, count in sorted(study.trials.items()))
            or "no trials"
        )
        terminal.say(f"  study {study.name}: {states}; {study.epochs} epochs")
    for fault in store.faults:
        terminal.say(f"wrong: {fault.what}; {fault.next_step}")
    for file in found.leftovers:
        terminal.say(
            f"wrong: {file.path} belongs to no trial or study of the store; search store vacuum"
        )
    if found.sound:
        terminal.say("nothing is wrong")


@store_app.command(
    epilog="Examples: search store migrate · search store migrate --store postgresql://user@host/db --backed-up"
)
def migrate(
    store: StoreOption = None,
    no_backup: Annotated[
        bool,
        typer.Option(
            "--no-backup", help="do not copy an SQLite file first, to search.db.backup-VERSION"
        ),
    ] = False,
    backed_up: Annotated[
        bool, typer.Option("--backed-up", help="a server's database was copied by you")
    ] = False,
) -> None:
    """Bring a store of an older version of this program to the version of this one, after a copy; no worker may hold a trial."""
    from search.cli.parsing import store_location
    from search.console import terminal
    from search.maintenance import migrate as bring

    done = bring(store_location(store), backup=not no_backup, backed_up=backed_up)
    for line in done or ["the store is of this program's version; there is nothing to do"]:
        terminal.say(line)


@store_app.command(
    epilog="Example: search store copy --to postgresql://user@host/db --study focal_gamma"
)
def copy(
    to: Annotated[
        str,
        typer.Option(
            "--to", help="database URL of the other store, which is made when there is none"
        ),
    ],
    study: Annotated[
        Optional[list[str]],
        typer.Option("--study", "-s", help="a study by name, several times; left out: all"),
    ] = None,
    store: StoreOption = None,
    running: Annotated[
        bool,
        typer.Option(
            "--running", help="although workers hold trials: those are paused in the copy"
        ),
    ] = False,
) -> None:
    """Copy studies into another store of any kind: all of them, or none. The store stays as it is, and so do its files."""
    from search.cli.parsing import store_location
    from search.console import terminal
    from search.maintenance import copy as carry

    for made in carry(store_location(store), store_location(to), study or [], running=running):
        held = f", {made.held} of them paused" if made.held else ""
        terminal.say(f"study {made.name}: {made.trials} trials{held}, {made.epochs} epochs")


@store_app.command(epilog="Example: search store vacuum --dry-run")
def vacuum(
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
    """Give unused room of the database back, and remove checkpoints and logs of trials and studies that are gone."""
    from search.cli.parsing import store_location
    from search.console import terminal
    from search.maintenance import vacuum as tidy

    done = tidy(store_location(store), dry_run=dry_run, shared_files=shared_files)
    for file in done.leftovers:
        terminal.say(f"{file.path}  {file.size_bytes / MIB:.1f} MiB")
    if dry_run:
        terminal.say(f"{len(done.leftovers)} files without an owner; nothing was removed")
        return
    terminal.say(
        f"database: {done.before_bytes / MIB:.1f} → {done.after_bytes / MIB:.1f} MiB; {done.removed} files without an owner removed"
    )
    if done.removed < len(done.leftovers) and done.shared:
        terminal.say(
            "other stores may keep files in that folder, so none was removed; if none does: search store vacuum --shared-files"
        )
