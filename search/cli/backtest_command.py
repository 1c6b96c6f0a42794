"""`search backtest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from search.cli.app import JsonOption, StoreOption, app, open_existing_store


@app.command(
    epilog=(
        "Examples: search backtest --study focal_gamma --pruner median · "
        "search backtest --records curves.jsonl --tune"
    )
)
def backtest(
    study: Annotated[
        Optional[str], typer.Option("--study", "-s", help="name of a study in the store")
    ] = None,
    records: Annotated[
        Optional[Path],
        typer.Option(help="recorded trials as JSON Lines, instead of --study (docs/backtest.md)"),
    ] = None,
    signals: Annotated[
        Optional[list[str]],
        typer.Option(help="signal.threshold=value, such as class_collapse.epochs=8"),
    ] = None,
    pruner: Annotated[
        Optional[list[str]], typer.Option(help="median, hyperband or none; or setting=value")
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="propose thresholds that save the most and stop none of the best trials"
        ),
    ] = False,
    direction: Annotated[
        Optional[Literal["maximize", "minimize"]],
        typer.Option(help="direction of the metric, if the file of --records has none"),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay recorded trials with other thresholds or another pruner.

    The table lists which trials each rule would have stopped, the epochs saved, and the best
    trials lost.
    """
    from search.cli.parsing import parse_pruner, parse_signals
    from search.console import backtest_tables, terminal
    from search.replay.backtest import run_backtest
    from search.replay.ranking import rank_recording
    from search.replay.source import load_source
    from search.replay.tune import tune_thresholds

    source = load_source(study, records, direction, lambda: open_existing_store(store))
    thresholds = parse_signals(signals or [], source.signals)
    peers = parse_pruner(pruner or [], source.pruner)
    recorded = rank_recording(source.recording, records)
    result = run_backtest(recorded, thresholds, peers)
    tuned = tune_thresholds(recorded, thresholds) if tune else None
    if as_json:
        proposed = {"tuned": tuned.as_dict()} if tuned else {}
        terminal.print_json(result.as_dict() | proposed)
        return
    backtest_tables.print_backtest(result)
    if tuned:
        backtest_tables.print_tuned(tuned, len(result.best))
