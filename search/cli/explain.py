"""`search explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.app import JsonOption, StoreOption, StudyOption, app, format_store_option


@app.command(
    epilog=(
        "Examples: search explain --study focal_gamma --trial 7 · "
        "search explain --study focal_gamma --trial 7 --json | jq .findings"
    )
)
def explain(
    study: StudyOption,
    trial: Annotated[int, typer.Option("--trial", "-t", help="number of the trial")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain one trial: configuration, curves, why it was stopped."""
    from search.cli.parsing import store_location
    from search.console import curves, terminal
    from search.report.trial_report import trial_report

    location = store_location(store)
    with location.open(create=False) as opened:
        report = trial_report(opened, study, trial)
    if as_json:
        terminal.print_json(report.as_dict())
        return
    curves.print_trial(report, format_store_option(location))
