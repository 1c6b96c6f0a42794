"""Replay of recorded trials through Optuna's own pruner, over a study in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from search.pruners.build import pruner_from_config
from spaces.config import Direction
from spaces.records import EpochRecord
from spaces.study import PrunerConfig


@dataclass(frozen=True, slots=True)
class ReplayedTrial:
    """A recorded trial for the pruner.

    Attributes:
        records: of all its epochs.
        killed_after: number of records after which a signal ends it; None where none fires.
        score: of the complete trial; None where the recorded trial was cut short, so that it is not
            a peer.
    """

    number: int
    records: Sequence[EpochRecord]
    killed_after: int | None
    score: float | None


def replay_peers(
    trials: Sequence[ReplayedTrial],
    pruner: PrunerConfig,
    epochs: int,
    direction: Direction,
    name: str,
) -> dict[int, int]:
    """Replay trials one after the other in the order given, as a single worker runs them.

    Args:
        trials: the recorded trials.
        pruner: configuration of the pruner.
        epochs: of a complete trial.
        direction: of the metric.
        name: of the study. Hyperband assigns brackets by number and by this name; for it, missing
            numbers are replayed as failed trials.

    Returns:
        Number of each pruned trial → number of its records up to the pruning.
    """
    with _quiet_optuna():
        sampler = optuna.samplers.RandomSampler(seed=0)  # nothing is sampled
        study = optuna.create_study(
            study_name=name,
            direction=direction,
            sampler=sampler,
            pruner=pruner_from_config(pruner, epochs),
        )
        pruned = {}
        for replayed in trials:
            trial = study.ask()
            while trial.number < replayed.number and pruner.kind == "hyperband":
                study.tell(trial, state=TrialState.FAIL)
                trial = study.ask()
            after = _pruned_after(trial, replayed, epochs)
            _finish_trial(study, trial, replayed, after)
            if after is not None:
                pruned[replayed.number] = after
        return pruned


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _pruned_after(trial: optuna.Trial, replayed: ReplayedTrial, epochs: int) -> int | None:
    """The number of records after which the pruner ends the trial; None where it does not.

    As in `search.worker.trial`, every metric is reported, and the pruner is asked where no signal
    fires and epochs are left.
    """
    for seen, record in enumerate(replayed.records, 1):
        if not math.isnan(record.metric):
            trial.report(record.metric, record.epoch)
        if seen == replayed.killed_after:
            return None
        if record.epoch < epochs and trial.should_prune():
            return seen
    return None


def _finish_trial(
    study: optuna.Study, trial: optuna.Trial, replayed: ReplayedTrial, pruned_after: int | None
) -> None:
    score = replayed.score
    if pruned_after is not None or replayed.killed_after is not None or score is None:
        study.tell(trial, state=TrialState.PRUNED)
    elif math.isnan(score):
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, score)
