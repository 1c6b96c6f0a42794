"""The commands that look at a store: `list`, `show`, `explain`, `dashboard`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from search.cli.app import JsonOption, StoreOption, StudyOption, app, store_option


@app.command("list", epilog="Examples: search list · search list --json | jq '.[].name'")
def list_studies(as_json: JsonOption = False) -> None:
    """The shipped studies and what they search."""
    from search.console import tables
    from spaces.loader import load_study, shipped_studies

    studies = [load_study(name) for name in shipped_studies()]
    if as_json:
        _say_json([study.model_dump(mode="json") for study in studies])
        return
    tables.print_studies(studies)


@app.command(
    epilog="Examples: search show · search show --study focal_gamma --json | jq .leaderboard"
)
def show(
    study: Annotated[
        Optional[str],
        typer.Option("--study", "-s", help="a study in the store; left out: all of them"),
    ] = None,
    store: StoreOption = None,
    reap: Annotated[
        bool,
        typer.Option(
            "--reap",
            help="first give trials back whose workers fell silent, so that another worker takes them up",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """States, who works on what, leaderboard and kills of a running or finished study."""

    from search.cli.parsing import store_location
    from search.console import tables, terminal
    from search.report.study import study_report
    from search.stored_study import find_study

    location = store_location(store)
    with location.open(create=False) as held:
        names = [study] if study else [stored.name for stored in held.studies.list_studies()]
        reaped = [
            (name, each)
            for name in names
            if reap
            for each in held.reaping.reap_trials(find_study(held, name).id)
        ]
        reports = [study_report(held, name, location.files()) for name in names]
    if as_json:
        told = [report.as_dict() for report in reports]
        _say_json(told[0] if study else told)
        return
    for name, each in reaped:
        trial = "a trial" if each.number is None else f"trial {each.number}"
        end = (
            f"is failed, as the last of {each.lost} workers that it cost"
            if each.ended
            else "waits for another worker"
        )
        terminal.say(f"{name}: {trial} of {each.worker}, who fell silent, {end}")
    for report in reports:
        tables.print_study(report)
    if not reports:
        terminal.say("the store holds no study yet; start one with: search run --study focal_gamma")


@app.command(
    epilog="Examples: search explain --study focal_gamma --trial 7 · search explain --study focal_gamma --trial 7 --json | jq .findings"
)
def explain(
    study: StudyOption,
    trial: Annotated[int, typer.Option("--trial", "-t", help="its number")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """One trial: its configuration, its curves, and why it died, with the numbers."""
    from search.cli.parsing import store_location
    from search.console import curves
    from search.report.trial import trial_report

    location = store_location(store)
    with location.open(create=False) as held:
        report = trial_report(held, study, trial)
    if as_json:
        _say_json(report.as_dict())
        return
    curves.print_trial(report, store_option(location))


@app.command(epilog="Example: search dashboard --study focal_gamma --port 8080")
def dashboard(
    study: Annotated[
        Optional[str], typer.Option("--study", "-s", help="open at this study")
    ] = None,
    port: Annotated[int, typer.Option(help="on 127.0.0.1 only", min=1, max=65535)] = 8080,
    store: StoreOption = None,
) -> None:
    """optuna-dashboard on the store, reachable from this machine alone."""
    from search.cli.parsing import store_location
    from search.dashboard import serve_dashboard

    serve_dashboard(store_location(store), study, port)


def _say_json(told: object) -> None:
    """For another program; docs/scripts.md has the keys."""
    import json

    from search.console import terminal

    terminal.say_raw(json.dumps(told, indent=2, allow_nan=False))
