"""Recordings to replay: what the store holds of a study, or a file, with the thresholds that are to judge them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.report import find_study, sampled
from spaces.config import Direction
from spaces.errors import InputError
from spaces.loader import check
from spaces.recordings import RecordedState, RecordedStudy, RecordedTrial, Recording, read_recording
from spaces.records import EpochRecord
from spaces.signals import SIGNALS, SignalsConfig
from spaces.study import PrunerConfig, StudySpec
from storage.rows import FINAL_STATES, StoredTrial
from storage.store import Store


@dataclass(frozen=True, slots=True)
class Source:
    """Recorded trials, and the thresholds and the pruner that they are judged by unless said otherwise."""

    recording: Recording
    signals: SignalsConfig
    pruner: PrunerConfig


def source(study: str | None, records: Path | None, direction: Direction | None, open_store: Callable[[], Store]) -> Source:
    """A study in the store with its own thresholds, every signal on; or a file, with the defaults.

    Raises:
        InputError: unless exactly one of the two is named, or when it cannot be read.
    """
    if (study is None) == (records is None):
        raise InputError("name one thing to replay", where="--study, --records", found="neither" if study is None else "both", allowed="--study NAME or --records FILE", next_step="`search show` lists the studies")
    if records is not None:
        return Source(_told(read_recording(records), direction), SignalsConfig(), PrunerConfig())
    with open_store() as store:
        spec, recording = study_spec(store, str(study)), study_recording(store, str(study))
    on = {name: getattr(spec.signals, name).model_copy(update={"enabled": True}) for name in SIGNALS}
    return Source(_told(recording, direction), spec.signals.model_copy(update=on), spec.pruner)


def _told(recording: Recording, direction: Direction | None) -> Recording:
    """The recording with the direction that the command line names; a file need not tell it."""
    if direction is None:
        return recording
    metric = recording.study.metric.model_copy(update={"direction": direction})
    return Recording(recording.study.model_copy(update={"metric": metric}), recording.trials)


def study_spec(store: Store, name: str) -> StudySpec:
    """The definition of the study called `name`.

    Raises:
        StoreError: when there is none.
    """
    return check(StudySpec, find_study(store, name).definition, f"study {name} in the store")


def study_recording(store: Store, name: str) -> Recording:
    """The trials of the study called `name`; one that has not ended counts as running.

    Raises:
        StoreError: when there is none.
    """
    spec, stored = study_spec(store, name), find_study(store, name)
    records = store.study_records(stored.id)
    trials = [_trial(trial, trial.number, records.get(trial.id, ()), spec) for trial in store.trials(stored.id) if trial.number is not None]
    return Recording(RecordedStudy(name=name, metric=spec.metric, epochs=spec.epochs), tuple(sorted(trials, key=lambda trial: trial.number)))


def _trial(trial: StoredTrial, number: int, records: Sequence[EpochRecord], spec: StudySpec) -> RecordedTrial:
    params, _ = sampled(spec, trial.config or {})
    return RecordedTrial(number, tuple(records), _state(trial), params, trial.preset or "")


def _state(trial: StoredTrial) -> RecordedState:
    return trial.state if trial.state in FINAL_STATES else "running"  # type: ignore[return-value]
