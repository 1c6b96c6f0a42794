"""What a task is: a space, a curve for each configuration, and the true score behind the curve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from spaces.config import Direction
from spaces.parameters import Parameter, Scalar

Params = dict[str, Scalar]
"""Dimension → value, of the dimensions that are active."""


class Task(ABC):
    """A search task whose trainings cost nothing.

    Attributes:
        name: of the task.
        epochs: of a complete trial.
        direction: of the metric.
        space: dimension → what it can be, in an order in which conditions can be decided.
        presets: configurations that a method may try first; may be empty.
        fixed: values of the configuration that are not searched, by dotted path.
        best: the best true score, found by a long search.
        median: the true score of the median random configuration.
        version: changes with the curves, which makes earlier results invalid.
        regret_unit: `percent`: of the best score; `normalized`: 0 the best, 100 the median.
    """

    name: str
    epochs: int
    direction: Direction = "maximize"
    space: Mapping[str, Parameter]
    presets: Sequence[Params] = ()
    fixed: Mapping[str, Any] = {}
    best: float
    median: float
    version: str = "1"
    regret_unit: Literal["percent", "normalized"] = "percent"

    @abstractmethod
    def curve(self, params: Mapping[str, Scalar], seed: int) -> list[float]:
        """The metric after each epoch, with the noise of a seed; the same for the same arguments.

        Args:
            params: the active dimensions; others are ignored.
            seed: of the training.

        Returns:
            As many metrics as a complete trial has epochs; NaN after a divergence.
        """

    @abstractmethod
    def true_score(self, params: Mapping[str, Scalar]) -> float:
        """The best metric over all epochs, without the noise of a seed."""

    def description(self) -> dict[str, Any]:
        """Facts for the report: how it was made, and how good its surrogate is."""
        return {"best": self.best, "median": self.median}

    def regret(self, params: Mapping[str, Scalar]) -> float:
        """How far a configuration is from the best, in the task's unit; never below 0."""
        gap = abs(self.best - self.true_score(params))
        if self.is_better(self.true_score(params), self.best):
            return 0.0
        scale = abs(self.best) if self.regret_unit == "percent" else abs(self.best - self.median)
        return 100 * gap / scale

    def is_better(self, score: float, other: float) -> bool:
        """Whether the first of two scores is strictly better."""
        return score > other if self.direction == "maximize" else score < other
