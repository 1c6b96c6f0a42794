"""Print what the search expects: paused trials, the likely best one, and the expected gain."""

from __future__ import annotations

from search.console import terminal
from search.console.formatting import format_count, format_score
from search.console.table_layout import make_table
from search.report.models import StudyReport

SHOWN = 5
"""Paused trials that are listed."""


def print_search(report: StudyReport) -> None:
    """Print the epochs spent, the paused trials, and what the search expects."""
    if report.search is None and report.epochs_budget is None:
        return
    terminal.print_heading("Search")
    budget = "" if report.epochs_budget is None else f" of {report.epochs_budget}"
    full = report.budget * report.epochs
    terminal.print_paragraph(
        f"{report.trained_epochs}{budget} epochs trained "
        f"({report.budget} trials without pauses: {full})",
        indent=2,
    )
    for line in _describe_outlook(report):
        terminal.print_paragraph(line, indent=2)
    if report.paused:
        _print_paused(report)


def _describe_outlook(report: StudyReport) -> list[str]:
    found = report.search
    if found is None:
        return []
    lines = []
    if found.likely_best is not None:
        lines.append(
            f"likely best configuration: trial {found.likely_best}, by all curves together"
        )
    if found.gain is not None:
        gain = "less than 0.0001" if found.gain < 1e-4 else f"{found.gain:.2g}"
        lines.append(
            f"expected further gain: {gain} {report.metric} "
            f"for the next {format_count(found.gain_epochs or 0, 'epoch')}"
        )
    if found.prior_agreement is not None:
        lines.append(
            "what was known before the study against its trials: rank correlation "
            f"{found.prior_agreement:.2f} of expected and reached scores"
        )
    return lines


def _print_paused(report: StudyReport) -> None:
    count = format_count(len(report.paused), "trial")
    terminal.print_paragraph(f"{count} paused, the most promising first:", indent=2)
    table = make_table("trial", report.metric)
    table.add_column("paused", overflow="fold", ratio=1)
    for trial in report.paused[:SHOWN]:
        table.add_row(
            str(trial.number), format_score(trial.score), terminal.to_printable(trial.reason)
        )
    terminal.print_renderable(table)
