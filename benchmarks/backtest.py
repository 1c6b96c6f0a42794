"""What the default signals and pruner do to recorded campaigns, by the records that are committed: nothing is trained here.

The thresholds were tuned on the first campaign. The second, and the presets, were made afterwards with other seeds and
another architecture, and nothing was tuned on them.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import report
from benchmarks.campaign import records
from benchmarks.report import Figure, Result
from search.backtest import Backtest, Row, backtest, make_field
from spaces.recordings import read_recording
from spaces.signals import SignalsConfig
from spaces.study import PrunerConfig

SIGNALS_SHARE, TOGETHER_SHARE = 20.0, 50.0
"""Percent of all epochs that the signals, and the signals with the pruner, are to save."""

TOLD = {"first": "tuned on", "second": "not tuned on"}


def measure() -> Result:
    """The figures of every campaign."""
    figures, details = [], {}
    for name, told in TOLD.items():
        found = replay(name)
        figures += of_campaign(f"{name} campaign ({told})", found)
        details[name] = detailed(found)
    healthy = replay("presets")
    killed = _row(healthy, "all signals").killed
    figures.append(Figure(f"of {healthy.trials} healthy trials (presets), killed by a signal", len(killed), bound=0))
    details["presets"] = detailed(healthy)
    return Result(figures, details)


def replay(name: str) -> Backtest:
    """A campaign through the default signals and the default pruner."""
    return backtest(make_field(read_recording(records(name))), SignalsConfig(), PrunerConfig())


def of_campaign(name: str, found: Backtest) -> list[Figure]:
    """The two rows that are promised."""
    signals, together = _row(found, "all signals"), _row(found, f"all signals + {PrunerConfig().kind}")
    best = found.best[0].number
    return [
        Figure(f"{name}: of the best {len(found.best)}, killed by the signals", len(signals.best_killed), bound=0),
        Figure(f"{name}: epochs saved by the signals", 100 * signals.share_saved, "%", SIGNALS_SHARE, at_least=True),
        Figure(f"{name}: best trial killed by signals and pruner", int(best in together.best_killed), bound=0),
        Figure(f"{name}: epochs saved by signals and pruner", 100 * together.share_saved, "%", TOGETHER_SHARE, at_least=True),
    ]


def _row(found: Backtest, rule: str) -> Row:
    return next(row for row in found.rows if row.rule == rule)


def detailed(found: Backtest) -> dict[str, Any]:
    """Every rule in short."""
    rules = {
        row.rule: {"killed": len(row.killed), "share_saved": round(row.share_saved, 4), "best_killed": list(row.best_killed), "best_found": row.found.score if row.found else None}
        for row in found.rows
    }
    return {"trials": found.trials, "epochs": found.epochs, "best": [held.number for held in found.best], "best_score": found.best[0].score, "rules": rules}


def main() -> int:
    """Replay and tell. There is no smaller run: it takes seconds."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("backtest", measure(), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
