"""Print what remedies did: a row for each remedy, and a line for each trial that tried one."""

from __future__ import annotations

from search.console import terminal
from search.console.formatting import format_score
from search.console.table_layout import make_table
from search.report.models import RemedyTrial, StudyReport

SHOWN = 10
"""How many trials that tried a remedy are printed."""


def print_remedies(report: StudyReport) -> None:
    """Print the record of all remedies that were tried; nothing where none was."""
    if not report.remedy_trials:
        return
    terminal.print_heading("Remedies that were tried")
    if report.remedies:
        _print_record(report)
    for outcome in report.remedy_trials[-SHOWN:]:
        terminal.print_paragraph(format_remedy_trial(outcome), indent=2)
    if len(report.remedy_trials) > SHOWN:
        terminal.print_paragraph(
            f"{len(report.remedy_trials) - SHOWN} earlier ones in "
            f"`search show --study {report.name} --json`"
        )


def _print_record(report: StudyReport) -> None:
    table = make_table()
    table.add_column("remedy", overflow="fold")
    for name in ("tried", "helped", "worse", "median change"):
        table.add_column(name, justify="right", no_wrap=name != "median change")
    for record in report.remedies:
        change = record.median_change
        table.add_row(
            terminal.to_printable(record.title),
            *map(str, (record.tried, record.helped, record.worse)),
            "-" if change is None else f"{change:+.4f}",
        )
    terminal.print_renderable(table)


def format_remedy_trial(outcome: RemedyTrial) -> str:
    """Format what a remedy did.

    For example: `trial 31 tries the remedy of 7 (learning rate × 0.5): 0.194 → 0.323, helped`.
    """
    title = f" ({outcome.title})" if outcome.title else ""
    text = f"trial {outcome.number} tries the remedy of {outcome.of}{title}"
    if outcome.before is None and outcome.after is None and outcome.verdict is None:
        return text
    shown = {None: "too short to judge", "same": "within noise"}
    verdict = shown.get(outcome.verdict, outcome.verdict)
    span = "" if outcome.epochs is None else f" over {outcome.epochs} epochs"
    before, after = format_score(outcome.before), format_score(outcome.after)
    return f"{text}: {before} → {after}{span}, {verdict}"
