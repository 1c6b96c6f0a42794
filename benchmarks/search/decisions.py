"""What a decision takes: `python -m benchmarks.search.decisions`.

A study of CamVid's task with so many trials, a fifth of them complete and the others paused: the
time until the search knows what to train next, and until it has a configuration for a new trial.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks.report import Figure, Result, parser, publish
from benchmarks.search.methods.freeze_thaw import make_informed
from benchmarks.search.tasks import make_task
from benchmarks.search.tasks.base import Task
from search.sampling.freeze_thaw.curves import TrialCurve
from search.sampling.freeze_thaw.steps import make_rungs

BOUNDS_MS = {50: 50.0, 300: 500.0, 1_000: None}
PROPOSAL_MS = {50: None, 300: None, 1_000: 200.0}
REPEATS = 5
COMPLETE_SHARE = 0.2


def make_curves(task: Task, trials: int) -> list[TrialCurve]:
    """Random trials, the first ones complete, the others paused at some rung."""
    method = make_informed(task, 0)
    space = method.engine.space
    points = space.sample(np.random.default_rng(7), trials)
    rungs = make_rungs(task.epochs)[:-1]
    curves = []
    for number in range(trials):
        params = space.decode(points, number)
        metrics = np.maximum.accumulate(task.curve(params, number))
        is_complete = number < COMPLETE_SHARE * trials
        until = task.epochs if is_complete else rungs[number % len(rungs)]
        scores = {epoch: float(metrics[epoch - 1]) for epoch in range(1, until + 1)}
        state = "complete" if is_complete else "paused"
        curves.append(TrialCurve(number, params, scores, state, until))
    return curves


def time_decisions(task: Task, trials: int) -> tuple[float, float]:
    """The median milliseconds of a decision and of the proposal that follows it."""
    curves = make_curves(task, trials)
    decisions, proposals = [], []
    for _ in range(REPEATS):
        engine = make_informed(task, 0).engine
        began = time.perf_counter()
        engine.choose_step(curves)
        decided = time.perf_counter()
        engine.propose(curves, trials)
        decisions.append(decided - began)
        proposals.append(time.perf_counter() - decided)
    return 1000 * float(np.median(decisions)), 1000 * float(np.median(proposals))


def main() -> int:
    """Measure, print and write."""
    options = parser(str(__doc__)).parse_args()
    task = make_task("camvid")
    figures = []
    for trials, bound in BOUNDS_MS.items():
        decision_ms, proposal_ms = time_decisions(task, trials)
        of = f"with {trials:,} trials"
        figures.append(Figure(f"a decision {of}", decision_ms, "ms", bound))
        figures.append(
            Figure(f"the proposal after it {of}", proposal_ms, "ms", PROPOSAL_MS[trials])
        )
    return publish("search_decisions", Result(figures), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
