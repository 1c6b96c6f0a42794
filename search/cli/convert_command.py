"""`search convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from search.cli.app import app


@app.command(
    epilog=(
        "Example: search convert run1.csv run2.csv --column loss=train/loss "
        "--column metric=val/miou --out curves.jsonl"
    )
)
def convert(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="one table per run: CSV, JSON Lines, or a JSON array as exported by W&B"
        ),
    ],
    column: Annotated[
        Optional[list[str]],
        typer.Option(help="key=column, such as loss=train/loss or 'class_metric=val/iou_*'"),
    ] = None,
    direction: Annotated[
        Literal["maximize", "minimize"], typer.Option(help="direction of the metric")
    ] = "maximize",
    whole: Annotated[
        bool,
        typer.Option("--whole", help="treat short runs as complete instead of truncated"),
    ] = False,
    out: Annotated[Path, typer.Option(help="file to write; .gz compresses")] = Path("curves.jsonl"),
) -> None:
    """Convert curves of other programs for `search backtest`."""
    from search.cli.parsing import parse_columns
    from search.console import terminal
    from search.replay.convert import convert_tables
    from spaces.recordings import check_out, write_recording

    check_out(out, files)
    recording = convert_tables(files, parse_columns(column or []), direction, whole=whole)
    write_recording(out, recording)
    epochs = sum(len(trial.epochs) for trial in recording.trials)
    terminal.print_line(f"{len(recording.trials)} trials, {epochs} epochs written to {out}")
