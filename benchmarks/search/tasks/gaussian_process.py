"""A Gaussian process with a length per dimension, fitted once and then only evaluated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize

LENGTH_SD, SCALE_SD, NOISE_SD = 0.8, 0.6, 1.0
"""Standard deviations of the log-normal priors of lengths, scale and noise."""

MEDIAN_LENGTH, MEDIAN_NOISE = 0.35, 0.3
"""Their medians: a length is in units of √dimensions, the noise in those of the targets."""

CONSTANT, JITTER = 4.0, 1e-6


@dataclass(frozen=True)
class Hyperparameters:
    """Of a fitted process, for targets of mean 0 and standard deviation 1.

    Attributes:
        lengths: of each dimension.
        scale: standard deviation of the function.
        noise: standard deviation of the noise.
    """

    lengths: tuple[float, ...]
    scale: float
    noise: float


class GaussianProcess:
    """Matern 5/2 with automatic relevance determination, a constant mean and constant noise.

    Args:
        points: shape (points, columns).
        targets: shape (points,).
        groups: the dimension of each column, shape (columns,).
        fitted: hyperparameters; None: found by maximum a posteriori.
    """

    def __init__(
        self,
        points: np.ndarray,
        targets: np.ndarray,
        groups: np.ndarray,
        fitted: Hyperparameters | None = None,
    ) -> None:
        self.center, self.spread = float(targets.mean()), float(targets.std()) or 1.0
        scaled = (targets - self.center) / self.spread
        self.fitted = fitted or fit_hyperparameters(points, scaled, groups)
        self._lengths = np.array(self.fitted.lengths)[groups]
        self.points = points / self._lengths
        kernel = self._kernel(self.points) + np.eye(len(points)) * (self.fitted.noise**2 + JITTER)
        inverse = np.linalg.inv(kernel)
        self._weights = inverse @ scaled
        self._left_out = scaled - self._weights / np.diag(inverse)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The posterior mean at rows of shape (rows, columns)."""
        return self.center + self.spread * (self._kernel(rows / self._lengths) @ self._weights)

    def predict_left_out(self) -> np.ndarray:
        """The prediction of each point from all others, with the same hyperparameters."""
        return self.center + self.spread * self._left_out

    def nearest(self, row: np.ndarray, count: int) -> np.ndarray:
        """The indices of the nearest points by the fitted lengths."""
        squares = ((self.points - row / self._lengths) ** 2).sum(1)
        return np.argpartition(squares, count)[:count]

    def _kernel(self, rows: np.ndarray) -> np.ndarray:
        squares = (rows**2).sum(1)[:, None] + (self.points**2).sum(1) - 2 * rows @ self.points.T
        distance = np.sqrt(5 * np.maximum(squares, 0))
        decay = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return self.fitted.scale**2 * decay + CONSTANT


def fit_hyperparameters(
    points: np.ndarray, targets: np.ndarray, groups: np.ndarray
) -> Hyperparameters:
    """Find the hyperparameters of the largest posterior density by L-BFGS.

    Args:
        points: shape (points, columns).
        targets: of mean 0 and standard deviation 1, shape (points,).
        groups: the dimension of each column, shape (columns,).
    """
    dimensions = int(groups.max()) + 1
    squares = torch.stack(
        [_squared_distances(points[:, groups == group]) for group in range(dimensions)]
    )
    values = torch.tensor(targets)
    start = np.zeros(dimensions + 2)
    start[:dimensions] = math.log(MEDIAN_LENGTH * math.sqrt(dimensions))
    start[-1] = math.log(MEDIAN_NOISE)
    spreads = torch.tensor([LENGTH_SD] * dimensions + [SCALE_SD, NOISE_SD], dtype=torch.float64)

    def loss(position: np.ndarray) -> tuple[float, np.ndarray]:
        logs = torch.tensor(position, requires_grad=True)
        prior = 0.5 * (((logs - torch.tensor(start)) / spreads) ** 2).sum()
        found = _negative_log_likelihood(logs, squares, values) + prior
        found.backward()
        assert logs.grad is not None
        return float(found.detach()), logs.grad.numpy()

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    rounded = [float(f"{value:.6g}") for value in np.exp(found)]
    return Hyperparameters(tuple(rounded[:dimensions]), rounded[-2], rounded[-1])


def _squared_distances(columns: np.ndarray) -> torch.Tensor:
    return torch.tensor(((columns[:, None] - columns[None]) ** 2).sum(-1))


def _negative_log_likelihood(
    logs: torch.Tensor, squares: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    lengths, scale, noise = torch.exp(logs[:-2]), torch.exp(logs[-2]), torch.exp(logs[-1])
    distance = torch.sqrt(5 * (squares / (lengths**2)[:, None, None]).sum(0) + 1e-12)
    kernel = scale**2 * (1 + distance + distance**2 / 3) * torch.exp(-distance) + CONSTANT
    kernel = kernel + (noise**2 + JITTER) * torch.eye(len(values), dtype=torch.float64)
    factor = torch.linalg.cholesky(kernel)
    weights = torch.cholesky_solve(values[:, None], factor)[:, 0]
    return 0.5 * values @ weights + torch.log(torch.diagonal(factor)).sum()
