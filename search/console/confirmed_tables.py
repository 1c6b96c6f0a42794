"""Print what training the best trials again over seeds showed."""

from __future__ import annotations

from search.console import terminal
from search.console.formatting import format_count, format_score
from search.console.table_layout import break_header, make_table
from search.report.search_models import Confirmation, ConfirmedTrial


def print_confirmation(found: Confirmation) -> None:
    """Print the confirmed trials, the likely best one first, and how sure that is."""
    terminal.print_heading("Confirmed")
    if not found.trials:
        terminal.print_paragraph("no training has ended yet")
        return
    columns = {
        "trial": [str(row.number) for row in found.trials],
        "seeds": [_format_seeds(row) for row in found.trials],
        f"mean {found.metric}": [format_score(row.mean) for row in found.trials],
        "95% interval": [_format_interval(row) for row in found.trials],
        "chance to be best": [format_chance(row.chance) for row in found.trials],
        "test": [format_score(row.test) for row in found.trials],
    }
    table = make_table(*map(break_header, columns))
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(terminal.to_printable, cells))
    terminal.print_renderable(table)
    terminal.print_paragraph(describe_confirmation(found))


def describe_confirmation(found: Confirmation) -> str:
    """Say which trial is the best, how sure that is, and what is missing."""
    winner = found.winner
    parts = ["No training has a score yet."]
    if winner is not None:
        parts = [
            f"Trial {winner.number} is the best of {format_count(len(found.trials), 'trial')} with "
            f"a chance of {format_chance(winner.chance)}; the scores that selected them do not "
            "count."
        ]
    if found.unfinished:
        trainings = format_count(found.unfinished, "training")
        verb = _be(found.unfinished)
        parts.append(f"{trainings} in {found.study} {verb} not finished.")
    if found.failed:
        parts.append(f"{format_count(found.failed, 'training')} in {found.study} failed.")
    if found.completed_since:
        completed = format_count(found.completed_since, "trial")
        parts.append(
            f"{completed} completed after that and {_be(found.completed_since)} not in it."
        )
    return " ".join(parts)


def _be(amount: int) -> str:
    return "is" if amount == 1 else "are"


def _format_seeds(row: ConfirmedTrial) -> str:
    """Format the number of seeds: `5`, or `5 (1 diverged)`."""
    return f"{row.seeds} ({row.diverged} diverged)" if row.diverged else str(row.seeds)


def _format_interval(row: ConfirmedTrial) -> str:
    """Format the interval: `0.3712 … 0.3904`; `-` without a score."""
    if row.low is None or row.high is None:
        return "-"
    return f"{format_score(row.low)} … {format_score(row.high)}"


def format_chance(chance: float) -> str:
    """Format a chance; none is certain."""
    return "> 99%" if chance > 0.995 else "< 1%" if chance < 0.005 else f"{chance:.0%}"
