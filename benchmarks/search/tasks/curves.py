"""The surrogate of a campaign: a configuration's mean learning curve, and the noise around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.campaign import records
from benchmarks.search.tasks.gaussian_process import GaussianProcess, Hyperparameters
from spaces.recordings import RecordedTrial, read_recording

COMPONENTS = 4
"""Principal components of the running-best curves; they explain 98 to 99% of the variance."""

NEIGHBORS = 3

SHAPE_OFFSET = 0.02
"""Share of the best score that is added before logarithms of curves that begin near 0."""

LOWEST_SHARE = 0.25
"""Scores below this share of the best count as this much when relative noise is estimated."""


def pad_metrics(trial: RecordedTrial, epochs: int) -> np.ndarray:
    """The metric after each epoch; 0 where it is not finite and after a diverged trial's end."""
    metrics = np.zeros(epochs)
    for record in trial.epochs[:epochs]:
        if math.isfinite(record.metric):
            metrics[record.epoch - 1] = record.metric
    return metrics


class MeanCurves:
    """Running-best curves as a function of the configuration.

    Each principal component of the recorded curves is a Gaussian process over the coordinates.

    Args:
        points: coordinates of the recorded configurations, shape (trials, columns).
        metrics: recorded, shape (trials, epochs); maximized and never below 0.
        groups: the dimension of each column.
        fitted: hyperparameters of each component; None: found now.
    """

    def __init__(
        self,
        points: np.ndarray,
        metrics: np.ndarray,
        groups: np.ndarray,
        fitted: list[Hyperparameters] | None = None,
    ) -> None:
        self.running = np.maximum.accumulate(metrics, axis=1)
        self._mean = self.running.mean(0)
        left, sizes, right = np.linalg.svd(self.running - self._mean, full_matrices=False)
        self._basis = right[:COMPONENTS]
        chosen: Sequence[Hyperparameters | None] = fitted or [None] * COMPONENTS
        self.parts = [
            GaussianProcess(points, left[:, index] * sizes[index], groups, chosen[index])
            for index in range(COMPONENTS)
        ]

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The mean running-best curves of coordinates, shape (rows, epochs)."""
        return self._compose(np.stack([part.predict(rows) for part in self.parts], axis=1))

    def predict_left_out(self) -> np.ndarray:
        """The curve of each recorded trial from all others, shape (trials, epochs)."""
        return self._compose(np.stack([part.predict_left_out() for part in self.parts], axis=1))

    def shapes(self, points: np.ndarray) -> np.ndarray:
        """What the mean curves miss of the recorded curves' shapes, shape (trials, epochs).

        Log of recorded over mean, minus that of the last epoch: 0 there, largest in early epochs.
        """
        offset = SHAPE_OFFSET * float(self.running.max())
        logs = np.log((self.running + offset) / (self.predict(points) + offset))
        return logs - logs[:, -1:]

    def _compose(self, scores: np.ndarray) -> np.ndarray:
        curves = np.clip(self._mean + scores @ self._basis, 0, 1)
        return np.maximum.accumulate(curves, axis=1)


def estimate_noise(points: np.ndarray, finals: np.ndarray, groups: np.ndarray) -> float:
    """The relative standard deviation of final scores that no function of the coordinates explains.

    It is the noise of a Gaussian process on their logarithms.
    """
    logs = np.log(np.maximum(finals, LOWEST_SHARE * finals.max()))
    process = GaussianProcess(points, logs, groups)
    return process.fitted.noise * process.spread


@dataclass(frozen=True)
class SeedNoise:
    """What repeating a training with other seeds changes.

    Attributes:
        residuals: log of a running-best curve minus its preset's mean, shape (repeats, epochs).
        deviation: standard deviation of the last epoch's.
    """

    residuals: np.ndarray
    deviation: float

    @classmethod
    def read(cls, epochs: int) -> SeedNoise:
        """Read it from the recorded repeats of the presets; of 30 epochs, stretched to others."""
        recording = read_recording(records("presets"))
        recorded = max(len(trial.epochs) for trial in recording.trials)
        groups: dict[str, list[np.ndarray]] = {}
        for trial in recording.trials:
            groups.setdefault(trial.preset, []).append(pad_metrics(trial, recorded))
        parts = []
        for curves in groups.values():
            logs = np.log(np.maximum.accumulate(np.stack(curves), axis=1))
            unbiased = math.sqrt(len(curves) / (len(curves) - 1))
            parts.append((logs - logs.mean(0)) * unbiased)
        residuals = np.concatenate(parts)
        places = np.linspace(0, recorded - 1, epochs)
        stretched = [np.interp(places, np.arange(recorded), row) for row in residuals]
        return cls(np.stack(stretched), float(residuals[:, -1].std()))

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """A residual curve of this noise: two recorded ones, mixed at a random angle."""
        first, second = self.residuals[generator.integers(len(self.residuals), size=2)]
        angle = generator.uniform(0, 2 * math.pi)
        return math.cos(angle) * first + math.sin(angle) * second
