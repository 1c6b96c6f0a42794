"""`search export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from search.cli.app import StoreOption, StudyOption, app


@app.command(
    epilog=(
        "Examples: search export --study focal_gamma · "
        "search export --study focal_gamma --trial 12 --out twelve.yaml"
    )
)
def export(
    study: StudyOption,
    trial: Annotated[
        Optional[int],
        typer.Option(
            "--trial",
            "-t",
            help="number of the trial; default: the confirmed winner, else the best complete one",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="file to write")] = Path("best.yaml"),
    store: StoreOption = None,
) -> None:
    """Write a trial's configuration and scores to a YAML file."""
    from search.cli.parsing import store_location
    from search.console import terminal
    from search.export import check_out, write_export
    from search.report.confirmed_export import export_trial
    from search.stored_study import find_study

    check_out(out)
    location = store_location(store)
    with location.open(create=False) as opened:
        stored = find_study(opened, study)
        made = export_trial(opened, stored, trial, location.files())
    write_export(made, out)
    score = f"{made.score.metric} {made.score.validation:.4f} on validation"
    terminal.print_line(f"trial {made.provenance.trial} of {study}: {score}; written to {out}")
    if made.confirmed is not None:
        terminal.print_paragraph(made.confirmed.describe(made.score.metric))
    if made.provenance.weights is not None:
        terminal.print_line(f"its trained weights: {made.provenance.weights}")
