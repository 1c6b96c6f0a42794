"""The sample in README.md: how the console shows a study, written after a run of the demo."""

from __future__ import annotations

from pathlib import Path

from search.console import tables, terminal
from search.report.models import StudyReport

PAGE = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- sample: begin, written by `python -m benchmarks.demo --readme` -->"
END = "<!-- sample: end -->"

WIDTH = 80
"""Columns of the sample."""

LEADERBOARD_ROWS, STOPPED_TRIALS = 5, 2
"""How much of the leaderboard and of the stopped trials the sample has."""


def render_sample(report: StudyReport) -> str:
    """Print the heading, leaderboard and stopped trials of a study as plain text."""
    with terminal.capture_output(WIDTH) as printed:
        tables.print_study_heading(report)
        tables.print_leaderboard(report, LEADERBOARD_ROWS)
        tables.print_stopped_trials(report, STOPPED_TRIALS)
    lines = [line.rstrip() for line in printed.getvalue().strip("\n").splitlines()]
    return "\n".join(lines)


def read_sample(page: Path = PAGE) -> str:
    """Read the sample of a page; empty if none has been written yet.

    Raises:
        ValueError: when the page does not have the two marker comments.
    """
    _, between, _ = _split_page(page)
    return between.strip().removeprefix("```").removesuffix("```").strip("\n")


def write_sample(report: StudyReport, page: Path = PAGE) -> None:
    """Write the sample of a study between the marker comments of a page.

    Raises:
        ValueError: when the page does not have the two marker comments.
    """
    before, _, after = _split_page(page)
    sample = f"```\n{render_sample(report)}\n```"
    page.write_text(f"{before}{BEGIN}\n{sample}\n{END}{after}", encoding="utf-8")


def _split_page(page: Path) -> tuple[str, str, str]:
    """Split a page into the texts before, between and after the marker comments."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    between, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} does not have the comments {BEGIN} and {END}")
    return before, between, after
