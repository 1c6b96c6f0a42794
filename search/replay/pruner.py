"""Recorded trials before Optuna's own pruner: the rule that prunes in a study, over a study in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from search.pruners.build import pruner_of
from spaces.config import Direction
from spaces.records import EpochRecord
from spaces.study import PrunerConfig


@dataclass(frozen=True, slots=True)
class Entrant:
    """A trial as the pruner sees it.

    Attributes:
        records: of all its epochs.
        killed_after: so many of them, by a signal; None where none fires.
        score: what it ends with if nothing ends it before; None where the record was cut short, so that it is no peer.
    """

    number: int
    records: Sequence[EpochRecord]
    killed_after: int | None
    score: float | None


def replay_peers(
    entrants: Sequence[Entrant], pruner: PrunerConfig, epochs: int, direction: Direction, name: str
) -> dict[int, int]:
    """Number of every pruned trial → how many of its records it lived to see.

    Trials run one after the other in the order given, as one worker would run them. For Hyperband, which deals its
    brackets by number and by the study's `name`, numbers that are missing are those of failed trials.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        sampler = optuna.samplers.RandomSampler(seed=0)  # nothing is sampled
        study = optuna.create_study(
            study_name=name, direction=direction, sampler=sampler, pruner=pruner_of(pruner, epochs)
        )
        pruned = {}
        for entrant in entrants:
            trial = study.ask()
            while trial.number < entrant.number and pruner.kind == "hyperband":
                study.tell(trial, state=TrialState.FAIL)
                trial = study.ask()
            after = _pruned_after(trial, entrant, epochs)
            _end(study, trial, entrant, after)
            if after is not None:
                pruned[entrant.number] = after
        return pruned
    finally:
        optuna.logging.set_verbosity(verbosity)


def _pruned_after(trial: optuna.Trial, entrant: Entrant, epochs: int) -> int | None:
    """As `search.worker.trial` does it: every metric is reported, and the pruner asked where no signal fires and there is something left to save."""
    for seen, record in enumerate(entrant.records, 1):
        if not math.isnan(record.metric):
            trial.report(record.metric, record.epoch)
        if seen == entrant.killed_after:
            return None
        if record.epoch < epochs and trial.should_prune():
            return seen
    return None


def _end(
    study: optuna.Study, trial: optuna.Trial, entrant: Entrant, pruned_after: int | None
) -> None:
    score = entrant.score
    if pruned_after is not None or entrant.killed_after is not None or score is None:
        study.tell(trial, state=TrialState.PRUNED)
    elif math.isnan(score):
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, score)
