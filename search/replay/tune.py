"""Tuning of the signals' thresholds: save most epochs of recorded trials and spare the best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from search.pruners.signals import lacks_numbers
from search.replay.backtest import (
    ALL_SIGNALS,
    JudgedAfter,
    RuleResult,
    find_signal_stops,
    only_signal,
    summarize_rule,
)
from search.replay.pruner import Stops
from search.replay.ranking import RankedRecording, RankedTrial
from search.replay.stops import find_unspared
from search.report.json_report import JsonReport
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
        "grace_epochs": (4, 7, 10),
        "epochs": (3, 4, 6),
        "level": (0.1, 0.05, 0.02),
        "found_level": (0.15, 0.2, 0.3),
        "lost_share": (0.3, 0.5, 1.0),
    },
    "not_learning": {
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
"""Signal → threshold → the values to try, the strictest last. Signals on steps are not tuned."""

SPARED_SHARE = 0.2
"""Share of the ranked trials to spare: twice the best tenth, as a margin for other trials."""


@dataclass(frozen=True, slots=True)
class Tuned(JsonReport):
    """Proposed thresholds.

    Attributes:
        signals: all thresholds of every signal that was tuned, as under `signals:` in a YAML file.
        spared: the trials that none of them stops.
        rows: what they would have done to the recorded trials.
    """

    signals: Mapping[str, Mapping[str, Any]]
    spared: tuple[RankedTrial, ...]
    rows: tuple[RuleResult, ...]


def tune_thresholds(recorded: RankedRecording, base: SignalsConfig) -> Tuned:
    """Find thresholds of each enabled signal that save most epochs and spare the best trials.

    A signal that fires on none of these records keeps its thresholds; one that stops one of the
    best trials at all thresholds is disabled. Each is tuned on its own: what no signal stops, all
    together do not stop either.

    Args:
        recorded: the trials; a signal whose numbers they lack is not tuned.
        base: the thresholds to start from.
    """
    judged_after = {
        trial.number: find_unspared(
            trial.epochs, base.sparing, recorded.direction, recorded.planned_epochs
        )
        for trial in recorded.trials
    }
    proposed = {
        name: _tune_signal(recorded, base, name, judged_after)
        for name in GRIDS
        if getattr(base, name).enabled and _can_judge(recorded, name)
    }
    config = SignalsConfig.model_validate(base.model_dump() | proposed)
    rows = [_summarize_signals(recorded, only_signal(config, name), name) for name in proposed]
    rows.append(_summarize_signals(recorded, config, ALL_SIGNALS))
    return Tuned(proposed, recorded.best_trials(SPARED_SHARE), tuple(rows))


def _summarize_signals(recorded: RankedRecording, signals: SignalsConfig, rule: str) -> RuleResult:
    stops = find_signal_stops(recorded, signals)
    return summarize_rule(recorded, rule, stops)


def _can_judge(recorded: RankedRecording, name: str) -> bool:
    return not all(lacks_numbers(name, trial.epochs) for trial in recorded.trials)


def _tune_signal(
    recorded: RankedRecording, base: SignalsConfig, name: str, judged_after: JudgedAfter
) -> dict[str, Any]:
    """The best thresholds of one signal.

    Of several that save as many epochs, those that stop the fewest trials; of these the given ones,
    else the strictest.
    """
    given: dict[str, Any] = getattr(base, name).model_dump()
    best = given | {"enabled": False}
    best_merit = (-1, 0)
    for thresholds in ({}, *_strictest_first(name)):
        wanted = given | thresholds
        signals = SignalsConfig.model_validate(base.model_dump() | {name: wanted})
        stops = _stops_without_best(recorded, only_signal(signals, name), judged_after)
        if stops is None:
            continue
        merit = (_epochs_saved(recorded, stops), -len(stops))
        if merit > best_merit:
            best = wanted
            best_merit = merit
    return best


def _strictest_first(name: str) -> Iterator[dict[str, Any]]:
    grid = GRIDS[name]
    combinations = product(*(reversed(values) for values in grid.values()))
    return (dict(zip(grid, values, strict=True)) for values in combinations)


def _epochs_saved(recorded: RankedRecording, stops: Stops) -> int:
    return sum(
        len(trial.epochs) - stops[trial.number].seen
        for trial in recorded.trials
        if trial.number in stops
    )


def _stops_without_best(
    recorded: RankedRecording, signals: SignalsConfig, judged_after: JudgedAfter
) -> Stops | None:
    """Where the signals stop which trials; None where they stop one of the best."""
    spared = {trial.number for trial in recorded.best_trials(SPARED_SHARE)}
    stops = find_signal_stops(recorded, signals, judged_after)
    return None if spared & set(stops) else stops
