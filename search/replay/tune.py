"""Thresholds that would have saved most epochs of recorded trials while they spare the best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from search.pruners.signals import unjudged
from search.replay.backtest import Field, Kills, Ranked, Row, make_row, only, signal_kills
from search.report.models import Told
from spaces.thresholds import SignalsConfig

GRIDS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "loss_rising": {
        "epochs": (3, 4, 5, 6, 8),
        "agreement": (0.7, 0.8, 0.9, 1.0),
        "rise": (0.05, 0.1, 0.2, 0.4),
        "noise": (3.0, 5.0),
    },
    "metric_falling": {
        "epochs": (4, 5, 6, 8),
        "drop": (0.0, 0.1, 0.2, 0.4),
        "slipping_drop": (0.2, 0.3, 0.4, 0.5),
        "agreement": (0.7, 0.8, 0.9),
        "noise": (3.0, 5.0),
    },
    "class_collapse": {
        "grace_epochs": (4, 6, 8, 10, 15),
        "epochs": (3, 4, 6, 8),
        "share": (0.4, 0.55, 0.7),
        "level": (0.1, 0.05, 0.02, 0.0),
        "all_but_one_epochs": (4, 6),
    },
    "overfitting": {
        "patience": (3, 5),
        "rise": (0.1, 0.25, 0.5, 1.0),
        "stall_epochs": (6, 8, 10),
        "drop": (0.1, 0.2, 0.3),
    },
    "loss_metric_decoupling": {
        "window": (4, 5, 6, 8),
        "drop": (0.15, 0.2, 0.25, 0.3, 0.4),
        "unbroken_drop": (0.2, 0.4),
        "noise": (3.0, 5.0),
    },
}
"""Signal → threshold → the values that are tried, the strictest last; step-wise signals have a bound that is no matter of taste."""

SPARED_SHARE = 0.2
"""Of the ranked trials. Twice the best tenth that counts: the next trials will not be these, and need some room."""


@dataclass(frozen=True, slots=True)
class Tuned(Told):
    """Proposed thresholds.

    Attributes:
        signals: what to paste below `signals:`, the whole of every signal that was tuned.
        spared: the trials that none of them kills.
        rows: what they would have done to the recorded trials.
    """

    signals: Mapping[str, Mapping[str, Any]]
    spared: tuple[Ranked, ...]
    rows: tuple[Row, ...]


def tune(field: Field, base: SignalsConfig) -> Tuned:
    """For every signal that is on, and can judge these records, the thresholds that save most epochs and spare the best.

    A signal that these records gave no occasion for keeps the thresholds that it has; one that would kill one of the best
    at any threshold is switched off. Each is tuned by itself: what none of them kills, all together do not kill either.
    """
    proposed = {
        name: _tuned(field, base, name)
        for name in GRIDS
        if getattr(base, name).enabled and _judges(field, name)
    }
    config = SignalsConfig.model_validate(base.model_dump() | proposed)
    kills = {
        name: signal_kills(field.trials, only(config, name), field.direction) for name in proposed
    }
    rows = [make_row(field, name, held) for name, held in kills.items()]
    rows.append(make_row(field, "all signals", signal_kills(field.trials, config, field.direction)))
    return Tuned(proposed, field.best(SPARED_SHARE), tuple(rows))


def _judges(field: Field, name: str) -> bool:
    return not all(unjudged(name, trial.epochs) for trial in field.trials)


def _tuned(field: Field, base: SignalsConfig, name: str) -> dict[str, Any]:
    """The thresholds of one signal.

    Of several that save as much those that kill the fewest, so that none dies for nothing; of these the given ones, for
    there is no reason to change them, else the strictest.
    """
    given: dict[str, Any] = getattr(base, name).model_dump()
    best, merit = given | {"enabled": False}, (-1, 0)
    for thresholds in ({}, *_strictest_first(name)):
        wanted = given | thresholds
        kills = _kills(
            field, only(SignalsConfig.model_validate(base.model_dump() | {name: wanted}), name)
        )
        if kills is not None and (found := (_epochs_saved(field, kills), -len(kills))) > merit:
            best, merit = wanted, found
    return best


def _strictest_first(name: str) -> Iterator[dict[str, Any]]:
    grid = GRIDS[name]
    return (
        dict(zip(grid, values, strict=True))
        for values in product(*(reversed(values) for values in grid.values()))
    )


def _epochs_saved(field: Field, kills: Kills) -> int:
    return sum(
        len(trial.epochs) - kills[trial.number][0]
        for trial in field.trials
        if trial.number in kills
    )


def _kills(field: Field, signals: SignalsConfig) -> Kills | None:
    """Whom the signals kill; None where one of those is among the best, which are asked first."""
    spared = {held.number for held in field.best(SPARED_SHARE)}
    if signal_kills(
        [trial for trial in field.trials if trial.number in spared], signals, field.direction
    ):
        return None
    return signal_kills(field.trials, signals, field.direction)
