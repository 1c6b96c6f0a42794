"""The methods of the search benchmark under the runner: budgets, pauses, picks."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import pytest

from benchmarks.search.methods import FAST, make_method
from benchmarks.search.methods.base import Observed, Run
from benchmarks.search.methods.budgeted import BudgetedMethod, Evaluation
from benchmarks.search.runner import Session, run_method
from benchmarks.search.tasks.base import Params, Task
from benchmarks.search.tasks.planted import PlantedTask
from spaces.parameters import Scalar


class CountingTask(PlantedTask):
    """A planted task with presets, that records which curves were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.presets: list[Params] = [{"lr": 1e-3, "weight": 0.2, "kind": "ce"}]
        self.asked: list[tuple[str, int]] = []

    def curve(self, params: Mapping[str, Scalar], seed: int) -> list[float]:
        self.asked.append((str(params), seed))
        return super().curve(params, seed)


class Recorded:
    """A method that passes calls on and records the metrics of each trial."""

    def __init__(self, name: str, task: Task) -> None:
        self.inner = make_method(name, task, 0)
        self.runs: list[Run] = []
        self.metrics: dict[int, list[float]] = {}

    def next_run(self) -> Run:
        self.runs.append(self.inner.next_run())
        return self.runs[-1]

    def report_epoch(self, trial: int, epoch: int, metric: float) -> bool:
        self.metrics.setdefault(trial, []).append(metric)
        assert epoch == len(self.metrics[trial])
        return self.inner.report_epoch(trial, epoch, metric)

    def pick(self) -> int | None:
        return self.inner.pick()


class TestMethods:
    @pytest.mark.parametrize("name", FAST)
    def test_budget(self, name: str) -> None:
        """A method sees exactly the budget's epochs, and each trial's first epochs only once."""
        task = CountingTask()
        recorded = Recorded(name, task)
        session = Session(task, recorded, 0, budget=95)
        session.run()
        assert session.spent == sum(map(len, recorded.metrics.values())) == 95
        assert len(session.picked) == len(session.tried) == 95 // task.epochs
        assert len(task.asked) == len(recorded.metrics)

    @pytest.mark.parametrize("name", FAST)
    def test_resumed_equal(self, name: str) -> None:
        """However often a trial pauses, its metrics are those of one curve from first to last."""
        task = CountingTask()
        recorded = Recorded(name, task)
        session = Session(task, recorded, 0, budget=400)
        session.run()
        for trial, metrics in recorded.metrics.items():
            assert metrics == session.curves[trial][: len(metrics)]
        pauses = {"halving", "three_epochs"}
        assert (session.resumed > 0) == (name in pauses)

    @pytest.mark.parametrize("name", [*FAST, "optuna_gp"])
    def test_presets_first(self, name: str) -> None:
        """The first trial is the preset."""
        task = CountingTask()
        assert make_method(name, task, 3).next_run().params == task.presets[0]

    @pytest.mark.parametrize("name", FAST)
    def test_deterministic(self, name: str) -> None:
        """The same seed gives the same regrets, another seed gives others."""
        rows = [run_method(PlantedTask(), name, seed, 6).as_row() for seed in (1, 1, 2)]
        first, again, other = ({**row, "suggestion_ms": 0, "seed": 0} for row in rows)
        assert first == again != other

    def test_tpe_learns(self) -> None:
        """TPE solves the planted task better than random search."""
        regrets = {
            name: fmean(run_method(PlantedTask(), name, seed, 50).tried[-1] for seed in range(5))
            for name in ("random", "tpe_median")
        }
        assert regrets["tpe_median"] < 0.7 * regrets["random"]

    def test_halving(self) -> None:
        """A bracket of 27 trials has rungs at epochs 1, 3 and 9 of 9, each with the best third."""
        task = PlantedTask(noise=0)
        recorded = Recorded("halving", task)
        Session(task, recorded, 0, budget=27 * 1 + 9 * 2 + 3 * 6).run()
        assert [run.until for run in recorded.runs] == [1] * 27 + [3] * 9 + [9] * 3
        first = {trial: metrics[0] for trial, metrics in recorded.metrics.items()}
        promoted = {run.trial for run in recorded.runs[27:36]}
        assert promoted == set(sorted(first, key=lambda trial: first[trial])[-9:])

    def test_three_epochs(self) -> None:
        """The first round ends at exactly 10 full trainings with three complete trials."""
        task = PlantedTask()
        recorded = Recorded("three_epochs", task)
        session = Session(task, recorded, 0, budget=10 * task.epochs)
        session.run()
        lengths = sorted(session.done.values())
        assert lengths[-3:] == [9, 9, 9]
        assert set(lengths[:-3]) == {3}

    def test_unknown(self) -> None:
        """An unknown name is refused."""
        with pytest.raises(SystemExit, match="no method 'best'"):
            make_method("best", PlantedTask(), 0)


class Repeating(BudgetedMethod):
    """A library that asks for one configuration at epochs 2, 2 and 5, as SMAC may do."""

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__(task, seed)
        self.asked = [2, 2, 5, 9]
        self.costs: list[float] = []

    def ask_library(self) -> Evaluation:
        return Evaluation(dict(GOOD), self.asked.pop(0), None)

    def answer_library(self, evaluation: Evaluation, cost: float) -> None:
        self.costs.append(cost)


class TestBudgeted:
    def test_resumes(self) -> None:
        """A configuration that comes again resumes its trial; what is known costs no epoch."""
        task = PlantedTask()
        method = Repeating(task, 0)
        session = Session(task, method, 0, budget=9)
        session.run()
        curve = session.curves[0]
        assert method.costs == [-max(curve[:2]), -max(curve[:2]), -max(curve[:5])]
        assert (len(session.done), session.resumed) == (1, 2)


class Scripted:
    """A method that runs what it is given and picks the trials in turn."""

    def __init__(self, runs: list[Run], picks: list[int]) -> None:
        self.runs, self.picks = runs, picks

    def next_run(self) -> Run:
        return self.runs.pop(0)

    def report_epoch(self, trial: int, epoch: int, metric: float) -> bool:
        return True

    def pick(self) -> int | None:
        return self.picks.pop(0)


GOOD: Params = {"lr": 0.03, "weight": 0.7, "kind": "focal", "gamma": 2.0}
BAD: Params = {"lr": 0.03, "weight": 0.0, "kind": "focal", "gamma": 2.0}


class TestSession:
    def test_settled(self) -> None:
        """The pick has to stay close: an early close pick that is given up does not count."""
        runs = [Run(0, GOOD, 9), Run(1, BAD, 9), Run(0 + 2, GOOD, 9)]
        session = Session(PlantedTask(), Scripted(runs, [0, 0, 1, 1, 2, 2]), 0, budget=27)
        session.run()
        assert session.settled() == 27
        assert session.picked == pytest.approx([0, 54.4, 0], abs=0.1)
        assert session.tried == pytest.approx([0, 0, 0], abs=0.01)

    @pytest.mark.parametrize(
        "second", [Run(0, GOOD, 3), Run(0, GOOD, 10), Run(0, BAD, 9)], ids=["back", "far", "other"]
    )
    def test_impossible_run(self, second: Run) -> None:
        """A run that goes back, goes too far, or changes a trial's configuration is refused."""
        method = Scripted([Run(0, GOOD, 3), second], [0] * 9)
        with pytest.raises(ValueError, match="trial 0"):
            Session(PlantedTask(), method, 0, budget=9).run()


class TestPick:
    def test_complete_first(self) -> None:
        """A complete trial is picked before a better incomplete one; the best epoch counts."""
        observed = Observed(2, "minimize")
        assert observed.best_trial() is None
        for metrics in ([0.1], [0.3, 0.9], [0.4, 0.5]):
            trial = observed.add_trial({})
            for metric in metrics:
                observed.record(trial, metric)
        assert observed.best_trial() == 1
