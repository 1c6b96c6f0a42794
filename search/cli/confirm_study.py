"""What `search confirm` does: choose the trials, run the rounds of the race, print the result."""

from __future__ import annotations

import sys
import time

import typer

from search.cli.app import Wandb, format_store_option
from search.cli.parsing import parse_device_hours, parse_duration, store_location
from search.cli.run_study import RunEnd, run_workers
from search.confirm import ConfirmationRun, count_stuck, open_confirmation
from search.console import terminal
from search.console.confirmed_tables import print_confirmation
from search.launch.launcher_choice import Placement, PoolFactory, resolve_placement
from search.planning.racing import Race
from search.report.confirmation import read_confirmation
from search.report.search_models import Confirmation
from search.worker.options import WorkerOptions
from spaces.exit_codes import ExitCode


def confirm_study(
    study: str,
    top: int,
    seeds: int,
    place: Placement,
    store: str | None,
    *,
    timeout: str | None,
    device_hours: float | None,
    wandb: Wandb,
    as_json: bool,
) -> bool:
    """Train the likely best trials of a study again over seeds, and print what that showed.

    Args:
        study: `--study`.
        top: `--top`.
        seeds: `--seeds`.
        place: where its workers run.
        store: `--store`.
        timeout: `--timeout`.
        device_hours: `--device-hours`.
        wandb: `--wandb`.
        as_json: `--json`.

    Returns:
        Whether it was interrupted.
    """
    location = store_location(store)
    timeout_s, device_s = parse_duration(timeout), parse_device_hours(device_hours)
    make_pool, warnings = resolve_placement(place, location, sys.argv)
    run = open_confirmation(location, study, top, seeds)
    with run.session as session:
        if device_s is not None:
            session.store.budget.set_device_budget(session.stored.id, device_s)
        for warning in (*run.notes, *warnings):
            terminal.print_warning(warning)
        options = WorkerOptions(session.stored.name, wandb=wandb)
        race, run_end = _run_rounds(run, make_pool, options, timeout_s, quiet=as_json)
        return _print_result(run, race, run_end, as_json=as_json)


def _run_rounds(
    run: ConfirmationRun,
    make_pool: PoolFactory,
    options: WorkerOptions,
    timeout_s: float | None,
    *,
    quiet: bool,
) -> tuple[Race, RunEnd]:
    """Run the workers round by round, until the race is over or a round was not finished.

    Returns:
        The race, and what ended the last round.
    """
    began = time.monotonic()
    race = run.read_race()
    while race.missing:
        left_s = None if timeout_s is None else timeout_s - (time.monotonic() - began)
        if left_s is not None and left_s <= 0:
            return race, "expired"
        run.enqueue_round(race)
        run_end = run_workers(run.session, make_pool, options, left_s, quiet=quiet)
        before, race = race, run.read_race()
        if run_end != "done" or count_stuck(before, race):
            return race, run_end
    return race, "done"


def _print_result(run: ConfirmationRun, race: Race, run_end: RunEnd, *, as_json: bool) -> bool:
    """Print what the trainings have shown so far, and what to run next.

    Returns:
        Whether the confirmation was interrupted.
    """
    session, name = run.session, run.stored.name
    found = read_confirmation(session.store, run.stored)
    if found is None:  # the time was over before any training was enqueued
        found = Confirmation(session.stored.name, session.plan.spec.metric.name, ())
    if as_json:
        terminal.print_json(found.as_dict())
    else:
        print_confirmation(found)
        where = format_store_option(session.location)
        if race.missing:
            terminal.print_line(f"\n{_describe_stop(run, run_end)}")
        else:
            terminal.print_line(f"\nthe race is over: {race.end}; next:")
            command = f"search export --study {name}{where}"
            terminal.print_line(f"  {command:<60}  # the confirmed winner")
    if race.missing and found.failed:
        terminal.print_warning(
            f"{found.failed} of the trainings failed: `search show --study {found.study}` says "
            "why, and the same command trains them again"
        )
        raise typer.Exit(ExitCode.FAILED)
    return run_end == "interrupted"


def _describe_stop(run: ConfirmationRun, run_end: RunEnd) -> str:
    """Say why a confirmation is not finished, and how to continue it."""
    if run_end == "interrupted":
        return "interrupted; run the same command again to continue"
    if run.session.store.budget.is_spent(run.session.stored.id):
        return "device-hour budget exhausted; raise --device-hours to continue"
    if run_end == "expired":
        return "time limit reached; run the same command again to continue"
    return "the workers ended before all trainings were done; run the same command again"
