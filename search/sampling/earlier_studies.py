"""Reads the earlier studies that a new one learns from: of a store, or of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from search.sampling.freeze_thaw.curves import accumulate_scores
from search.sampling.freeze_thaw.prior import EarlierStudy
from search.stored_study import find_study, sampled_values, study_spec
from spaces.config import MetricConfig
from spaces.errors import StudyError
from spaces.recordings import read_recording
from storage.location import StoreLocation
from storage.rows import TrialState
from storage.store import Store

PLACE = ("sampler", "learn_from")

FILE_ENDINGS = (".jsonl", ".jsonl.gz", ".csv")

SEPARATOR = "#"
"""Separates the address of another store from the name of a study in it."""

MIN_TRIALS = 5
"""Fewer trials teach nothing."""

FINISHED: tuple[TrialState, ...] = ("complete", "pruned", "diverged")


def load_earlier_studies(
    store: Store, names: Sequence[str], metric: MetricConfig
) -> list[EarlierStudy]:
    """Load what a study learns from.

    Args:
        store: with the study.
        names: each a study of this store, `STORE#STUDY`, or a file of recorded trials.
        metric: of the study that learns.

    Raises:
        StudyError: when there is no such study or file, when it has another metric, or too few
            trials.
    """
    return [_load_earlier(store, name, metric) for name in names]


def _load_earlier(store: Store, name: str, metric: MetricConfig) -> EarlierStudy:
    if name.endswith(FILE_ENDINGS):
        found, of = _read_file(Path(name))
    elif SEPARATOR in name:
        address, _, study = name.partition(SEPARATOR)
        url = address if "://" in address else f"sqlite:///{address}"
        with StoreLocation.parse(url).open(create=False) as other:
            found, of = _read_store(other, study)
    elif Path(name).exists():
        raise StudyError(
            f"nothing can be learned from {name!r}, a file without recorded trials",
            where="--learn-from",
            place=PLACE,
            found=name,
            allowed=f"a study, STORE#STUDY, or a file that ends in {', '.join(FILE_ENDINGS)}",
            next_step="for a store, add # and the name of a study in it",
        )
    else:
        found, of = _read_store(store, name)
    if (of.name, of.direction) != (metric.name, metric.direction):
        raise StudyError(
            f"nothing can be learned from {name!r}, which has another metric",
            where="--learn-from",
            place=PLACE,
            found=f"{of.name}, {of.direction}",
            allowed=f"{metric.name}, {metric.direction}",
            next_step="name a study with this metric, or leave the option out",
        )
    if len(found.scores) < MIN_TRIALS:
        raise StudyError(
            f"nothing can be learned from {name!r}, which has too few finished trials",
            where="--learn-from",
            place=PLACE,
            found=f"{len(found.scores)} complete, pruned or diverged",
            allowed=f"at least {MIN_TRIALS}",
            next_step="name another study, or leave the option out",
        )
    return found


def _read_store(store: Store, name: str) -> tuple[EarlierStudy, MetricConfig]:
    """The finished trials of a stored study; one that diverged counts as the worst."""
    spec = study_spec(store, name)
    stored = find_study(store, name)
    trials = [
        trial for trial in store.trials.list_ended(stored.id, FINISHED) if trial.config is not None
    ]
    params = [sampled_values(spec, trial.config or {})[0] for trial in trials]
    scores = [_final_score(trial.state, trial.score) for trial in trials]
    sign = 1.0 if spec.metric.direction == "maximize" else -1.0
    return EarlierStudy(name, params, scores, sign), spec.metric


def _read_file(path: Path) -> tuple[EarlierStudy, MetricConfig]:
    recording = read_recording(path)
    metric = recording.study.metric
    trials = [trial for trial in recording.trials if trial.state in FINISHED and trial.epochs]
    scores = []
    for trial in trials:
        reached = accumulate_scores({each.epoch: each.metric for each in trial.epochs}, metric)
        scores.append(_final_score(trial.state, reached[max(reached)]))
    sign = 1.0 if metric.direction == "maximize" else -1.0
    return EarlierStudy(path.name, [trial.params for trial in trials], scores, sign), metric


def _final_score(state: str, score: float | None) -> float:
    return math.nan if state == "diverged" or score is None else score
