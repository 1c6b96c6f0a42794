"""A small task with a known optimum: every method that learns has to solve it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from benchmarks.search.tasks.base import Task
from spaces.parameters import Choice, FloatRange, Scalar


class PlantedTask(Task):
    """The score falls with the squared distance from `lr = 0.03, weight = 0.7, kind = focal`.

    Args:
        noise: standard deviation of the scores over seeds.
    """

    def __init__(self, noise: float = 0.005) -> None:
        self.name, self.epochs = "planted", 9
        self.space = {
            "lr": FloatRange(kind="float", low=1e-4, high=1.0, log=True),
            "weight": FloatRange(kind="float", low=0.0, high=1.0),
            "kind": Choice(kind="choice", choices=("ce", "focal")),
            "gamma": FloatRange(kind="float", low=0.0, high=5.0, when={"kind": "focal"}),
        }
        self.best, self.median = 0.9, 0.5
        self.noise = noise

    def true_score(self, params: Mapping[str, Scalar]) -> float:
        """0.9 at the optimum; never below 0.05."""
        rate, weight = float(params["lr"]), float(params["weight"])  # type: ignore[arg-type]
        gamma = float(params.get("gamma", 0.0))  # type: ignore[arg-type]
        distance = (
            (math.log10(rate / 0.03) / 2) ** 2
            + (weight - 0.7) ** 2
            + (0.05 if params["kind"] == "ce" else 0.002 * (gamma - 2) ** 2)
        )
        return max(0.05, 0.9 - distance)

    def curve(self, params: Mapping[str, Scalar], seed: int) -> list[float]:
        """A saturating curve up to the true score, plus noise."""
        noise = np.random.default_rng(seed).normal(0, self.noise, self.epochs)
        epochs = np.arange(1, self.epochs + 1)
        shape = (1 - np.exp(-epochs / 3)) / (1 - math.exp(-self.epochs / 3))
        return [float(value) for value in self.true_score(params) * shape + noise]
