"""Print the trials that were stopped or limited: by what, the likely cause, and what to try."""

from __future__ import annotations

from rich.text import Text

from search.console import terminal
from search.console.formatting import format_confidence, format_score
from search.console.table_layout import STATE_STYLES, make_table
from search.report.models import Kill, StudyReport
from spaces.records import CLEAR_CONFIDENCE

STOPPED_ORDER = ("failed", "diverged", "pruned")
"""The order of stopped trials by state: what needs attention is listed first."""

SHOWN_LIMITED = 10
"""How many complete trials that are worse than their peers are printed."""


def print_stopped_trials(report: StudyReport, top: int | None = None) -> None:
    """Print the trials that were stopped or failed, why, and what to try.

    The causes follow with how often each occurred, and what the stopped trials have in common.
    """
    if not report.kills:
        return
    kills = sorted(report.kills, key=lambda kill: STOPPED_ORDER.index(kill.state))
    terminal.print_heading("Stopped trials")
    table = make_table("trial", "epoch")
    table.add_column("stopped by", no_wrap=True)
    table.add_column("why, and what to try", overflow="fold", ratio=1)
    for kill in kills[:top]:
        name = "-" if kill.number is None else str(kill.number)
        epoch = "-" if kill.epoch is None else str(kill.epoch)
        table.add_row(
            name,
            epoch,
            Text(_name_end(kill), style=STATE_STYLES[kill.state]),
            terminal.to_printable(_explain_end(kill)),
        )
    terminal.print_renderable(table)
    if top is not None and len(kills) > top:
        terminal.print_paragraph(
            f"{len(kills) - top} more in `search show --study {report.name} --json`"
        )
    causes = [f"{amount} × {cause}" for cause, amount in report.causes.items()]
    terminal.print_paragraph(f"By cause: {', '.join(causes)}")
    for lesson in report.lessons:
        terminal.print_paragraph(f"Learned: {lesson}")


def _name_end(kill: Kill) -> str:
    """Name what ended a trial; without evidence the reason next to it begins with that name."""
    return kill.state if kill.state == "pruned" and not kill.statement else kill.signal


def _explain_end(kill: Kill) -> str:
    """Format the evidence with its numbers, then a clear cause and its first remedy."""
    lines = [kill.statement or kill.reason]
    if kill.is_diagnosed and kill.confidence is not None:
        lines.append(f"likely cause: {kill.cause} ({format_confidence(kill.confidence)})")
    elif kill.state == "diverged":
        lines.append(kill.cause if kill.confidence is not None else f"likely cause: {kill.cause}")
    if kill.remedy:
        lines.append(f"try: {kill.remedy}")
    return "\n".join(lines)


def print_warnings(report: StudyReport) -> None:
    """Print what was found in complete trials, which nevertheless ran to their end."""
    if not report.warnings:
        return
    terminal.print_heading("Warnings")
    for warning in report.warnings:
        cause = f"; likely cause: {warning.cause}" if warning.cause else ""
        spared = f"; spared: {warning.spared}" if warning.spared else ""
        terminal.print_paragraph(
            f"trial {warning.number}, epoch {warning.epoch}: {warning.signal}: "
            f"{warning.statement}{spared}{cause}",
            indent=2,
        )


def print_limited_trials(report: StudyReport) -> None:
    """Print the complete trials that are clearly worse than their peers, and what limited them."""
    if not report.limited:
        return
    terminal.print_heading("Complete trials clearly worse than their peers")
    for limited in report.limited[:SHOWN_LIMITED]:
        cause = limited.cause
        if limited.confidence >= CLEAR_CONFIDENCE:
            cause = f"likely limited by: {cause} ({format_confidence(limited.confidence)})"
        remedy = f"; try: {limited.remedy}" if limited.remedy else ""
        terminal.print_paragraph(
            f"trial {limited.number}: {format_score(limited.score)}, where the median is "
            f"{format_score(limited.usual)}; {cause}{remedy}",
            indent=2,
        )
    if len(report.limited) > SHOWN_LIMITED:
        terminal.print_paragraph(
            f"{len(report.limited) - SHOWN_LIMITED} more in "
            f"`search show --study {report.name} --json`"
        )
