"""What the default signals and pruner do to the committed records of campaigns; nothing is trained.

The thresholds were tuned on the first campaign. The second campaign and the presets were recorded
with other seeds and another architecture, and no threshold was tuned on them. The last trials of
the second were recorded after the rules of that time were final. The campaigns on real images are
replayed where they have been recorded. Naive forms of the rules are the baseline.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from benchmarks import report
from benchmarks.campaign import records
from benchmarks.report import Figure, Result
from search.replay.backtest import (
    Backtest,
    Firings,
    RuleResult,
    find_all_firings,
    find_peer_stops,
    find_signal_stops,
    find_stops,
    only_signal,
    run_backtest,
)
from search.replay.ranking import BEST_SHARE, RankedRecording, rank_recording
from spaces.recordings import read_recording
from spaces.study import PrunerConfig
from spaces.thresholds import SignalsConfig

SIGNALS_SHARE, TOGETHER_SHARE = 20.0, 50.0
"""Percent of all epochs that the signals, and the signals with the pruner, are to save."""

TUNING = {
    "first": "tuned on",
    "second": "not tuned on",
    "camvid": "not tuned on",
    "nuclei": "not tuned on",
}
"""Campaign → whether the thresholds were tuned on it. Some are not recorded in every checkout."""

UNSEEN_FROM = 127
"""The second campaign's trials from this number on were recorded after the rules were final."""

NAIVE: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "metric falls 5 epochs in a row": (
        "metric_falling",
        {"epochs": 5, "agreement": 1, "drop": 0, "noise": 0},
    ),
    "metric falls 3 epochs in a row": (
        "metric_falling",
        {"epochs": 3, "agreement": 1, "drop": 0, "noise": 0},
    ),
    "loss, at one split, rises 5 epochs in a row": (
        "loss_rising",
        {"epochs": 5, "agreement": 1, "rise": 0, "noise": 0},
    ),
    "loss, at one split, rises 3 epochs in a row": (
        "loss_rising",
        {"epochs": 3, "agreement": 1, "rise": 0, "noise": 0},
    ),
    "a class at 0 for 5 epochs from epoch 6": (
        "not_learning",
        {"grace_epochs": 5, "grace_steps": 0, "epochs": 5, "share": 0.01, "level": 0},
    ),
    "validation loss up over 3 epochs, no better metric": (
        "overfitting",
        {"patience": 3, "rise": 0, "stall_epochs": 3, "drop": 0},
    ),
    "loss and metric down over 5 epochs, 10% under its best": (
        "loss_metric_decoupling",
        {"window": 5, "drop": 0.1, "noise": 0},
    ),
}
"""Naive rules, as the thresholds that amount to them; no trial is spared."""

UNSPARING = {"sparing": {"enabled": False}}

BARE = PrunerConfig(noise=0)
"""The default pruner without its margin for noise."""

ORDERS = 20
"""In which the trials might have come as well: which peers a trial meets is chance."""


def measure(*, quick: bool) -> Result:
    """The figures of every campaign."""
    figures, details = [], {}
    for name, tuning in TUNING.items():
        if not records(name).exists():
            continue
        field, found = _replayed(name)
        figures += of_campaign(f"{name} campaign ({tuning})", found)
        figures += in_other_orders(f"{name} campaign", field, 2 if quick else ORDERS)
        details[name] = detailed(found)
    figures += of_unseen(_replayed("second")[0])
    first, _ = _replayed("first")
    figures += [
        Figure(
            f"first campaign, naively: {rule}: of the best {len(first.best_trials())}, killed",
            killed,
        )
        for rule, killed in naively(first).items()
    ]
    if records("presets").exists():  # not recorded yet in every checkout
        _, healthy = _replayed("presets")
        figures.append(
            Figure(
                f"of {healthy.trials} healthy trials (presets), killed by a signal",
                len(_row(healthy, "all signals").killed),
                bound=0,
            )
        )
        details["presets"] = detailed(healthy)
    return Result(figures, details)


def _replayed(name: str) -> tuple[RankedRecording, Backtest]:
    """A campaign, and what the default signals and the default pruner do to it."""
    field = rank_recording(read_recording(records(name)))
    return field, run_backtest(field, SignalsConfig(), PrunerConfig())


def of_campaign(name: str, found: Backtest) -> list[Figure]:
    """The rows that are promised."""
    signals, together = (
        _row(found, "all signals"),
        _row(found, f"all signals + {PrunerConfig().kind}"),
    )
    return [
        Figure(
            f"{name}: of the best {len(found.best)}, killed by the signals",
            len(signals.best_killed),
            bound=0,
        ),
        Figure(
            f"{name}: epochs saved by the signals",
            100 * signals.share_saved,
            "%",
            SIGNALS_SHARE,
            at_least=True,
        ),
        Figure(
            f"{name}: best trial killed by signals and pruner",
            int(found.best[0].number in together.best_killed),
            bound=0,
        ),
        Figure(
            f"{name}: epochs saved by signals and pruner",
            100 * together.share_saved,
            "%",
            TOGETHER_SHARE,
            at_least=True,
        ),
    ]


def of_unseen(field: RankedRecording) -> list[Figure]:
    """The last trials of the second campaign: epochs saved, and the best trial that is stopped."""
    trials = [trial for trial in field.trials if trial.number >= UNSEEN_FROM]
    killed = find_signal_stops(field, SignalsConfig())
    saved = sum(
        len(trial.epochs) - killed[trial.number].seen for trial in trials if trial.number in killed
    )
    ranked = [trial.number for trial in field.ranked if trial.number >= UNSEEN_FROM]
    spared = next((rank for rank, number in enumerate(ranked) if number in killed), len(ranked))
    name = f"second campaign, the last {len(trials)} trials"
    return [
        Figure(
            f"{name}: epochs saved by the signals",
            100 * saved / sum(len(trial.epochs) for trial in trials),
            "%",
            SIGNALS_SHARE,
            at_least=True,
        ),
        Figure(
            f"{name}: the best so many are all spared",
            spared,
            "",
            math.ceil(BEST_SHARE * len(ranked)),
            at_least=True,
        ),
    ]


def in_other_orders(name: str, field: RankedRecording, orders: int) -> list[Figure]:
    """How often the best trial is stopped in other orders, with and without the noise margin."""
    firings = find_all_firings(field, SignalsConfig())
    lost = {
        pruner.noise: [_best_dies(field, pruner, firings, seed) for seed in range(orders)]
        for pruner in (PrunerConfig(), BARE)
    }
    figure = f"{name}: best trial killed, in {orders} other orders of the trials"
    return [
        Figure(
            figure,
            100 * fmean(lost[PrunerConfig().noise]),
            "%",
            bound=0,
            peer="a bare median",
            peer_found=100 * fmean(lost[0]),
        )
    ]


def _best_dies(field: RankedRecording, pruner: PrunerConfig, firings: Firings, seed: int) -> bool:
    order = list(field.trials)
    random.Random(seed).shuffle(order)
    shuffled = replace(field, trials=tuple(order))
    return field.ranked[0].number in find_stops(shuffled, firings, SignalsConfig(), pruner)


def naively(field: RankedRecording) -> dict[str, int]:
    """How many of the best each naive rule kills."""
    best = {trial.number for trial in field.best_trials()}
    dead = {}
    for rule, (signal, thresholds) in NAIVE.items():
        config = only_signal(SignalsConfig.model_validate({signal: thresholds} | UNSPARING), signal)
        dead[rule] = len(best & set(find_signal_stops(field, config)))
    return dead | {
        "worse than the median of the peers": len(best & set(find_peer_stops(field, BARE)))
    }


def _row(found: Backtest, rule: str) -> RuleResult:
    return next(row for row in found.rows if row.rule == rule)


def detailed(found: Backtest) -> dict[str, Any]:
    """Every rule in short."""
    rules = {
        row.rule: {
            "killed": len(row.killed),
            "share_saved": round(row.share_saved, 4),
            "best_killed": list(row.best_killed),
            "best_found": row.found.score if row.found else None,
        }
        for row in found.rows
    }
    return {
        "trials": found.trials,
        "epochs": found.epochs,
        "best": [trial.number for trial in found.best],
        "best_score": found.best[0].score,
        "rules": rules,
    }


def main() -> int:
    """Replay, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("backtest", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
