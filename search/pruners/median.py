"""The median pruner over stored curves, with Optuna's decisions at a cost that stays constant.

Optuna's median pruner gets every complete trial, with all that is known of it, after every epoch.
Here the metrics of the complete trials are read once, sorted by epoch, and afterwards only those of
trials that have ended since.
"""

from __future__ import annotations

import math
from array import array
from bisect import insort
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from search.pruners.noise_margin import noise_of_reports
from spaces.config import Direction
from spaces.study import PrunerConfig
from storage.repositories.peer_curves import Complete
from storage.store import Store

MANY = 1_000
"""Number of new metrics above which they are sorted together instead of inserted one by one."""


class Peers:
    """Metrics of a study's complete trials, kept sorted per epoch so that a median is O(1).

    Trials from other programs are excluded.

    Args:
        store: an open store.
        study_id: of the study in the store.
    """

    def __init__(self, store: Store, study_id: int) -> None:
        self._store = store
        self._study_id = study_id
        self._known: set[int] = set()
        self._seen_until: float | None = None
        self._metrics: dict[int, array[float]] = defaultdict(lambda: array("d"))

    def __len__(self) -> int:
        return len(self._known)

    def refresh(self) -> None:
        """Read the trials that have ended since the last call.

        Raises:
            StoreError: when the database fails; the next call reads what is missing.
        """
        curves = self._store.peer_curves
        if self._seen_until is None:
            self.add_curves(curves.complete_curves(self._study_id))
        else:
            self.add_curves(curves.complete_since(self._study_id, self._seen_until, self._known))

    def add_curves(self, found: Complete) -> None:
        """Add the curves of trials that were read; metrics that are NaN are left out."""
        self._known |= found.trial_ids
        self._seen_until = found.seen_until
        points = [point for point in found.points if not math.isnan(point[1])]
        if len(found.points) > MANY:
            self._merge_points(points)
            return
        for epoch, metric in points:
            insort(self._metrics[epoch], metric)

    def _merge_points(self, points: Sequence[tuple[int, float]]) -> None:
        by_epoch: dict[int, list[float]] = defaultdict(list)
        for epoch, metric in points:
            by_epoch[epoch].append(metric)
        for epoch, metrics in by_epoch.items():
            self._metrics[epoch] = array("d", sorted([*self._metrics[epoch], *metrics]))

    def metrics_at(self, epoch: int) -> Sequence[float]:
        """The metrics at an epoch in ascending order, of the trials that have a number there."""
        return self._metrics.get(epoch, ())

    def median_at(self, epoch: int) -> float:
        """The median of the metrics at an epoch; NaN where there are none.

        It equals `numpy.percentile` of all metrics to the last bit, computed from the middle ones.
        """
        metrics = self.metrics_at(epoch)
        if not metrics:
            return math.nan
        middle = len(metrics) // 2
        around = metrics[max(0, middle - 1) : middle + 1 + len(metrics) % 2]
        with np.errstate(invalid="ignore"):  # between −∞ and ∞
            return float(np.percentile(around, 50))


def falls_short(
    own: Mapping[int, float], peers: Peers, pruner: PrunerConfig, direction: Direction
) -> bool:
    """Whether Optuna's `MedianPruner` would prune a trial, with the margin of `LenientPruner`.

    Args:
        own: the trial's metrics by epoch.
        peers: the metrics of the complete trials.
        pruner: configuration of the pruner.
        direction: of the metric.
    """
    if not own or len(peers) == 0 or len(peers) < pruner.startup_trials:
        return False
    if max(own) <= pruner.warmup_epochs:
        return False
    numbers = [metric for metric in own.values() if not math.isnan(metric)]
    if not numbers:
        return True
    gain = pruner.noise * noise_of_reports(own) if pruner.noise else 0.0
    middle = peers.median_at(max(own))
    if direction == "maximize":
        return max(numbers) + gain < middle
    return min(numbers) - gain > middle
