"""What signals and pruners would have done, as a table, and thresholds as YAML to paste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import yaml
from rich import box
from rich.table import Table

from search.console import terminal
from search.console.formatting import count, score
from search.console.tables import SCORE_RULES, fits
from search.replay.backtest import Backtest, RuleResult
from search.replay.tune import Tuned

SHOWN = 10
"""Numbers of trials that a line lists."""


def print_backtest(result: Backtest) -> None:
    """Every rule with whom it kills and what that saves, and what the records cannot tell."""
    terminal.head(
        f"Backtest of {result.study}: {result.metric} ({result.direction}, {SCORE_RULES[result.score_rule]})"
    )
    time = "" if result.hours is None else f", {result.hours:.2f} device-hours"
    terminal.tell(
        f"{count(result.trials, 'trial')}, {count(result.epochs, 'epoch')}{time}; {result.ranked} ran to their end"
    )
    scores = " to ".join(
        dict.fromkeys(score(held.score) for held in (result.best[0], result.best[-1]))
    )
    terminal.tell(
        f"eventual best {len(result.best)} ({scores}): trial {_list([held.number for held in result.best])}"
    )
    print_rows(result.rows, len(result.best))
    if result.unknown:
        terminal.head("What these records cannot tell")
        for sentence in result.unknown:
            terminal.tell(sentence, indent=2)


def print_rows(rows: tuple[RuleResult, ...], best: int) -> None:
    """A line for each rule; a narrow screen has shares alone in the place of epochs, and the best that were killed below the table."""
    terminal.say()
    none_killed = tuple(
        replace(row, best_killed=()) for row in rows
    )  # those break their lines anywhere
    if fits(_wide(none_killed, best)):
        terminal.show(_wide(rows, best))
        return
    terminal.show(_narrow(rows, best))
    for row in rows:
        if row.best_killed:
            terminal.tell(
                f"{row.rule} kills of the best {best}: trial {_list(row.best_killed)}", indent=2
            )


def _wide(rows: tuple[RuleResult, ...], best: int) -> Table:
    table = _table("killed", "epochs saved", "hours")
    table.add_column(f"best {best}\nkilled", overflow="fold", min_width=7)
    table.add_column("best found", no_wrap=True)
    for row in rows:
        died = _list(row.best_killed) if row.best_killed else "none"
        found = (
            "none" if row.found is None else f"{score(row.found.score)} (trial {row.found.number})"
        )
        table.add_row(
            terminal.fit(row.rule),
            str(len(row.killed)),
            f"{row.epochs_saved} ({_share(row)})",
            _hours(row),
            died,
            found,
        )
    return table


def _narrow(rows: tuple[RuleResult, ...], best: int) -> Table:
    table = _table("killed", "epochs\nsaved", "hours", f"best {best}\nkilled", "best\nfound", gap=1)
    for row in rows:
        found = "none" if row.found is None else score(row.found.score)
        table.add_row(
            terminal.fit(row.rule),
            str(len(row.killed)),
            _share(row),
            _hours(row),
            str(len(row.best_killed)),
            found,
        )
    return table


def _table(*figures: str, gap: int = 2) -> Table:
    """A column for the rule, and columns of figures, with `gap` spaces between them."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, gap - 1, 0, 0),
        pad_edge=False,
        header_style="bold",
        show_edge=False,
    )
    table.add_column("rule", no_wrap=True)
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _share(row: RuleResult) -> str:
    return f"{100 * row.share_saved:.1f}%"


def _hours(row: RuleResult) -> str:
    return "-" if row.hours_saved is None else f"{row.hours_saved:.2f}"


def print_tuned(tuned: Tuned, best: int) -> None:
    """The proposed thresholds as YAML, and what they would do."""
    terminal.head("Thresholds that save most and spare the best")
    terminal.tell(
        f"chosen to spare the best {len(tuned.spared)}, twice the tenth that counts, since the next trials will not be these"
    )
    print_rows(tuned.rows, best)
    terminal.say()
    terminal.say(yaml.safe_dump({"signals": tuned.signals}, sort_keys=False).rstrip())


def _list(numbers: Sequence[int]) -> str:
    more = f" … {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return terminal.fit(f"{', '.join(map(str, numbers[:SHOWN]))}{more}")
