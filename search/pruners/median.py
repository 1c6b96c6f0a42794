"""The median pruner over curves that are kept as numbers: what Optuna's decides, at a cost that does not grow with the study.

Optuna's own one is handed every complete trial, with all that is known of it, after every epoch. Here the metrics of the
complete trials are read once, by epoch, and then only those of trials that ended since the last look.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from search.pruners.lenient import noise_of
from spaces.config import Direction
from spaces.study import PrunerConfig
from storage.curves import Complete
from storage.store import Store


class Peers:
    """The complete trials of a study, by epoch. A trial that somebody else told Optuna of is none of them."""

    def __init__(self, store: Store, study_id: int) -> None:
        self._store, self._study_id = store, study_id
        self._known: set[int] = set()
        self._seen_until: float | None = None
        self._at: dict[int, array[float]] = defaultdict(lambda: array("d"))

    def __len__(self) -> int:
        return len(self._known)

    def refresh(self) -> None:
        """Take up those that ended since.

        Raises:
            StoreError: when the database fails; the next call makes up for it.
        """
        if self._seen_until is None:
            self.add(self._store.complete(self._study_id))
        else:
            self.add(self._store.complete_since(self._study_id, self._seen_until, self._known))

    def add(self, found: Complete) -> None:
        """Take up what was read."""
        self._known |= found.trial_ids
        self._seen_until = found.seen_until
        for epoch, metric in found.points:
            self._at[epoch].append(metric)

    def at(self, epoch: int) -> list[float]:
        """Their metrics at one epoch, of those that have one."""
        return self._at[epoch].tolist() if epoch in self._at else []

    def median(self, epoch: int) -> float:
        """NaN when none of them has a number there."""
        metrics = np.array(self._at[epoch]) if epoch in self._at else np.empty(0)
        metrics = metrics[~np.isnan(metrics)]
        with np.errstate(invalid="ignore"):  # between −∞ and ∞
            return float(np.percentile(metrics, 50)) if metrics.size else math.nan


def falls_short(own: Mapping[int, float], peers: Peers, pruner: PrunerConfig, direction: Direction) -> bool:
    """Whether Optuna's `MedianPruner`, within `LenientPruner` where the setting has a margin, would prune a trial.

    Args:
        own: the trial's metrics by epoch.
        peers: as they are now.
    """
    if not own or len(peers) == 0 or len(peers) < pruner.startup_trials or max(own) <= pruner.warmup_epochs:
        return False
    numbers = [metric for metric in own.values() if not math.isnan(metric)]
    if not numbers:
        return True
    gain, middle = pruner.noise * noise_of(own) if pruner.noise else 0.0, peers.median(max(own))
    return max(numbers) + gain < middle if direction == "maximize" else min(numbers) - gain > middle
