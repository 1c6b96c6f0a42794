"""The data that a worker keeps between trials: those of the trial at hand, whatever went wrong with those of the one before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from search.worker.context import Bench
from spaces.errors import StoreUnreachableError
from spaces.records import ClassCounts


class Data:
    """An objective's data, and a store that keeps no class counts and may be away: both know only names."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.away = False

    def prepare(self, config: Any, device: str) -> str:
        self.made.append(config.name)
        return f"data of {config.name}"

    def fingerprint(self, config: Any) -> str:
        return str(config.name)

    def count_classes(self, config: Any) -> ClassCounts:
        return ClassCounts((config.name,), (1,))

    @property
    def class_counts(self) -> Data:
        return self

    def find_counts(self, key: str) -> None:
        if self.away:
            raise StoreUnreachableError("the store cannot be reached")

    def save_counts(self, key: str, counts: ClassCounts) -> None:
        """They are counted again each time."""


def config(name: str) -> Any:
    """A configuration that asks for these data."""
    return SimpleNamespace(name=name)


@pytest.fixture
def data() -> Data:
    """Nothing made yet."""
    return Data()


@pytest.fixture
def bench(data: Data) -> Bench:
    """With the data of a at hand."""
    nothing, store, trainer = cast(Any, None), cast(Any, data), cast(Any, data)
    plan = cast(
        Any, SimpleNamespace(objective=SimpleNamespace(data_key=lambda config: config.name))
    )
    return Bench(
        store,
        nothing,
        nothing,
        nothing,
        plan,
        trainer,
        "data of a",
        ClassCounts(("a",), (1,)),
        "cpu",
        nothing,
        nothing,
        data_key="a",
    )


class TestPrepare:
    def test_same(self, bench: Bench, data: Data) -> None:
        """Data that are at hand are not made again."""
        bench.prepare(config("a"))
        assert (bench.prepared, data.made) == ("data of a", [])

    def test_other(self, bench: Bench) -> None:
        """Other data come with class counts of their own."""
        bench.prepare(config("b"))
        assert (bench.prepared, bench.counts.names) == ("data of b", ("b",))

    def test_broken_off(self, bench: Bench, data: Data) -> None:
        """When other data could not be had to the end, the next trial does not go on with half of them, nor with none."""
        data.away = True
        with pytest.raises(StoreUnreachableError):
            bench.prepare(config("b"))
        data.away = False
        bench.prepare(config("a"))
        assert (bench.prepared, bench.counts.names) == ("data of a", ("a",))
