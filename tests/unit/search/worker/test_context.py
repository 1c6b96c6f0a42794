"""The data that a worker caches between trials."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from search.worker.context import WorkerContext
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
    """Nothing is loaded yet."""
    return Data()


@pytest.fixture
def context(data: Data) -> WorkerContext:
    """With the data of a loaded."""
    nothing, store, trainer = cast(Any, None), cast(Any, data), cast(Any, data)
    plan = cast(
        Any, SimpleNamespace(objective=SimpleNamespace(data_key=lambda config: config.name))
    )
    return WorkerContext(
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


class TestLoadData:
    def test_same(self, context: WorkerContext, data: Data) -> None:
        """Data that are loaded are not loaded again."""
        context.load_data(config("a"))
        assert (context.prepared, data.made) == ("data of a", [])

    def test_other(self, context: WorkerContext) -> None:
        """Other data have their own class counts."""
        context.load_data(config("b"))
        assert (context.prepared, context.counts.names) == ("data of b", ("b",))

    def test_broken_off(self, context: WorkerContext, data: Data) -> None:
        """When loading other data fails, the next trial loads its data again."""
        data.away = True
        with pytest.raises(StoreUnreachableError):
            context.load_data(config("b"))
        data.away = False
        context.load_data(config("a"))
        assert (context.prepared, context.counts.names) == ("data of a", ("a",))
