"""What a backtest replays: a study of the store or a file, with the thresholds to judge it by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.stored_study import find_study, sampled_values, study_spec
from spaces.config import Direction
from spaces.errors import InputError
from spaces.recordings import RecordedState, RecordedStudy, RecordedTrial, Recording, read_recording
from spaces.records import EpochRecord
from spaces.study import PrunerConfig, StudySpec
from spaces.thresholds import SIGNALS, SignalsConfig
from storage.rows import FINAL_STATES, StoredTrial
from storage.store import Store


@dataclass(frozen=True, slots=True)
class ReplaySource:
    """Recorded trials, and the thresholds and the pruner that judge them by default."""

    recording: Recording
    signals: SignalsConfig
    pruner: PrunerConfig


def load_source(
    study: str | None,
    records: Path | None,
    direction: Direction | None,
    open_store: Callable[[], Store],
) -> ReplaySource:
    """Load a study of the store, with its own thresholds and every signal enabled, or a file.

    Args:
        study: name of a study in the store.
        records: a file of recorded trials; it gets the default thresholds.
        direction: of the file's metric, where the file does not have it.
        open_store: opens the store; called for a study only.

    Raises:
        InputError: unless exactly one of the two is given; when it cannot be read; or when it has
            another direction than the one given.
    """
    if (study is None) == (records is None):
        raise InputError(
            "give either a study or a file to replay",
            where="--study, --records",
            found="neither" if study is None else "both",
            allowed="--study NAME or --records FILE",
            next_step="`search show` lists the studies",
        )
    if records is not None:
        recording = _with_direction(read_recording(records), records, direction)
        return ReplaySource(recording, SignalsConfig(), PrunerConfig())
    if direction is not None:
        raise InputError(
            "a study in the store has its own direction",
            where="--direction",
            found=direction,
            allowed="--direction with --records FILE",
            next_step="leave it out",
        )
    with open_store() as store:
        spec = study_spec(store, str(study))
        recording = study_recording(store, str(study))
    return ReplaySource(recording, _enable_all(spec.signals), spec.pruner)


def _enable_all(signals: SignalsConfig) -> SignalsConfig:
    """The same thresholds with every signal enabled."""
    enabled = {
        name: getattr(signals, name).model_copy(update={"enabled": True}) for name in SIGNALS
    }
    return signals.model_copy(update=enabled)


def _with_direction(recording: Recording, path: Path, direction: Direction | None) -> Recording:
    """The recording with the direction of the command line, where the file has none."""
    metric = recording.study.metric
    if direction in (None, metric.direction):
        return recording
    if "direction" in metric.model_fields_set:
        raise InputError(
            f"the metric in {path.name} is to be {metric.direction}d",
            where="--direction",
            found=direction,
            allowed=metric.direction,
            next_step="leave it out, or fix the file",
        )
    changed = metric.model_copy(update={"direction": direction})
    study = recording.study.model_copy(update={"metric": changed})
    return Recording(study, recording.trials)


def study_recording(store: Store, name: str) -> Recording:
    """The trials of a study in the store as a recording; one that has not ended is `running`.

    Raises:
        StoreError: when there is no such study.
    """
    spec = study_spec(store, name)
    stored = find_study(store, name)
    records = store.epochs.study_records(stored.id)
    trials = [
        _recorded_trial(trial, trial.number, records.get(trial.id, ()), spec)
        for trial in store.trials.list_trials(stored.id)
        if trial.number is not None
    ]
    study = RecordedStudy(name=name, metric=spec.metric, epochs=spec.epochs)
    return Recording(study, tuple(sorted(trials, key=lambda trial: trial.number)))


def _recorded_trial(
    trial: StoredTrial, number: int, records: Sequence[EpochRecord], spec: StudySpec
) -> RecordedTrial:
    params, _ = sampled_values(spec, trial.config or {})
    return RecordedTrial(number, tuple(records), _recorded_state(trial), params, trial.preset or "")


def _recorded_state(trial: StoredTrial) -> RecordedState:
    return trial.state if trial.state in FINAL_STATES else "running"  # type: ignore[return-value]
