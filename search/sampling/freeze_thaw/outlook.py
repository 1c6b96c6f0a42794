"""What the search expects of the trials of a study, and of those that are still to come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from search.sampling.freeze_thaw.curve_model import CurveModel
from search.sampling.freeze_thaw.curves import Floats, TrialCurve
from search.sampling.freeze_thaw.encoding import Points


class Gain(NamedTuple):
    """By how much the best score is expected to improve, and what that costs.

    Attributes:
        metric: in the metric's unit.
        epochs: that the next step would take in all.
    """

    metric: float
    epochs: int


@dataclass(frozen=True)
class Outlook:
    """What the model expects of the trials of a study.

    Attributes:
        curves: trials with at least one epoch.
        model: the posterior, running trials taken into account.
        points: the configurations of the curves.
        mean_M: expected final normal score of each trial.
        deviation_M: its standard deviation.
        metric_N: the score of each observation of the model, in the metric's unit.
    """

    curves: Sequence[TrialCurve]
    model: CurveModel
    points: Points
    mean_M: Floats
    deviation_M: Floats
    metric_N: Floats

    def rows_in(self, *states: str) -> list[int]:
        """Return the rows of the trials in some states."""
        return [row for row, curve in enumerate(self.curves) if curve.state in states]

    @property
    def reference(self) -> float:
        """The largest expected score of a complete trial; −∞ without one."""
        return max((float(self.mean_M[row]) for row in self.rows_in("complete")), default=-math.inf)

    def chance_to_lead(self, row: int) -> float:
        """The probability that a trial ends above the best expected score."""
        gap = (self.mean_M[row] - self.reference) / self.deviation_M[row]
        return float(ndtr(gap))

    def gain_in_metric(self, gain: float) -> float:
        """Convert an improvement over the best complete trial from normal scores to the metric.

        Between observations the scores are interpolated; above the best one they continue as
        steeply as among the upper half.
        """
        scores = self.model.data.observed.score_N[: len(self.metric_N)]
        order = np.argsort(scores, kind="stable")
        ranked, metrics = scores[order], self.metric_N[order]
        finite = np.isfinite(metrics)
        ranked, metrics = ranked[finite], metrics[finite]
        if len(ranked) < 2:
            return 0.0
        middle = len(ranked) // 2
        slope = abs(metrics[-1] - metrics[middle]) / max(ranked[-1] - ranked[middle], 1e-6)
        here = _interpolate(self.reference, ranked, metrics, slope)
        there = _interpolate(self.reference + gain, ranked, metrics, slope)
        return abs(there - here)


def _interpolate(score: float, ranked: Floats, metrics: Floats, slope: float) -> float:
    beyond = max(0.0, score - ranked[-1])
    sign = 1.0 if metrics[-1] >= metrics[0] else -1.0
    return float(np.interp(score, ranked, metrics) + sign * slope * beyond)


def describe_chance(chance: float) -> str:
    """Describe the chance of a trial, for people."""
    amount = "less than 1%" if chance < 0.01 else f"{chance:.0%}"
    return f"{amount} chance to beat the best complete trial"
