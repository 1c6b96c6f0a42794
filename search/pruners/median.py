"""The median pruner over curves that are kept as numbers: what Optuna's decides, at a cost that does not grow with the study.

Optuna's own one is handed every complete trial, with all that is known of it, after every epoch. Here the metrics of the
complete trials are read once, by epoch, and then only those of trials that ended since the last look.
"""

from __future__ import annotations

import math
from array import array
from bisect import insort
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from search.pruners.noise_margin import noise_of
from spaces.config import Direction
from spaces.study import PrunerConfig
from storage.repositories.peer_curves import Complete
from storage.store import Store

MANY = 1_000
"""More new metrics than this are sorted in at once, and not one by one."""


class Peers:
    """The complete trials of a study, by epoch, so kept that a median needs no look at most of them. A trial that somebody else told Optuna of is none of them."""

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
            self.add(self._store.peer_curves.complete_curves(self._study_id))
        else:
            self.add(
                self._store.peer_curves.complete_since(
                    self._study_id, self._seen_until, self._known
                )
            )

    def add(self, found: Complete) -> None:
        """Take up what was read."""
        self._known |= found.trial_ids
        self._seen_until = found.seen_until
        if len(found.points) > MANY:
            self._add_many(found.points)
            return
        for epoch, metric in found.points:
            if not math.isnan(metric):
                insort(self._at[epoch], metric)

    def _add_many(self, points: Sequence[tuple[int, float]]) -> None:
        more: dict[int, list[float]] = defaultdict(list)
        for epoch, metric in points:
            if not math.isnan(metric):
                more[epoch].append(metric)
        for epoch, metrics in more.items():
            self._at[epoch] = array("d", sorted([*self._at[epoch], *metrics]))

    def at(self, epoch: int) -> Sequence[float]:
        """Their metrics at one epoch, in ascending order, of those that have a number there."""
        return self._at.get(epoch, ())

    def median(self, epoch: int) -> float:
        """NaN when none of them has a number there; else what numpy makes of the whole, to the last bit, from those in the middle."""
        metrics = self.at(epoch)
        if not metrics:
            return math.nan
        middle = len(metrics) // 2
        with np.errstate(invalid="ignore"):  # between −∞ and ∞
            return float(
                np.percentile(metrics[max(0, middle - 1) : middle + 1 + len(metrics) % 2], 50)
            )


def falls_short(
    own: Mapping[int, float], peers: Peers, pruner: PrunerConfig, direction: Direction
) -> bool:
    """Whether Optuna's `MedianPruner`, within `LenientPruner` where the setting has a margin, would prune a trial.

    Args:
        own: the trial's metrics by epoch.
        peers: as they are now.
    """
    if (
        not own
        or len(peers) == 0
        or len(peers) < pruner.startup_trials
        or max(own) <= pruner.warmup_epochs
    ):
        return False
    numbers = [metric for metric in own.values() if not math.isnan(metric)]
    if not numbers:
        return True
    gain, middle = pruner.noise * noise_of(own) if pruner.noise else 0.0, peers.median(max(own))
    return max(numbers) + gain < middle if direction == "maximize" else min(numbers) - gain > middle
