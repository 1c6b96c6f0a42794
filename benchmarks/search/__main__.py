"""Compare search methods on tasks whose trainings cost nothing.

    python -m benchmarks.search --tasks first,second --methods random,tpe_median --seeds 10

Every method gets the same epochs, presets and seeds. Regret of the pick: percent of the best true
score on scenes; on LCBench 0 is the best and 100 the median configuration. Finished runs are
written to .cache/search_benchmark.jsonl, and the same command continues after them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import Figure, Result
from benchmarks.search.jobs import list_jobs, make_job_key, open_task, run_jobs
from benchmarks.search.methods import FAST, METHODS
from benchmarks.search.stored_runs import STORED, StoredRuns
from benchmarks.search.summary import CHECKPOINTS, format_summary, summarize
from benchmarks.search.tasks import list_tasks
from benchmarks.search.tasks.scenes import FITTED, Campaign, fit_campaign

TRAININGS = 50

PRODUCT = "freeze_thaw"
LCBENCH_BOUNDS = {20: 20.0, 50: 8.0}
OURS = (PRODUCT, "without_knowledge", "wrong_knowledge", "without_pauses")
"""The default of `search run`, and the same with an ingredient switched off."""
"""The method that `search run` has by default."""


def main() -> int:
    """Run what is missing, then print and store the comparison."""
    options = _parse_options()
    if options.fit:
        return fit_surrogates(options.fit)
    tasks = options.tasks or list_tasks(options.lcbench)
    listed = list_jobs(tasks, options.methods, options.seeds, options.trainings, options.lcbench)
    jobs = {make_job_key(job): job for job in listed}
    stored = StoredRuns(options.stored_runs)
    if not options.only_summarize:
        missing = {key: job for key, job in jobs.items() if key not in stored.rows}
        print(f"{len(jobs)} runs, of which {len(jobs) - len(missing)} are stored", flush=True)
        run_jobs(missing, stored, options.processes)
    summary = summarize(stored.select(jobs))
    if not summary["tasks"]:
        raise SystemExit("no run is stored: leave out --only-summarize")
    print(format_summary(summary), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        return 0
    details = summary | {"surrogates": describe_tasks(options)}
    return report.publish("search", Result(make_figures(summary), details), quick=options.quick)


def _parse_options() -> argparse.Namespace:
    made = report.parser(__doc__ or "")
    made.add_argument("--tasks", type=_names, help="default: every task that can be made here")
    made.add_argument("--methods", type=_names, default=list(FAST), help=f"of {', '.join(METHODS)}")
    made.add_argument("--seeds", type=int, default=10, help="runs of each method on each task")
    made.add_argument("--trainings", type=int, default=TRAININGS, help="budget, in full trainings")
    made.add_argument("--lcbench", type=Path, metavar="FOLDER", help="with LCBench's model.onnx")
    made.add_argument("--out", type=Path, metavar="FILE", help="default: benchmarks/results")
    made.add_argument("--processes", type=int, default=2, help="runs at the same time")
    made.add_argument("--stored-runs", type=Path, default=STORED, metavar="FILE")
    made.add_argument(
        "--fit",
        type=_names,
        metavar="CAMPAIGNS",
        help="fit their surrogates again, and run nothing",
    )
    made.add_argument("--only-summarize", action="store_true", help="run nothing")
    options = made.parse_args()
    if options.quick:
        options.seeds, options.trainings = 2, 10
        options.stored_runs = options.stored_runs.with_suffix(".quick.jsonl")
    return options


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def fit_surrogates(names: list[str]) -> int:
    """Fit the surrogates of campaigns to their present recordings, as files to be committed."""
    for name in names:
        facts = fit_campaign(name, Campaign(name), FITTED)
        shown = {key: value for key, value in facts.items() if key != "components"}
        print(f"{name}: {json.dumps(shown)}", flush=True)
    return 0


def make_figures(summary: dict[str, Any]) -> list[Figure]:
    """The product's mean regret in each family of tasks, beside the best other method's."""
    figures = []
    for name, found in summary["groups"].items():
        regrets = found["regret"]
        others = [method for method in regrets if method not in OURS]
        if name == "all" or PRODUCT not in regrets or not others:
            continue
        for point in (str(point) for point in CHECKPOINTS if str(point) in regrets[PRODUCT]):
            peer = min(others, key=lambda method: regrets[method][point])
            figures.append(
                Figure(
                    f"{name}: mean regret after {point} full trainings",
                    regrets[PRODUCT][point],
                    "%" if name == "scenes" else "",
                    bound=LCBENCH_BOUNDS.get(int(point)) if name == "lcbench" else None,
                    peer=peer,
                    peer_found=regrets[peer][point],
                )
            )
            rank = found["rank"][point]
            best = min(rank[method] for method in others)
            figures.append(
                Figure(
                    f"{name}: mean rank after {point} full trainings",
                    rank[PRODUCT],
                    bound=best,
                    peer="best other",
                    peer_found=best,
                )
            )
    return figures


def describe_tasks(options: argparse.Namespace) -> dict[str, Any]:
    """How good the surrogates are."""
    names = options.tasks or list_tasks(options.lcbench)
    return {name: open_task(name, options.lcbench).description() for name in names}


if __name__ == "__main__":
    sys.exit(main())
