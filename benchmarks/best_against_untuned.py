"""The best configuration of a search against the untuned one, on the test split.

The untuned one is plain, unweighted cross entropy at the base learning rate: the preset of that
name over the study's own base. Both are trained to the end with the same seeds, none of which the
search has used.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from unittest import mock

from benchmarks import report
from benchmarks.commands import ONE_THREAD, environment, run, script
from benchmarks.report import Figure, Result
from benchmarks.training import Trained, train
from search.cli.parsing import load_spec
from search.export import Export, load_export
from search.planning.plan import make_plan
from spaces.config import TrialConfig
from spaces.config_tree import ConfigTree

STUDIES = {"focal_gamma": 0.05, "text_focal": 0.03}
"""Searched study → by how much its best configuration has to beat the untuned one."""

SEARCH_MIN = {"text_focal": 8.0}
"""Minutes that a search with the study's own budget may take."""

SEEDS = (1, 2, 3)
PROCESSES = 2
SEARCH_TIMEOUT_S, TRAIN_TIMEOUT_S = 1800.0, 1800.0
SMALL = ("--trials", "4", "--epochs", "2")
SAME = ("objective", "epochs", "metric", "data", "model", "batch_size", "max_grad_norm")
"""Sections that must be equal for comparable scores, except for searched values of the model."""

SEARCHED = ("weights", "loss", "optimizer", "schedule", "model")
"""Sections of the best configuration that the result has; paths of data are left out."""

Scores = dict[str, list[Trained]]


def measure(file: Path | None, study: str, *, quick: bool) -> Result:
    """Search where no export is given, then train both configurations with every seed."""
    began = time.monotonic()
    export = load_export(file) if file else search_best(study, quick=quick)
    search_min = (time.monotonic() - began) / 60
    configs = {"best": export.trial_config(), "untuned": untuned(export, study)}
    seeds = SEEDS[:1] if quick else SEEDS
    scores = train_all(configs, seeds)
    rows = [
        (name, str(seed), _shown(one.validation), _shown(one.test))
        for name, found in scores.items()
        for seed, one in zip(seeds, found, strict=True)
    ]
    print(
        report.table(("configuration", "seed", "validation", "test"), rows), end="\n\n", flush=True
    )
    trained = [
        {"configuration": row[0], "seed": seed, **vars(one)}
        for row, (seed, one) in zip(rows, _flat(scores, seeds), strict=True)
    ]
    searched_for = {name: export.config[name] for name in SEARCHED if name in export.config}
    took = (
        [] if file else [Figure(f"the search of {study}", search_min, "min", SEARCH_MIN.get(study))]
    )
    return Result(
        [*took, *compare(scores, export.score.metric, STUDIES.get(study))],
        {"scores": trained, "best": searched_for, "recorded": export.score.validation},
    )


def search_best(study: str, *, quick: bool) -> Export:
    """The best.yaml of a search that is run now."""
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as temporary:
        folder = Path(temporary)
        run(
            [script("search"), "run", "--study", study, *(SMALL if quick else ())],
            folder,
            environment(),
            SEARCH_TIMEOUT_S,
        )
        return load_export(folder / "best.yaml")


def untuned(export: Export, study: str) -> TrialConfig:
    """The untuned configuration for the data, model and length that the export was trained with.

    Raises:
        SystemExit: when the study's base has others.
    """
    best = export.trial_config()
    plan = make_plan(load_spec(study, [], epochs=best.epochs))
    config = plan.make_config({}, 0, "untuned")
    ours, theirs = (ConfigTree(given.model_dump()) for given in (best, config))
    for path in sorted(ours.keys() | theirs.keys()):
        if (
            path.split(".")[0] in SAME
            and path not in plan.spec.space
            and ours.get(path) != theirs.get(path)
        ):
            raise SystemExit(
                f"the export and the study {study!r} differ in {path}: {ours.get(path)} and "
                f"{theirs.get(path)}; name its study with --study"
            )
    return config


def train_all(configs: Mapping[str, TrialConfig], seeds: tuple[int, ...]) -> Scores:
    """Train every configuration with every seed, in two processes, as many as the search has."""
    jobs = [
        config.model_copy(update={"seed": seed}).model_dump(mode="json")
        for seed in seeds
        for config in configs.values()
    ]
    with (
        mock.patch.dict(os.environ, ONE_THREAD),
        multiprocessing.get_context("spawn").Pool(PROCESSES, maxtasksperchild=1) as pool,
    ):
        found = pool.map_async(train, jobs, chunksize=1).get(TRAIN_TIMEOUT_S)
    return {name: found[index :: len(configs)] for index, name in enumerate(configs)}


def compare(scores: Scores, metric: str, bound: float | None) -> list[Figure]:
    """The difference of the means, and how far it is to be trusted.

    Raises:
        SystemExit: when a training broke off and has no test score.
    """
    best, plain = (
        [one.test for one in scores[name] if one.test is not None] for name in ("best", "untuned")
    )
    if len(best) < len(scores["best"]) or len(plain) < len(scores["untuned"]):
        raise SystemExit(f"a training broke off and has no test score: {scores}")
    differences = [a - b for a, b in zip(best, plain, strict=True)]
    figures = [
        Figure(
            f"mean test {metric} of the best configuration",
            fmean(best),
            peer="untuned",
            peer_found=fmean(plain),
        ),
        Figure(
            f"difference of the means, {len(differences)} seeds each",
            fmean(best) - fmean(plain),
            bound=bound,
            at_least=True,
        ),
        Figure("smallest difference of a seed", min(differences)),
    ]
    if len(differences) > 1:
        figures.append(
            Figure(
                "standard error of the difference", stdev(differences) / math.sqrt(len(differences))
            )
        )
    return figures


def _flat(scores: Scores, seeds: tuple[int, ...]) -> list[tuple[int, Trained]]:
    return [
        (seed, one) for found in scores.values() for seed, one in zip(seeds, found, strict=True)
    ]


def _shown(value: float | None) -> str:
    return "broke off" if value is None else f"{value:.4f}"


def main() -> int:
    """Measure, print and store the figures."""
    made: Any = report.parser(__doc__ or "")
    made.add_argument(
        "--export", type=Path, metavar="FILE", help="a best.yaml; left out: the study is run first"
    )
    made.add_argument(
        "--study",
        default="focal_gamma",
        help="study to search, and whose base is trained untuned; default: focal_gamma",
    )
    options = made.parse_args()
    name = (
        "best_against_untuned"
        if options.study == "focal_gamma"
        else f"best_against_untuned_{options.study}"
    )
    return report.publish(
        name, measure(options.export, options.study, quick=options.quick), quick=options.quick
    )


if __name__ == "__main__":
    sys.exit(main())
