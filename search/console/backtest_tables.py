"""Print what signals and pruners would have done, and proposed thresholds as YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import yaml
from rich.table import Table

from search.console import terminal
from search.console.formatting import format_count, format_score
from search.console.table_layout import fits_screen, make_table
from search.console.tables import SCORE_RULES
from search.replay.backtest import Backtest, RuleResult
from search.replay.tune import Tuned

SHOWN = 10
"""How many numbers of trials a line lists at most."""


def print_backtest(result: Backtest) -> None:
    """Print which trials each rule would have stopped, and what that saves or loses."""
    metric = f"{result.metric} ({result.direction}, {SCORE_RULES[result.score_rule]})"
    terminal.print_heading(f"Backtest of {result.study}: {metric}")
    trials, epochs = format_count(result.trials, "trial"), format_count(result.epochs, "epoch")
    hours = "" if result.hours is None else f", {result.hours:.2f} device-hours"
    terminal.print_paragraph(f"{trials}, {epochs}{hours}; {result.ranked} ran to their end")
    best = result.best
    scores = dict.fromkeys((format_score(best[0].score), format_score(best[-1].score)))
    numbers = _list_numbers([trial.number for trial in best])
    terminal.print_paragraph(f"final best {len(best)} ({' to '.join(scores)}): trial {numbers}")
    print_rows(result.rows, len(best))
    if result.unknown:
        terminal.print_heading("Unknown from these records")
        for sentence in result.unknown:
            terminal.print_paragraph(sentence, indent=2)


def print_rows(rows: tuple[RuleResult, ...], best: int) -> None:
    """Print a line for each rule.

    On a narrow screen, the saved epochs are shares, and the best trials that a rule would have
    stopped are listed below the table.
    """
    terminal.print_line()
    # The lists of stopped trials may be wrapped, so they do not count for the width.
    without_lists = tuple(replace(row, best_killed=()) for row in rows)
    if fits_screen(_make_wide_table(without_lists, best)):
        terminal.print_renderable(_make_wide_table(rows, best))
        return
    terminal.print_renderable(_make_narrow_table(rows, best))
    for row in rows:
        if row.best_killed:
            numbers = _list_numbers(row.best_killed)
            terminal.print_paragraph(
                f"{row.rule} stops of the best {best}: trial {numbers}", indent=2
            )


def _make_wide_table(rows: tuple[RuleResult, ...], best: int) -> Table:
    table = make_table("stops", "epochs saved", "hours", left="rule")
    table.add_column(f"best {best}\nstopped", overflow="fold", min_width=7)
    table.add_column("best found", no_wrap=True)
    for row in rows:
        stopped = _list_numbers(row.best_killed) if row.best_killed else "none"
        found = (
            "none"
            if row.found is None
            else f"{format_score(row.found.score)} (trial {row.found.number})"
        )
        table.add_row(
            terminal.to_printable(row.rule),
            str(len(row.killed)),
            f"{row.epochs_saved} ({_format_share(row)})",
            _format_hours(row),
            stopped,
            found,
        )
    return table


def _make_narrow_table(rows: tuple[RuleResult, ...], best: int) -> Table:
    table = make_table(
        "stops",
        "epochs\nsaved",
        "hours",
        f"best {best}\nstopped",
        "best\nfound",
        gap=1,
        left="rule",
    )
    for row in rows:
        found = "none" if row.found is None else format_score(row.found.score)
        table.add_row(
            terminal.to_printable(row.rule),
            str(len(row.killed)),
            _format_share(row),
            _format_hours(row),
            str(len(row.best_killed)),
            found,
        )
    return table


def _format_share(row: RuleResult) -> str:
    return f"{100 * row.share_saved:.1f}%"


def _format_hours(row: RuleResult) -> str:
    return "-" if row.hours_saved is None else f"{row.hours_saved:.2f}"


def print_tuned(tuned: Tuned, best: int) -> None:
    """Print the proposed thresholds as YAML, and what they would do."""
    terminal.print_heading("Proposed thresholds")
    terminal.print_paragraph(
        f"They save the most without stopping any of the best {len(tuned.spared)} trials. That is "
        "twice the best tenth, as a margin for future trials."
    )
    print_rows(tuned.rows, best)
    terminal.print_line()
    terminal.print_line(yaml.safe_dump({"signals": tuned.signals}, sort_keys=False).rstrip())


def _list_numbers(numbers: Sequence[int]) -> str:
    more = f" … {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return terminal.to_printable(f"{', '.join(map(str, numbers[:SHOWN]))}{more}")
