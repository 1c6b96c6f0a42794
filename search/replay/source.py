"""Recordings to replay: what the store holds of a study, or a file, with the thresholds that are to judge them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.stored_study import find_study, sampled, study_spec
from spaces.config import Direction
from spaces.errors import InputError
from spaces.recordings import RecordedState, RecordedStudy, RecordedTrial, Recording, read_recording
from spaces.records import EpochRecord
from spaces.study import PrunerConfig, StudySpec
from spaces.thresholds import SIGNALS, SignalsConfig
from storage.rows import FINAL_STATES, StoredTrial
from storage.store import Store


@dataclass(frozen=True, slots=True)
class Source:
    """Recorded trials, and the thresholds and the pruner that they are judged by unless said otherwise."""

    recording: Recording
    signals: SignalsConfig
    pruner: PrunerConfig


def source(
    study: str | None,
    records: Path | None,
    direction: Direction | None,
    open_store: Callable[[], Store],
) -> Source:
    """A study in the store with its own thresholds, every signal on; or a file, with the defaults.

    Raises:
        InputError: unless exactly one of the two is named, when it cannot be read, or when it says itself which way its
            metric goes and `direction` is not that.
    """
    if (study is None) == (records is None):
        raise InputError(
            "name one thing to replay",
            where="--study, --records",
            found="neither" if study is None else "both",
            allowed="--study NAME or --records FILE",
            next_step="`search show` lists the studies",
        )
    if records is not None:
        return Source(
            _told(read_recording(records), records, direction), SignalsConfig(), PrunerConfig()
        )
    if direction is not None:
        raise InputError(
            "a study in the store says itself which way its metric goes",
            where="--direction",
            found=direction,
            allowed="--direction with --records FILE",
            next_step="leave it out",
        )
    with open_store() as store:
        spec, recording = study_spec(store, str(study)), study_recording(store, str(study))
    on = {
        name: getattr(spec.signals, name).model_copy(update={"enabled": True}) for name in SIGNALS
    }
    return Source(recording, spec.signals.model_copy(update=on), spec.pruner)


def _told(recording: Recording, path: Path, direction: Direction | None) -> Recording:
    """The recording with the direction that the command line names, where the file is silent about it."""
    metric = recording.study.metric
    if direction in (None, metric.direction):
        return recording
    if "direction" in metric.model_fields_set:
        raise InputError(
            f"{path.name} says that its metric is to {metric.direction}",
            where="--direction",
            found=direction,
            allowed=metric.direction,
            next_step="leave it out, or mend the file",
        )
    told = metric.model_copy(update={"direction": direction})
    return Recording(recording.study.model_copy(update={"metric": told}), recording.trials)


def study_recording(store: Store, name: str) -> Recording:
    """The trials of the study called `name`; one that has not ended counts as running.

    Raises:
        StoreError: when there is none.
    """
    spec, stored = study_spec(store, name), find_study(store, name)
    records = store.epochs.study_records(stored.id)
    trials = [
        _trial(trial, trial.number, records.get(trial.id, ()), spec)
        for trial in store.trials.list_trials(stored.id)
        if trial.number is not None
    ]
    return Recording(
        RecordedStudy(name=name, metric=spec.metric, epochs=spec.epochs),
        tuple(sorted(trials, key=lambda trial: trial.number)),
    )


def _trial(
    trial: StoredTrial, number: int, records: Sequence[EpochRecord], spec: StudySpec
) -> RecordedTrial:
    params, _ = sampled(spec, trial.config or {})
    return RecordedTrial(number, tuple(records), _state(trial), params, trial.preset or "")


def _state(trial: StoredTrial) -> RecordedState:
    return trial.state if trial.state in FINAL_STATES else "running"  # type: ignore[return-value]
