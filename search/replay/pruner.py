"""Replay of recorded trials through Optuna's own pruner, over a study in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import optuna
from optuna.trial import TrialState

from search.pruners.build import pruner_from_config
from spaces.config import Direction
from spaces.records import EpochRecord
from spaces.study import PrunerConfig


class Stop(NamedTuple):
    """Where a rule stops a trial.

    Attributes:
        seen: number of the trial's records up to the stop.
        by: the signal or the pruner.
    """

    seen: int
    by: str


Stops = dict[int, Stop]
"""Number of a stopped trial → where it is stopped."""


class PrunerReplay:
    """Optuna's pruner over a study in memory, through which trials go in the order of the calls.

    Args:
        pruner: configuration of the pruner.
        epochs: of a complete trial.
        direction: of the metric.
        name: of the study. Hyperband assigns brackets by number and by this name; for it, missing
            numbers are replayed as failed trials.
    """

    def __init__(self, pruner: PrunerConfig, epochs: int, direction: Direction, name: str) -> None:
        self._pruner = pruner
        self._epochs = epochs
        with _quiet_optuna():
            self._study = optuna.create_study(
                study_name=name,
                direction=direction,
                sampler=optuna.samplers.RandomSampler(seed=0),  # nothing is sampled
                pruner=pruner_from_config(pruner, epochs),
            )

    def replay_trial(
        self,
        number: int,
        records: Sequence[EpochRecord],
        score: float | None,
        signal_stop: Stop | None,
    ) -> Stop | None:
        """Find where a trial is stopped: by the pruner, or by a signal before that.

        Args:
            number: of the trial.
            records: of all its epochs.
            score: of the complete trial; None where the recorded trial was cut short, so that it is
                not a peer.
            signal_stop: where a signal would end it.
        """
        with _quiet_optuna():
            trial = self._study.ask()
            while trial.number < number and self._pruner.kind == "hyperband":
                self._study.tell(trial, state=TrialState.FAIL)
                trial = self._study.ask()
            stop = self._find_stop(trial, records, signal_stop)
            self._finish_trial(trial, score, stop)
        return stop

    def _find_stop(
        self, trial: optuna.Trial, records: Sequence[EpochRecord], signal_stop: Stop | None
    ) -> Stop | None:
        """Find where a trial is stopped.

        As in `search.worker.trial`, every metric is reported, and the pruner is asked where no
        signal ends the trial and epochs are left.
        """
        for seen, record in enumerate(records, 1):
            if not math.isnan(record.metric):
                trial.report(record.metric, record.epoch)
            if signal_stop is not None and seen == signal_stop.seen:
                return signal_stop
            if record.epoch < self._epochs and trial.should_prune():
                return Stop(seen, self._pruner.kind)
        return None

    def _finish_trial(self, trial: optuna.Trial, score: float | None, stop: Stop | None) -> None:
        if stop is not None or score is None:
            self._study.tell(trial, state=TrialState.PRUNED)
        elif math.isnan(score):
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, score)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
