"""How the time of a lap is divided among the calls within it, distinguished by their caller."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any
from unittest import mock

Target = tuple[object, str, str]
"""Owner, name of its attribute, and the label under which its calls are timed."""


class Stopwatch:
    """Time wrapped calls while a lap runs; a call within another is named `outer › inner`."""

    def __init__(self) -> None:
        self.laps_ms: list[float] = []
        self.parts_ms: dict[str, list[float]] = defaultdict(list)
        self._started: float | None = None
        self._stack: list[str] = []
        self._lap: dict[str, float] = defaultdict(float)

    def start(self) -> None:
        """Begin a lap."""
        self._lap.clear()
        self._started = time.perf_counter()

    def stop(self) -> None:
        """End the lap and keep its times; nothing when none was begun."""
        if self._started is None:
            return
        self.laps_ms.append(1000 * (time.perf_counter() - self._started))
        self._started = None
        for path in {*self._lap, *self.parts_ms}:
            parts_ms = self.parts_ms[path]
            parts_ms += [0.0] * (
                len(self.laps_ms) - 1 - len(parts_ms)
            )  # laps in which it was not called
            parts_ms.append(1000 * self._lap.get(path, 0.0))

    def mark(self, label: str) -> None:
        """Note the progress of the lap; only the first time in a lap counts."""
        if self._started is not None:
            self._lap.setdefault(label, time.perf_counter() - self._started)

    def forget(self) -> None:
        """Forget every lap, including the current one."""
        self.laps_ms.clear()
        self.parts_ms.clear()
        self._started = None

    def timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, with its time added to the lap."""

        def call(*args: Any, **options: Any) -> Any:
            self._stack.append(label)
            path, began = " › ".join(self._stack), time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self._stack.pop()
                if self._started is not None and began >= self._started:
                    self._lap[path] += time.perf_counter() - began

        return call

    @contextmanager
    def watching(self, *targets: Target) -> Iterator[None]:
        """Time the targets within the block; a target that no longer exists is left out."""
        with ExitStack() as stack:
            for owner, name, label in targets:
                if hasattr(owner, name):
                    stack.enter_context(
                        mock.patch.object(owner, name, self.timed(label, getattr(owner, name)))
                    )
            yield

    def medians_ms(self) -> dict[str, float]:
        """The median of every part over the laps, outer calls before the inner ones."""
        return {path: round(median(times), 3) for path, times in sorted(self.parts_ms.items())}
