"""The commands that replay recorded trials: `backtest` and `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from search.cli.app import StoreOption, app, existing_store


@app.command(
    epilog="Examples: search backtest --study focal_gamma --pruner median · search backtest --records curves.jsonl --tune"
)
def backtest(
    study: Annotated[
        Optional[str], typer.Option("--study", "-s", help="a study in the store, by name")
    ] = None,
    records: Annotated[
        Optional[Path],
        typer.Option(help="recorded trials as JSON Lines instead (docs/backtest.md)"),
    ] = None,
    signals: Annotated[
        Optional[list[str]],
        typer.Option(help="name.threshold=value, such as class_collapse.epochs=8"),
    ] = None,
    pruner: Annotated[
        Optional[list[str]], typer.Option(help="median, hyperband or none; or setting=value")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="propose thresholds that save most and spare the best")
    ] = False,
    direction: Annotated[
        Optional[Literal["maximize", "minimize"]],
        typer.Option(help="of a file's metric, where it does not say"),
    ] = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """Replay recorded trials: whom would each signal and the pruner have killed, what would that have saved, and at what price?"""
    import json

    from search.cli.parsing import pruner_config, thresholds
    from search.console import backtest as console
    from search.console import terminal
    from search.replay.backtest import run_backtest
    from search.replay.ranking import rank_recording
    from search.replay.source import load_source
    from search.replay.tune import tune_thresholds

    source = load_source(study, records, direction, lambda: existing_store(store))
    judged = thresholds(signals or [], source.signals)
    peers = pruner_config(pruner or [], source.pruner)
    recorded = rank_recording(source.recording, records)
    result = run_backtest(recorded, judged, peers)
    tuned = tune_thresholds(recorded, judged) if tune else None
    if as_json:
        payload = result.as_dict() | ({"tuned": tuned.as_dict()} if tuned else {})
        terminal.say_raw(json.dumps(payload, indent=2, allow_nan=False))
        return
    console.print_backtest(result)
    if tuned:
        console.print_tuned(tuned, len(result.best))


@app.command(
    epilog="Example: search convert run1.csv run2.csv --column loss=train/loss --column metric=val/miou --out curves.jsonl"
)
def convert(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="a table of each run: CSV, JSON Lines, or a JSON array, as W&B's history exports"
        ),
    ],
    column: Annotated[
        Optional[list[str]],
        typer.Option(help="key=column, such as loss=train/loss or 'class_metric=val/iou_*'"),
    ] = None,
    direction: Annotated[
        Literal["maximize", "minimize"], typer.Option(help="of the metric")
    ] = "maximize",
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="short runs ended by themselves; else they count as cut short"
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="where to write; .gz compresses")] = Path(
        "curves.jsonl"
    ),
) -> None:
    """Training curves from elsewhere as a file for `search backtest --records`."""
    from search.cli.parsing import columns
    from search.console import terminal
    from search.replay.convert import convert_tables
    from spaces.recordings import check_out, write_recording

    check_out(out, files)
    recording = convert_tables(files, columns(column or []), direction, whole=whole)
    write_recording(out, recording)
    terminal.say(
        f"{len(recording.trials)} trials, {sum(len(trial.epochs) for trial in recording.trials)} epochs written to {out}"
    )
