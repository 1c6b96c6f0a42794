"""The commands about configurations: `weights`, `export`, `train`, `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from search.cli.app import StoreOption, StudyOption, app
from spaces.exit_codes import ExitCode


@app.command(epilog="Examples: search weights · search weights --study my.yaml --clip-ratio 25")
def weights(
    study: Annotated[
        str,
        typer.Option(
            "--study", "-s", help="a shipped study's name, or a YAML: its data are counted"
        ),
    ] = "class_weights",
    clip_ratio: Annotated[
        Optional[float], typer.Option(help="bound of max/min; left out: none", min=1)
    ] = None,
    change: Annotated[
        Optional[list[str]], typer.Option("--set", help="path=value in the study's YAML")
    ] = None,
) -> None:
    """Class counts of the training data, and the weights that every method makes of them."""
    from typing import get_args

    from objectives.losses.class_weights import class_weights
    from search.cli.parsing import blame_options, study_spec
    from search.console import tables
    from search.planning.plan import make_plan
    from spaces.config import WeightMethod, WeightsConfig

    spec = study_spec(study, change or [])
    with blame_options(change or []):
        plan = make_plan(spec)
    counts = plan.objective.load().count_classes(plan.make_config({}, 0))
    made = {
        method: class_weights(
            counts, WeightsConfig(method=method, clip_ratio=clip_ratio)
        ).weights.tolist()
        for method in get_args(WeightMethod)
    }
    tables.print_weights(counts, made)


@app.command(
    epilog="Examples: search export --study focal_gamma · search export --study focal_gamma --trial 12 --out twelve.yaml"
)
def export(
    study: StudyOption,
    trial: Annotated[
        Optional[int],
        typer.Option("--trial", "-t", help="its number; left out: the best complete one"),
    ] = None,
    out: Annotated[Path, typer.Option(help="where to write")] = Path("best.yaml"),
    store: StoreOption = None,
) -> None:
    """Write a trial's configuration, scores and provenance to YAML."""
    from search.cli.parsing import store_location
    from search.console import terminal
    from search.export import check_out, make_export, write_export
    from search.stored_study import find_study

    check_out(out)
    location = store_location(store)
    with location.open(create=False) as held:
        made = make_export(held, find_study(held, study), trial, location.files())
    write_export(made, out)
    terminal.say(
        f"trial {made.provenance.trial} of {study}: {made.score.metric} {made.score.validation:.4f} on validation; written to {out}"
    )
    if made.provenance.weights is not None:
        terminal.say(f"its trained state: {made.provenance.weights}")


@app.command(epilog="Example: search train best.yaml --save model.pt")
def train(
    file: Annotated[Path, typer.Argument(help="a file that `search export` or `search run` wrote")],
    device: Annotated[Optional[str], typer.Option(help="where; default: as it was trained")] = None,
    threads: Annotated[
        Optional[int], typer.Option(help="CPU threads; default: as it was trained", min=1)
    ] = None,
    save: Annotated[
        Optional[Path],
        typer.Option(
            help="keep the trained state there (torch.load; the model to keep is under best_weights)"
        ),
    ] = None,
) -> None:
    """Train an exported configuration again, and compare with its recorded score.

    Exit code 1 when the score differs although device, threads and torch are the same.
    """
    from search.console import terminal
    from search.export import check_output_path, load_export
    from search.retrain import Retraining

    if save is not None:
        check_output_path(save, "--save")
    training = Retraining(load_export(file), device, threads, save)
    for record in training.train_epochs():
        loss = f"loss {record.train_loss:.4f}  val loss {record.val_loss:.4f}"
        terminal.say(
            f"epoch {record.epoch:>3}/{training.config.epochs}  {loss}  {training.config.metric.name} {record.metric:.4f}  {record.seconds:.1f} s"
        )
    found = training.compare_scores()
    test = f", {found.test:.4f} on test" if found.test is not None else ""
    verdict = (
        "equal to the last bit"
        if found.is_equal
        else f"differs by {found.trained - found.recorded:+.2e}"
    )
    terminal.say(f"\nrecorded {found.recorded!r}, trained {found.trained!r}{test}: {verdict}")
    for difference in found.differences:
        terminal.say(f"  not the same: {difference}")
    if not found.is_equal and not found.differences:
        raise typer.Exit(ExitCode.FAILED)


@app.command(
    epilog="Example: search schema > study.schema.json, then # yaml-language-server: $schema=study.schema.json in your YAML"
)
def schema() -> None:
    """The JSON Schema of a study's YAML, so that editors complete it."""
    from search.planning.json_schema import schema_text

    print(schema_text())
