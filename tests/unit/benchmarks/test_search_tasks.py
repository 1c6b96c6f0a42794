"""The tasks of the search benchmark: deterministic curves around a true score."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from benchmarks.search.configurations import Encoding, draw_params, mutate_params
from benchmarks.search.tasks import list_tasks, make_task
from benchmarks.search.tasks.base import Params, Task
from spaces.parameters import Choice, FloatRange, IntRange, Parameter, is_active

TASKS = ["planted", *list_tasks()]


@cache
def opened(name: str) -> Task:
    return make_task(name)


def drawn(task: Task, count: int) -> list[Params]:
    generator = np.random.default_rng(5)
    return [draw_params(task.space, generator) for _ in range(count)]


class TestTasks:
    @pytest.mark.parametrize("name", TASKS)
    def test_deterministic(self, name: str) -> None:
        """A second object of the same task has the same curve for the same configuration and seed."""
        task, again = opened(name), make_task(name)
        for params in drawn(task, 5):
            assert task.curve(params, 7) == again.curve(params, 7)
            assert task.true_score(params) == again.true_score(params)

    @pytest.mark.parametrize("name", TASKS)
    def test_curve(self, name: str) -> None:
        """A curve has one finite metric per epoch, and another seed gives another curve."""
        task = opened(name)
        for params in drawn(task, 20):
            curve = task.curve(params, 7)
            assert len(curve) == task.epochs
            assert np.isfinite(curve).all()
            assert curve != task.curve(params, 8)

    @pytest.mark.parametrize("name", TASKS)
    def test_unbiased_noise(self, name: str) -> None:
        """Over seeds the best metric of a good configuration is near its true score."""
        task = opened(name)
        params = min(drawn(task, 50), key=task.regret)
        scores = [max(task.curve(params, seed)) for seed in range(40)]
        assert np.mean(scores) == pytest.approx(task.true_score(params), rel=0.08)

    @pytest.mark.parametrize("name", TASKS)
    def test_best(self, name: str) -> None:
        """No random configuration is better than the best, and the median is the median of them."""
        task = opened(name)
        scores = [task.true_score(params) for params in drawn(task, 300)]
        assert max(scores) <= task.best
        if name != "planted":
            assert np.median(scores) == pytest.approx(task.median, rel=0.1)

    @pytest.mark.parametrize("name", list_tasks())
    def test_presets(self, name: str) -> None:
        """The presets are distinct, and have exactly the dimensions that are active under them."""
        task = opened(name)
        assert len(task.presets) == len({str(params) for params in task.presets}) > 1
        for params in task.presets:
            assert set(params) == {
                path for path, dimension in task.space.items() if is_active(dimension.when, params)
            }
            assert all(task.space[path].contains(value) for path, value in params.items())

    @pytest.mark.parametrize("name", list_tasks())
    def test_early_ranks(self, name: str) -> None:
        """The metric after three epochs says as much about the final one as in the recording."""
        task = opened(name)
        curves = np.array(
            [task.curve(params, 100 + i) for i, params in enumerate(drawn(task, 300))]
        )
        running = np.maximum.accumulate(curves, axis=1)
        ranks = running.argsort(0).argsort(0)
        correlation = np.corrcoef(ranks[:, 2], ranks[:, -1])[0, 1]
        assert 0.5 < correlation < 0.9

    def test_unknown(self) -> None:
        """An unknown name is refused with the names that exist."""
        with pytest.raises(SystemExit, match="no task 'third'"):
            make_task("third")


SPACE: dict[str, Parameter] = {
    "kind": Choice(kind="choice", choices=("a", "b", None)),
    "rate": FloatRange(kind="float", low=0.01, high=1.0, log=True),
    "count": IntRange(kind="int", low=1, high=4, when={"kind": "b"}),
}


class TestConfigurations:
    def test_drawn(self) -> None:
        """Every draw is inside the space, and a dimension is there exactly when it is active."""
        generator = np.random.default_rng(0)
        seen = [draw_params(SPACE, generator) for _ in range(200)]
        for params in seen:
            assert ("count" in params) == (params["kind"] == "b")
            assert all(SPACE[name].contains(value) for name, value in params.items())
        assert {params["count"] for params in seen if "count" in params} == {1, 2, 3, 4}

    def test_mutated(self) -> None:
        """A mutation stays inside the space, and draws a dimension that becomes active."""
        generator = np.random.default_rng(0)
        start: Params = {"kind": "a", "rate": 0.1}
        for _ in range(200):
            params = mutate_params(SPACE, start, generator, chance=0.9, spread=0.5)
            assert ("count" in params) == (params["kind"] == "b")
            assert all(SPACE[name].contains(value) for name, value in params.items())

    def test_encoded(self) -> None:
        """Two choices are at distance 1, a log axis is even in the logarithm, inactive is the middle."""
        encoding = Encoding(SPACE)
        first = encoding.encode({"kind": "a", "rate": 0.1})
        other = encoding.encode({"kind": None, "rate": 0.1})
        assert np.linalg.norm(first - other) == pytest.approx(1)
        assert first[3:] == pytest.approx([0.5, 0.5])
        assert encoding.encode({"kind": "b", "rate": 1.0, "count": 4})[3:] == pytest.approx([1, 1])
