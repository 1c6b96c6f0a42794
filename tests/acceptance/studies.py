"""A study so small that a trial takes a second, and a look into the store that it fills."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from spaces.errors import StoreError
from spaces.records import EpochRecord
from storage.location import StoreLocation
from storage.rows import Progress, StoredTrial
from storage.store import Store
from tests.acceptance.terminal import Answer

BASE: dict[str, Any] = {
    "data": {"train_scenes": 32, "val_scenes": 16, "test_scenes": 16, "size": 32},
    "loss": {"kind": "focal", "dice_weight": 0.3, "smooth": 5, "square_denominator": True},
}
TINY: dict[str, Any] = {
    "name": "tiny",
    "epochs": 4,
    "trials": 5,
    "base": BASE,
    "space": {
        "loss.gamma": {"kind": "float", "low": 0.0, "high": 5.0},
        "optimizer.lr_multiple": {"kind": "float", "low": 0.03, "high": 30.0, "log": True},
    },
    "presets": ["recommended", "untuned"],
    "sampler": {"kind": "tpe"},
}

QUIET = {
    name: {"enabled": False}
    for name in (
        "loss_rising",
        "metric_falling",
        "class_collapse",
        "not_learning",
        "overfitting",
        "loss_metric_decoupling",
    )
}
"""Signals under which every trial of a longer study lives to its end, whatever it scores."""

ENDLESS_EPOCHS = 100_000
"""As many as a study may have: such a trial ends on no machine before a test ends it."""


@dataclass(frozen=True)
class Finished:
    """The tiny study after it ran to its end twice, the second time with a larger budget."""

    folder: Path
    first: Answer
    first_trials: list[StoredTrial]
    more: Answer
    trials: list[StoredTrial]

    @property
    def url(self) -> str:
        """Of its store."""
        return url_in(self.folder)


CLOCK = {"seconds", "samples_per_s", "peak_mib"}
"""What two runs of the same training may record differently."""


def write_study(folder: Path, **changes: Any) -> Path:
    """`tiny.yaml` in the folder, with some of its keys replaced, or taken out where the value is None."""
    path = folder / "tiny.yaml"
    reported = {key: value for key, value in (TINY | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(reported, sort_keys=False), encoding="utf-8")
    return path


def url_in(folder: Path) -> str:
    """The store that a command in this folder uses by default."""
    return f"sqlite:///{folder / 'search.db'}"


def stored_trials(url: str, study: str = "tiny") -> list[StoredTrial]:
    """The trials of a study."""
    with StoreLocation.parse(url).open(create=False) as store:
        return store.trials.list_trials(_id(store, study))


def progress(url: str, study: str = "tiny") -> list[Progress]:
    """How far the trials of a study are; none before there is a store."""
    try:
        with StoreLocation.parse(url).open(create=False) as store:
            return store.trials.list_progress(_id(store, study))
    except (StoreError, LookupError):
        return []


def stored_records(url: str, study: str = "tiny") -> dict[int, list[EpochRecord]]:
    """Trial number → its epochs."""
    with StoreLocation.parse(url).open(create=False) as store:
        return {
            trial.number: store.epochs.trial_records(trial.id)
            for trial in store.trials.list_trials(_id(store, study))
            if trial.number is not None
        }


def repeatable(records: dict[int, list[EpochRecord]]) -> dict[int, list[dict[str, Any]]]:
    """The records without what the clock decides."""
    reported = {number: [asdict(record) for record in epochs] for number, epochs in records.items()}
    return {
        number: [
            {key: value for key, value in epoch.items() if key not in CLOCK} for epoch in epochs
        ]
        for number, epochs in reported.items()
    }


def expire_lease(url: str, number: int, seconds: float) -> None:
    """Set the end of a trial's lease back, as if so much time had gone by. SQLite only."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)) as database, database:
        database.execute(
            "UPDATE search_trials SET lease_until = lease_until - ? WHERE number = ?",
            (seconds, number),
        )


def _id(store: Store, name: str) -> int:
    study = store.studies.find_study(name)
    if study is None:
        raise LookupError(name)
    return study.id
