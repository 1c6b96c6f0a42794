"""Compares methods: regrets and ranks at 10, 20 and 50 full trainings, and what they cost."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.report import table
from benchmarks.search.tasks import LCBENCH

CHECKPOINTS = (10, 20, 50)
"""Full trainings after which methods are compared."""

Row = Mapping[str, Any]
Cells = dict[str, dict[str, dict[str, Any]]]
"""Task → method → its figures."""


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of every task and method, and the ranks over tasks.

    Args:
        rows: finished runs, as `runner.Trace.as_row` makes them.
    """
    runs: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        runs[row["task"], row["method"]].append(row)
    cells: Cells = defaultdict(dict)
    for (task, method), group in runs.items():
        cells[task][method] = _figures_of(group)
    groups = {name: tasks for name, tasks in group_tasks(list(cells)).items() if tasks}
    return {
        "tasks": dict(cells),
        "groups": {
            name: compare({task: cells[task] for task in tasks}) for name, tasks in groups.items()
        },
    }


def group_tasks(tasks: Sequence[str]) -> dict[str, list[str]]:
    """The tasks by family, and all of them where there is more than one family."""
    lcbench = [task for task in tasks if task.startswith(LCBENCH)]
    scenes = [task for task in tasks if task not in lcbench]
    every = [*scenes, *lcbench] if scenes and lcbench else []
    return {"scenes": scenes, "lcbench": lcbench, "all": every}


def compare(cells: Cells) -> dict[str, Any]:
    """Mean ranks and mean regrets over tasks, of the methods with all seeds on each of them."""
    methods = sorted(set.intersection(*map(_with_all_seeds, cells.values())))
    return {
        "tasks": list(cells),
        "rank": {
            str(point): mean_ranks(
                [
                    {method: found[method]["picked"][str(point)]["mean"] for method in methods}
                    for found in cells.values()
                    if all(str(point) in found[method]["picked"] for method in methods)
                ]
            )
            for point in CHECKPOINTS
        },
        "regret": {
            method: {
                point: round(
                    fmean(found[method]["picked"][point]["mean"] for found in cells.values()), 2
                )
                for point in map(str, CHECKPOINTS)
                if all(point in found[method]["picked"] for found in cells.values())
            }
            for method in methods
        },
    }


def _with_all_seeds(found: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The methods with as many seeds as any other: means over other seeds are not paired."""
    most = max(figures["seeds"] for figures in found.values())
    return {method for method, figures in found.items() if figures["seeds"] == most}


def mean_ranks(regrets: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over tasks of each method's rank; 1 is the lowest regret, ties share their mean.

    Args:
        regrets: of each task, method → regret.
    """
    ranks: dict[str, list[float]] = defaultdict(list)
    for found in regrets:
        for method, regret in found.items():
            lower = sum(other < regret for other in found.values())
            equal = sum(other == regret for other in found.values())
            ranks[method].append(lower + (equal + 1) / 2)
    return {method: round(fmean(values), 2) for method, values in ranks.items()}


def _figures_of(runs: Sequence[Row]) -> dict[str, Any]:
    """The figures of one method on one task over its seeds."""
    settled = [math.inf if run["settled"] is None else run["settled"] for run in runs]
    middle = median(settled)
    return {
        "seeds": len(runs),
        "picked": _at_checkpoints([run["picked"] for run in runs]),
        "tried": _at_checkpoints([run["tried"] for run in runs]),
        "settled_median": middle if math.isfinite(middle) else None,
        "settled_share": round(fmean(math.isfinite(value) for value in settled), 2),
        "suggestion_ms": round(median(run["suggestion_ms"] for run in runs), 2),
        "trials": round(fmean(run["trials"] for run in runs), 1),
        "complete": round(fmean(run["complete"] for run in runs), 1),
        "resumed": round(fmean(run["resumed"] for run in runs), 1),
    }


def _at_checkpoints(curves: Sequence[Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Mean and quartiles over seeds at the checkpoints that every curve reaches."""
    shortest = min(map(len, curves))
    found = {}
    for point in (point for point in CHECKPOINTS if point <= shortest):
        values = [curve[point - 1] for curve in curves]
        lower, middle, upper = np.quantile(values, [0.25, 0.5, 0.75])
        found[str(point)] = {
            "mean": round(fmean(values), 2),
            "quartiles": [round(float(value), 2) for value in (lower, middle, upper)],
        }
    return found


HEAD = (
    "task",
    "method",
    "seeds",
    "mean regret at 10 / 20 / 50",
    "quartiles at 50",
    "tried at 50",
    "epochs until within 5",
    "CPU ms",
    "trials (complete)",
)


def format_summary(summary: Mapping[str, Any]) -> str:
    """The tables of a summary as plain text."""
    rows = [
        _cells(task, method, found)
        for task, methods in summary["tasks"].items()
        for method, found in methods.items()
    ]
    parts = [table(HEAD, rows)]
    parts += [format_group(name, found) for name, found in summary["groups"].items()]
    return "\n\n".join(parts)


def format_group(name: str, found: Mapping[str, Any]) -> str:
    """The table of a family of tasks: mean rank and mean regret of each method."""
    points = list(found["rank"])
    head = (f"{name} ({len(found['tasks'])} tasks)", "mean rank at 10 / 20 / 50", "mean regret")
    rows = [
        (
            method,
            " / ".join(
                f"{found['rank'][point][method]:.2f}"
                for point in points
                if method in found["rank"][point]
            ),
            " / ".join(f"{value:.1f}" for value in regrets.values()),
        )
        for method, regrets in found["regret"].items()
    ]
    return table(head, rows)


def _cells(task: str, method: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    last = list(found["picked"])[-1:]
    settled = found["settled_median"]
    return (
        task,
        method,
        str(found["seeds"]),
        " / ".join(f"{value['mean']:.1f}" for value in found["picked"].values()),
        " · ".join(
            f"{value:.1f}" for point in last for value in found["picked"][point]["quartiles"]
        ),
        "".join(f"{found['tried'][point]['mean']:.1f}" for point in last),
        f"{'never' if settled is None else f'{settled:.0f}'} ({100 * found['settled_share']:.0f}%)",
        f"{found['suggestion_ms']:.1f}",
        f"{found['trials']:.0f} ({found['complete']:.0f})",
    )
