"""Where the signals and a peer pruner stop recorded trials, replayed one after the other.

The peers of a trial are the complete ones before it that nothing stopped, for the signals, which
compare trials before they end one, as for the pruner.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from search.pruners.signals import find_divergence
from search.pruners.sparing import score_so_far, spare_by_course, spare_by_peers
from search.replay.pruner import PrunerReplay, Stop, Stops
from spaces.config import Direction, MetricConfig
from spaces.records import EpochRecord
from spaces.study import PrunerConfig
from spaces.thresholds import SignalsConfig, Sparing


class Firing(NamedTuple):
    """A signal that fires and does not spare the trial for its own course.

    Attributes:
        seen: number of the trial's records up to it.
        best: score of the trial so far; None where it has none.
    """

    seen: int
    epoch: int
    signal: str
    best: float | None


@dataclass(frozen=True, slots=True)
class ReplayedTrial:
    """A recorded trial for the signals and the pruner.

    Attributes:
        records: of all its epochs.
        firings: of the signals, in order.
        score: of the complete trial; None where the recorded trial was cut short, so that it is not
            a peer.
    """

    number: int
    records: Sequence[EpochRecord]
    firings: Iterable[Firing]
    score: float | None


def find_firings(
    records: Sequence[EpochRecord],
    signals: SignalsConfig,
    metric: MetricConfig,
    epochs: int,
    judged_after: Iterable[int] | None = None,
) -> Iterator[Firing]:
    """The signals that fire, judged after every epoch as in a running study, but for the peers.

    Args:
        records: of one trial.
        signals: which signals are enabled, and their thresholds.
        metric: of the study.
        epochs: of a complete trial.
        judged_after: numbers of records after which alone it is judged; None for all.
    """
    direction = metric.direction
    for seen in range(1, len(records) + 1) if judged_after is None else judged_after:
        past = records[:seen]
        found = find_divergence(past, signals, direction)
        if found is None:
            continue
        if spare_by_course(found.signal, past, signals.sparing, epochs, direction) is None:
            yield Firing(seen, past[-1].epoch, found.signal, score_so_far(past, metric))


def find_unspared(
    records: Sequence[EpochRecord], sparing: Sparing, direction: Direction, epochs: int
) -> list[int]:
    """The numbers of records after which a trial's own course does not spare it.

    Only there signals on epochs can end it, whatever their thresholds.
    """
    return [
        seen
        for seen in range(1, len(records) + 1)
        if spare_by_course("", records[:seen], sparing, epochs, direction) is None
    ]


def replay_trials(
    trials: Sequence[ReplayedTrial],
    sparing: Sparing,
    pruner: PrunerConfig,
    epochs: int,
    direction: Direction,
    name: str,
) -> Stops:
    """Replay trials one after the other in the order given, as a single worker runs them.

    Args:
        trials: the recorded trials.
        sparing: which trials the signals spare.
        pruner: configuration of the pruner.
        epochs: of a complete trial.
        direction: of the metric.
        name: of the study. Hyperband assigns brackets by number and by this name; for it, missing
            numbers are replayed as failed trials.
    """
    peers = ReplayedPeers(sparing, direction)
    pruning = None if pruner.kind == "none" else PrunerReplay(pruner, epochs, direction, name)
    stops: Stops = {}
    for trial in trials:
        stop = peers.find_stop(trial)
        if pruning is not None:
            stop = pruning.replay_trial(trial.number, trial.records, trial.score, stop)
        if stop is None:
            peers.add(trial)
        else:
            stops[trial.number] = stop
    return stops


class ReplayedPeers:
    """The metrics of the complete trials so far, for the signals.

    Args:
        sparing: which trials the signals spare.
        direction: of the metric.
    """

    def __init__(self, sparing: Sparing, direction: Direction) -> None:
        self._sparing = sparing
        self._direction = direction
        self._metrics: dict[int, list[float]] = defaultdict(list)

    def find_stop(self, trial: ReplayedTrial) -> Stop | None:
        """Find where the signals stop a trial, compared with the peers so far."""
        for firing in trial.firings:
            metrics = self._metrics[firing.epoch]
            spared = spare_by_peers(
                firing.signal, firing.best, metrics, self._sparing, self._direction
            )
            if spared is None:
                return Stop(firing.seen, firing.signal)
        return None

    def add(self, trial: ReplayedTrial) -> None:
        """Add a trial that nothing stopped, if it is complete."""
        if trial.score is None or math.isnan(trial.score):
            return
        for record in trial.records:
            if not math.isnan(record.metric):
                insort(self._metrics[record.epoch], record.metric)
