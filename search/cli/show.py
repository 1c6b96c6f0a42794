"""`search show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from search.cli.app import JsonOption, StoreOption, app

if TYPE_CHECKING:
    from storage.rows import Reaped
    from storage.store import Store


@app.command(
    epilog="Examples: search show · search show --study focal_gamma --json | jq .leaderboard"
)
def show(
    study: Annotated[
        Optional[str],
        typer.Option("--study", "-s", help="name of a study in the store; default: all studies"),
    ] = None,
    store: StoreOption = None,
    reap: Annotated[
        bool,
        typer.Option(
            "--reap",
            help="first release the trials of workers that stopped responding",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a study's states, workers, leaderboard and stopped trials.

    The study may be running or finished.
    """
    from search.cli.parsing import store_location
    from search.console import tables, terminal
    from search.report.confirmation import list_main_studies
    from search.report.study_report import study_report

    location = store_location(store)
    with location.open(create=False) as opened:
        names = [study] if study else list_main_studies(opened)
        reaped = _reap_trials(opened, names) if reap else []
        reports = [study_report(opened, name, location.files()) for name in names]
    if as_json:
        shown = [report.as_dict() for report in reports]
        terminal.print_json(shown[0] if study else shown)
        return
    for line in reaped:
        terminal.print_line(line)
    for report in reports:
        tables.print_study(report)
    if not reports:
        terminal.print_line(
            "the store has no study yet; start one with: search run --study focal_gamma"
        )


def _reap_trials(store: Store, names: list[str]) -> list[str]:
    """Release the trials of silent workers.

    Returns:
        A line for each released trial.
    """
    from search.stored_study import find_study

    lines = []
    for name in names:
        for trial in store.reaping.reap_trials(find_study(store, name).id):
            lines.append(f"{name}: {_describe_release(trial)}")
    return lines


def _describe_release(trial: Reaped) -> str:
    name = "trial without a number" if trial.number is None else f"trial {trial.number}"
    stopped = f"worker {trial.worker} stopped responding"
    if trial.ended:
        return f"{name} failed: {stopped}, the last of {trial.lost} lost workers"
    return f"{name} released: {stopped}"
