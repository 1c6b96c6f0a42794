"""What several workers cost: `python -m benchmarks.search.workers`.

Workers train one epoch each in turn, and decide while the others are in the midst of their trials.
Measured is how many epochs in all they need until the mean regret of the pick over all seeds is as
low as that of one worker after twenty complete trainings.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.report import Figure, Result, parser, publish
from benchmarks.search.methods.freeze_thaw import make_informed
from benchmarks.search.tasks import make_task
from benchmarks.search.tasks.base import Task
from search.planning.random_seeds import derive_seed
from search.sampling.freeze_thaw.curves import TrialCurve

TRAININGS = 20
WORKERS = (1, 4, 16)
BOUNDS = {4: 1.15, 16: 1.4}
LONGER = 2.0
"""Several workers may take so many times the epochs of one before the run is given up."""


@dataclass
class Crew:
    """Workers of one study.

    Args:
        task: to search.
        seed: of the study.
        workers: how many.
    """

    task: Task
    seed: int
    workers: int
    curves: dict[int, TrialCurve] = field(default_factory=dict)
    metrics: dict[int, list[float]] = field(default_factory=dict)
    regrets: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.method = make_informed(self.task, self.seed)
        self.engine = self.method.engine
        self.owned: list[int | None] = [None] * self.workers

    def run(self, epochs: int) -> list[float]:
        """Train for so many epochs in all; the regret of the pick after each."""
        found: list[float] = []
        while len(found) < epochs:
            for worker in range(self.workers):
                self._train_epoch(worker)
                found.append(self._pick_regret(found[-1] if found else 100.0))
        return found[:epochs]

    def _train_epoch(self, worker: int) -> None:
        number = self.owned[worker]
        if number is None:
            number = self.owned[worker] = self._choose()
        curve = self.curves[number]
        epoch = curve.epoch + 1
        best = max([self.metrics[number][epoch - 1], *curve.scores.values()])
        curve = replace(curve, scores={**curve.scores, epoch: best})
        self.curves[number] = curve
        if epoch == self.task.epochs:
            self.curves[number] = replace(curve, state="complete")
            self.owned[worker] = None
        elif epoch == curve.until_epoch:
            until = self.engine.continue_trial(self._list(), number).until_epoch
            state = "paused" if until is None else "running"
            self.curves[number] = replace(curve, state=state, until_epoch=until or epoch)
            self.owned[worker] = None if until is None else number

    def _choose(self) -> int:
        step = self.engine.choose_step(self._list())
        assert step is not None
        if step.number is not None:
            promoted = replace(self.curves[step.number], state="running")
            self.curves[step.number] = replace(promoted, until_epoch=step.until_epoch)
            return step.number
        number = len(self.curves)
        presets = list(self.task.presets)
        params = presets[number] if number < len(presets) else None
        params = params or self.engine.propose(self._list(), number)
        self.curves[number] = TrialCurve(number, params, {}, "running", step.until_epoch)
        self.metrics[number] = self.task.curve(params, derive_seed(self.seed, number, "curve"))
        self.regrets[number] = self.task.regret(params)
        return number

    def _pick_regret(self, last: float) -> float:
        """The regret of the pick; the last one while no trial has ended since."""
        complete = sum(curve.state == "complete" for curve in self.curves.values())
        if not complete or complete == getattr(self, "_seen", 0):
            return last
        self._seen = complete
        picked = self.engine.pick(self._list())
        return last if picked is None else self.regrets[picked]

    def _list(self) -> list[TrialCurve]:
        return [self.curves[number] for number in sorted(self.curves)]


def run_crew(job: tuple[str, int, int]) -> list[float]:
    """The regret after each epoch of one run: task, seed, number of workers."""
    name, seed, workers = job
    task = make_task(name)
    longer = 1.0 if workers == 1 else LONGER
    return Crew(task, seed, workers).run(int(TRAININGS * task.epochs * longer))


def find_ratio(alone: list[list[float]], together: list[list[float]]) -> float:
    """Epochs of several workers until their mean regret is that of one at its end, per its epochs.

    Infinite when they do not get there.
    """
    target = float(np.mean([run[-1] for run in alone]))
    course = np.mean(together, axis=0)
    reached = np.flatnonzero(course <= target)
    return float("inf") if not len(reached) else (int(reached[0]) + 1) / len(alone[0])


def measure(names: list[str], seeds: int, processes: int) -> Result:
    """Run all crews and compare them with the single workers."""
    jobs = [(name, seed, workers) for name in names for workers in WORKERS for seed in range(seeds)]
    with ProcessPoolExecutor(processes) as pool:
        found = dict(zip(jobs, pool.map(run_crew, jobs), strict=True))
    figures, details = [], {}
    for workers, bound in BOUNDS.items():
        ratios = {
            name: find_ratio(
                [found[name, seed, 1] for seed in range(seeds)],
                [found[name, seed, workers] for seed in range(seeds)],
            )
            for name in names
        }
        median = float(np.median(list(ratios.values())))
        name = f"epochs of {workers} workers to the regret of one, median of the tasks"
        figures.append(Figure(name, min(median, LONGER), "×", bound))
        details[f"{workers} workers"] = {
            name: round(min(ratio, LONGER), 3) for name, ratio in ratios.items()
        }
    return Result(figures, {"at most": LONGER, **details})


def main() -> int:
    """Measure, print and write."""
    made = parser(str(__doc__))
    made.add_argument("--tasks", default="first,second,camvid,nuclei")
    made.add_argument("--seeds", type=int, default=10)
    made.add_argument("--processes", type=int, default=2)
    options = made.parse_args()
    seeds = 1 if options.quick else options.seeds
    result = measure(options.tasks.split(","), seeds, options.processes)
    return publish("search_workers", result, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
