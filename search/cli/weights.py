"""`search weights`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from search.cli.app import app


@app.command(epilog="Examples: search weights · search weights --study my.yaml --clip-ratio 25")
def weights(
    study: Annotated[
        str,
        typer.Option(
            "--study", "-s", help="name of a shipped study, or path of a YAML; its data is counted"
        ),
    ] = "class_weights",
    clip_ratio: Annotated[
        Optional[float], typer.Option(help="largest ratio max/min; default: no limit", min=1)
    ] = None,
    change: Annotated[
        Optional[list[str]], typer.Option("--set", help="path=value in the study's YAML")
    ] = None,
) -> None:
    """Count the classes of the data and compute their weights."""
    from typing import get_args

    from objectives.losses.class_weights import class_weights
    from search.cli.parsing import load_spec, naming_set_option
    from search.console import tables
    from search.planning.plan import make_plan
    from spaces.config import WeightMethod, WeightsConfig

    spec = load_spec(study, change or [])
    with naming_set_option(change or []):
        plan = make_plan(spec)
    counts = plan.objective.load().count_classes(plan.make_config({}, 0))
    computed = {}
    for method in get_args(WeightMethod):
        config = WeightsConfig(method=method, clip_ratio=clip_ratio)
        computed[method] = class_weights(counts, config).weights.tolist()
    tables.print_weights(counts, computed)
