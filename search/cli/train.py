"""`search train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from search.cli.app import app
from spaces.exit_codes import ExitCode

if TYPE_CHECKING:
    from search.retrain import Comparison, Retraining
    from spaces.records import EpochRecord


@app.command(epilog="Example: search train best.yaml --save model.pt")
def train(
    file: Annotated[Path, typer.Argument(help="file that `search export` or `search run` wrote")],
    device: Annotated[
        Optional[str], typer.Option(help="cpu or cuda:N; default: the recorded device")
    ] = None,
    threads: Annotated[
        Optional[int], typer.Option(help="CPU threads; default: the recorded number", min=1)
    ] = None,
    save: Annotated[
        Optional[Path],
        typer.Option(
            help="file for the trained weights; torch.load(file)['best_weights'] is the best model"
        ),
    ] = None,
) -> None:
    """Train an exported configuration again and compare scores.

    Exit code 1: the score differs although device, threads and torch are the same.
    """
    from search.console import terminal
    from search.export import check_output_path, load_export
    from search.retrain import Retraining

    if save is not None:
        check_output_path(save, "--save")
    training = Retraining(load_export(file), device, threads, save)
    for record in training.train_epochs():
        terminal.print_line(_describe_epoch(record, training))
    found = training.compare_scores()
    terminal.print_line(_describe_comparison(found))
    for difference in found.differences:
        terminal.print_line(f"  different: {difference}")
    if not found.is_equal and not found.differences:
        raise typer.Exit(ExitCode.FAILED)


def _describe_epoch(record: EpochRecord, training: Retraining) -> str:
    config = training.config
    loss = f"loss {record.train_loss:.4f}  val loss {record.val_loss:.4f}"
    metric = f"{config.metric.name} {record.metric:.4f}"
    return f"epoch {record.epoch:>3}/{config.epochs}  {loss}  {metric}  {record.seconds:.1f} s"


def _describe_comparison(found: Comparison) -> str:
    test = "" if found.test is None else f", {found.test:.4f} on test"
    verdict = f"differs by {found.trained - found.recorded:+.2e}"
    if found.is_equal:
        verdict = "equal to the last bit"
    return f"\nrecorded {found.recorded!r}, trained {found.trained!r}{test}: {verdict}"
