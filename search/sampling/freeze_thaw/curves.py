"""Learning curves of trials as the search sees them, and the scores that its model is fitted on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from spaces.config import MetricConfig
from spaces.parameters import Scalar

CurveState = Literal["running", "paused", "complete", "ended"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrialCurve:
    """A trial of the study: its configuration, and what it has reached.

    Attributes:
        number: of the trial.
        params: sampled values by dotted path.
        scores: epoch → score of the trial if it had ended there; NaN or infinite where it diverged.
        state: `paused` trials wait for a promotion; `ended` ones were stopped for good.
        until_epoch: the epoch to which a running trial is trained; None: the last one.
        restarts: whether a paused trial has lost its checkpoint, so that it starts again.
    """

    number: int
    params: Mapping[str, Scalar]
    scores: Mapping[int, float]
    state: CurveState
    until_epoch: int | None = None
    restarts: bool = False

    @property
    def epoch(self) -> int:
        """The last epoch; 0 before the first one."""
        return max(self.scores, default=0)


def accumulate_scores(metrics: Mapping[int, float], metric: MetricConfig) -> dict[int, float]:
    """Compute the score after each epoch, by the study's rule, from the metric of each epoch."""
    scores: dict[int, float] = {}
    best = math.nan
    pick = max if metric.direction == "maximize" else min
    past: list[float] = []
    for epoch in sorted(metrics):
        value = metrics[epoch]
        past.append(value)
        best = value if math.isnan(best) else pick(best, best if math.isnan(value) else value)
        if metric.score == "last":
            scores[epoch] = value
        elif metric.score == "mean_last_5":
            scores[epoch] = sum(past[-5:]) / len(past[-5:])
        else:
            scores[epoch] = best
    return scores


@dataclass(frozen=True)
class Observations:
    """Scores of trials at some epochs, as the model reads them. N observations of M trials.

    Attributes:
        trial_N: row of the trial, ascending.
        time_N: 0 at the last epoch, 1 at the first: `log(E / epoch) / log(E)`.
        score_N: normal scores, higher is better; standardized by those of the complete trials.
    """

    trial_N: Integers
    time_N: Floats
    score_N: Floats

    def __len__(self) -> int:
        return len(self.trial_N)


def make_observations(
    curves: Sequence[TrialCurve], rungs: Sequence[int], epochs: int, sign: float
) -> Observations:
    """Make the observations of trials that have at least one epoch.

    A complete trial is observed at each rung, any other one at its last epoch alone.

    Args:
        curves: trials with a score.
        rungs: epochs at which trials pause, the last of all included.
        epochs: of a complete trial.
        sign: 1 if a larger score is better, −1 otherwise.
    """
    observed = list_observed(curves, rungs)
    trial_N = np.array([row for row, _ in observed], dtype=np.int64)
    epoch_N = np.array([epoch for _, epoch in observed], dtype=np.float64)
    is_final = np.array(
        [curves[row].state == "complete" and epoch == curves[row].epoch for row, epoch in observed]
    )
    raw_N = np.array([sign * curves[row].scores[epoch] for row, epoch in observed])
    # A complete trial may have stopped early by its own patience: its score is final all the same.
    time_N = np.where(is_final, 0.0, scale_epochs(epoch_N, epochs))
    return Observations(trial_N, time_N, _standardize(rank_to_normal(raw_N), is_final))


def list_observed(curves: Sequence[TrialCurve], rungs: Sequence[int]) -> list[tuple[int, int]]:
    """List the row and the epoch of each observation that `make_observations` makes."""
    found: list[tuple[int, int]] = []
    for row, curve in enumerate(curves):
        seen = [curve.epoch]
        if curve.state == "complete":
            seen = sorted({*(rung for rung in rungs if rung in curve.scores), curve.epoch})
        found += [(row, epoch) for epoch in seen]
    return found


def scale_epochs(epoch_N: Floats, epochs: int) -> Floats:
    """Scale epochs to times: 0 at the last epoch, 1 at the first, logarithmic between them."""
    if epochs == 1:
        return np.zeros_like(epoch_N)
    return np.clip(np.log(epochs / epoch_N) / math.log(epochs), 0.0, 1.0)


def rank_to_normal(score_N: Floats) -> Floats:
    """Replace scores by normal scores: the normal quantiles of their ranks, ties shared.

    One monotone transform for all epochs. A score that is not finite counts as the worst.
    """
    finite = np.isfinite(score_N)
    filled = np.where(finite, score_N, -np.inf)
    ordered = np.sort(filled)
    low = np.searchsorted(ordered, filled, side="left")
    high = np.searchsorted(ordered, filled, side="right")
    count = len(filled)
    share = np.clip((low + high) / (2 * count), 0.5 / count, 1 - 0.5 / count)
    result: Floats = ndtri(share)
    return result


MIN_COMPLETE = 4
"""With fewer complete trials the scores are standardized by those of all observations."""


def _standardize(score_N: Floats, is_final: NDArray[np.bool_]) -> Floats:
    basis = score_N[is_final] if is_final.sum() >= MIN_COMPLETE else score_N
    spread = float(basis.std())
    scaled: Floats = (score_N - basis.mean()) / (spread if spread > 1e-6 else 1.0)
    return scaled
