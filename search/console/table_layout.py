"""The layout that all tables share: styles of states, headings of columns, what fits the screen."""

from __future__ import annotations

from rich import box
from rich.measure import Measurement
from rich.table import Table

from search.console import terminal

STATE_STYLES = {"complete": "green", "pruned": "yellow", "diverged": "red", "failed": "red"}

LONG_NAME = 9
"""Column names with more characters are broken into two lines."""

UNBOUNDED = 10_000
"""A width that no table reaches, columns."""


def break_header(name: str) -> str:
    """Break a long column name into two lines, because the values below it are short."""
    breaks = [place for place, character in enumerate(name) if character in "_. "]
    if len(name) <= LONG_NAME or not breaks:
        return name
    middle = min(breaks, key=lambda place: max(place + 1, len(name) - place - 1)) + 1
    return f"{name[:middle].strip()}\n{name[middle:]}"


def fits_screen(table: Table) -> bool:
    """Check whether the screen is wide enough for every cell of a table in one line."""
    console = terminal.get_console()
    options = console.options.update(max_width=UNBOUNDED)
    return Measurement.get(console, options, table).maximum <= console.width


def make_table(*right: str, gap: int = 2, left: str = "") -> Table:
    """Make a plain table that begins with columns of figures, with `gap` spaces between columns.

    Args:
        right: heads of the columns of figures.
        gap: spaces between two columns.
        left: head of a column of words before them; empty for none.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, gap - 1, 0, 0),
        pad_edge=False,
        header_style="bold",
        show_edge=False,
    )
    if left:
        table.add_column(left, no_wrap=True)
    for name in right:
        table.add_column(terminal.to_printable(name), justify="right", no_wrap=True)
    return table
