"""What signals and pruners would have done, as a table, and thresholds as YAML to paste."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from rich import box
from rich.table import Table

from search.backtest import Backtest, Ranked, Row
from search.console import screen
from search.console.tables import SCORE_RULES
from search.console.words import count, score
from search.tune import Tuned

SHOWN = 10
"""Numbers of trials that a line lists."""


def print_backtest(result: Backtest) -> None:
    """Every rule with whom it kills and what that saves, and what the records cannot tell."""
    screen.head(f"Backtest of {result.study}: {result.metric} ({result.direction}, {SCORE_RULES[result.score_rule]})")
    time = "" if result.hours is None else f", {result.hours:.2f} device-hours"
    screen.tell(f"{count(result.trials, 'trial')}, {count(result.epochs, 'epoch')}{time}; {result.ranked} ran to their end")
    scores = " to ".join(dict.fromkeys(score(held.score) for held in (result.best[0], result.best[-1])))
    screen.tell(f"eventual best {len(result.best)} ({scores}): trial {_list([held.number for held in result.best])}")
    print_rows(result.rows, len(result.best))
    if result.unknown:
        screen.head("What these records cannot tell")
        for sentence in result.unknown:
            screen.tell(sentence, indent=2)


def print_rows(rows: tuple[Row, ...], best: int) -> None:
    """A line for each rule."""
    screen.say()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("rule", no_wrap=True)
    for name in ("killed", "epochs saved", "hours"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"best {best}\nkilled", overflow="fold")
    table.add_column("best found", no_wrap=True)
    for row in rows:
        hours = "-" if row.hours_saved is None else f"{row.hours_saved:.2f}"
        died = _list(row.best_killed) if row.best_killed else "none"
        saved = f"{row.epochs_saved} ({100 * row.share_saved:.1f}%)"
        table.add_row(screen.fit(row.rule), str(len(row.killed)), saved, hours, died, _found(row.found))
    screen.show(table)


def print_tuned(tuned: Tuned, best: int) -> None:
    """The proposed thresholds as YAML, and what they would do."""
    screen.head("Thresholds that save most and spare the best")
    screen.tell(f"chosen to spare the best {len(tuned.spared)}, twice the tenth that counts, since the next trials will not be these")
    print_rows(tuned.rows, best)
    screen.say()
    screen.say(yaml.safe_dump({"signals": tuned.signals}, sort_keys=False).rstrip())


def _found(found: Ranked | None) -> str:
    return "none" if found is None else f"{score(found.score)} (trial {found.number})"


def _list(numbers: Sequence[int]) -> str:
    more = f" … {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return screen.fit(f"{', '.join(map(str, numbers[:SHOWN]))}{more}")
