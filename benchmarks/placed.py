"""A study whose trials are the same on any machine, and the comparison of two of its runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from spaces.errors import StoreError
from storage.location import StoreLocation

TRIALS, EPOCHS = 4, 40
CLOCK = {"seconds", "samples_per_s", "peak_mib"}
"""Fields that may differ between two runs of the same training."""

OFF = (
    "loss_rising",
    "metric_falling",
    "class_collapse",
    "not_learning",
    "overfitting",
    "loss_metric_decoupling",
)

STUDY: dict[str, Any] = {
    "name": "placed",
    "epochs": EPOCHS,
    "trials": TRIALS,
    "base": {"data": {"train_scenes": 96, "val_scenes": 16, "test_scenes": 16, "size": 32}},
    "space": {"optimizer.lr_multiple": {"kind": "float", "low": 0.03, "high": 1.0, "log": True}},
    "presets": ["recommended"],
    "pruner": {"kind": "none"},  # which peers a trial is judged against would depend on the order
    "signals": {name: {"enabled": False} for name in OFF},
}


@dataclass(frozen=True)
class Outcome:
    """A trial's end: what it tried, and every figure of every epoch."""

    state: str
    attempt: int
    score: float | None
    records: list[dict[str, Any]]


def write_study(folder: Path) -> None:
    """`placed.yaml` in the folder."""
    (folder / "placed.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")


def outcomes(url: str) -> dict[int, Outcome]:
    """Trial number → its end."""
    with StoreLocation.parse(url).open(create=False) as store:
        study = store.studies.find_study("placed")
        assert study is not None
        return {
            trial.number: Outcome(
                trial.state,
                trial.attempt,
                trial.score,
                [_plain(asdict(record)) for record in store.epochs.trial_records(trial.id)],
            )
            for trial in store.trials.list_trials(study.id)
            if trial.number is not None
        }


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in CLOCK}


def epochs_of(url: str) -> dict[int, int]:
    """Trial number → epochs stored; nothing before there is a study."""
    try:
        with StoreLocation.parse(url).open(create=False) as store:
            study = store.studies.find_study("placed")
            return (
                {}
                if study is None
                else {
                    trial.number: trial.epochs
                    for trial in store.trials.list_progress(study.id)
                    if trial.number is not None
                }
            )
    except StoreError:  # there is none yet
        return {}


def until(condition: Callable[[], bool], what: str, limit_s: float) -> None:
    """Wait for it.

    Raises:
        SystemExit: when it does not come.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {limit_s:.0f} s in vain until {what}")
        time.sleep(0.2)


def differing(one: dict[int, Outcome], other: dict[int, Outcome]) -> list[int]:
    """Numbers of the trials whose score or epochs are not equal, or that only one of them has."""
    numbers = sorted({*one, *other})
    return [
        number for number in numbers if (_result(one.get(number)) != _result(other.get(number)))
    ]


def _result(outcome: Outcome | None) -> tuple[object, ...]:
    return () if outcome is None else (outcome.state, outcome.score, outcome.records)
