"""What the store holds of a study, as a recording that can be replayed, or written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.report import find_study, sampled
from spaces.loader import check
from spaces.recordings import RecordedState, RecordedStudy, RecordedTrial, Recording
from spaces.records import EpochRecord
from spaces.study import StudySpec
from storage.rows import FINAL_STATES, StoredTrial

if TYPE_CHECKING:
    from storage.store import Store


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
