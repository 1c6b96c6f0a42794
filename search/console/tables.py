"""Studies as tables: leaderboard, kills, what the shipped studies search, class weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from search.console import terminal
from search.console.formatting import (
    count,
    joined,
    number,
    pairs,
    sampled,
    score,
    setting,
    short_names,
)
from search.console.workers import format_device_time, print_workers
from search.report.models import Kill, LeaderboardRow, StudyReport
from spaces.parameters import Choice, Condition
from spaces.records import ClassCounts
from spaces.study import StudySpec

SCORE_RULES = {
    "best": "best epoch",
    "last": "last epoch",
    "mean_last_5": "mean of the last five epochs",
}

STATE_STYLES = {"complete": "green", "pruned": "yellow", "diverged": "red", "failed": "red"}

KILL_ORDER = ("failed", "diverged", "pruned")
"""What needs a look first comes first."""

LONG_NAME = 9
"""Longer names of columns are broken in two, characters."""

INDENT = 4
"""Of what is told below a row, columns."""

UNBOUNDED = 10_000
"""A width that no table reaches."""


def print_study(report: StudyReport, top: int = 10) -> None:
    """How a study stands: states, who works on what, leaderboard, kills and signs of health."""
    terminal.print_heading(
        f"Study {report.name}: {report.objective}, {report.metric} ({report.direction}, {SCORE_RULES[report.score_rule]})"
    )
    if report.about:
        terminal.print_paragraph(report.about)
    terminal.print_paragraph(states_line(report))
    if report.device_budget_s is not None:
        terminal.print_paragraph(format_device_time(report))
    print_workers(report)
    print_leaderboard(report, top)
    if report.weights is not None:
        terminal.print_paragraph(
            f"the trained state of trial {report.leaderboard[0].number}: {report.weights}"
        )
    print_kills(report)
    if report.health:
        terminal.print_heading("Signs of health")
        for line in report.health:
            terminal.print_paragraph(line, indent=2)


def states_line(report: StudyReport) -> str:
    """`5 of 24 trials ended: 3 complete, 1 pruned, 1 diverged; 2 running, 17 left (12 epochs each)`."""
    ended = {state: report.states[state] for state in STATE_STYLES}
    still = {
        state: amount for state, amount in report.states.items() if state not in ended and amount
    }
    told = ", ".join(f"{amount} {state}" for state, amount in ended.items() if amount)
    rest = ", ".join(f"{amount} {state}" for state, amount in still.items())
    parts = f"{sum(ended.values())} of {count(report.budget, 'trial')} ended{': ' if told else ''}{told}{'; ' if rest else ''}{rest}"
    return f"{parts} ({count(report.epochs, 'epoch')} each)"


def print_leaderboard(report: StudyReport, top: int = 10) -> None:
    """The best trials with what was sampled for them, and how far their order can be trusted."""
    terminal.print_heading("Leaderboard")
    rows = report.leaderboard[:top]
    if not rows:
        terminal.print_line("  no trial is complete yet")
        return
    _print_rows(report, rows)
    tied = sum(row.tied for row in report.leaderboard)
    close = (
        f"{count(tied, 'trial')} within noise of the first row (≈), which"
        if tied
        else "The first row"
    )
    shown = any(row.noise is not None for row in rows)
    measured = (
        "± is the noise within a run"
        if shown
        else "so few epochs do not show the noise within a run"
    )
    terminal.print_paragraph(
        f"{close} is a suggestion, not a verdict: {measured}; other seeds add more."
    )
    if len(report.leaderboard) > top:
        terminal.print_paragraph(
            f"{len(report.leaderboard) - top} more in `search show --study {report.name} --json`"
        )


def _print_rows(report: StudyReport, rows: Sequence[LeaderboardRow]) -> None:
    """With a column for every dimension where the screen is wide enough, else with the dimensions below each trial."""
    figures = {name: cells for name, cells in _figures(report, rows).items() if any(cells)}
    names = short_names(dict.fromkeys(path for row in rows for path in row.params))
    preset = {"preset": [row.preset for row in rows]} if any(row.preset for row in rows) else {}
    words = _dimensions(rows, names) | preset
    for gap in (2, 1):
        table = _leaderboard(figures, words, gap)
        if fits(table):
            terminal.print_renderable(table)
            return
    for row, cells in zip(rows, _lines(figures), strict=True):
        terminal.print_line(f"{cells}  {row.preset}".rstrip())
        for line in joined(pairs(row.params, row.lr, names), terminal.get_console().width - INDENT):
            terminal.print_line(f"{'':{INDENT}}{line}", style="dim")


def _figures(report: StudyReport, rows: Sequence[LeaderboardRow]) -> dict[str, list[str]]:
    return {
        "#": [f"{row.rank}{' ≈' if row.tied else ''}" for row in rows],
        "trial": [str(row.number) for row in rows],
        report.metric: [score(row.score) for row in rows],
        "±": ["" if row.noise is None else f"{row.noise:.3f}" for row in rows],
        "best epoch": [f"{row.best_epoch}/{row.epochs}" for row in rows],
        "test": ["" if row.test is None else score(row.test) for row in rows],
    }


def _dimensions(rows: Sequence[LeaderboardRow], names: Mapping[str, str]) -> dict[str, list[str]]:
    """A dimension that does not exist in a trial leaves its cell empty."""
    shown = [sampled(row.params, row.lr, names) for row in rows]
    return {
        name: [params.get(name, "") for params in shown]
        for name in dict.fromkeys(name for params in shown for name in params)
    }


def _leaderboard(
    figures: Mapping[str, Sequence[str]], words: Mapping[str, Sequence[str]], gap: int
) -> Table:
    table = _table(*map(_header, figures), gap=gap)
    for name in words:
        table.add_column(terminal.to_printable(_header(name)), no_wrap=True)
    for cells in zip(*figures.values(), *words.values(), strict=True):
        table.add_row(*map(terminal.to_printable, cells))
    return table


def _lines(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each row, below the heading, which is printed."""
    widths = {
        terminal.to_printable(name): max(map(len, (terminal.to_printable(name), *cells)))
        for name, cells in columns.items()
    }
    terminal.print_line(
        "  ".join(f"{name:>{width}}" for name, width in widths.items()), style="bold"
    )
    rows = zip(*columns.values(), strict=True)
    return [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths.values(), strict=True))
        for row in rows
    ]


def _header(name: str) -> str:
    """A long name in two lines, for the values below it are short."""
    breaks = [place for place, character in enumerate(name) if character in "_. "]
    if len(name) <= LONG_NAME or not breaks:
        return name
    middle = min(breaks, key=lambda place: max(place + 1, len(name) - place - 1)) + 1
    return f"{name[:middle].strip()}\n{name[middle:]}"


def print_kills(report: StudyReport, top: int | None = None) -> None:
    """Every trial that was killed or failed, why, and what to try; then how often each cause came up."""
    if not report.kills:
        return
    kills = sorted(report.kills, key=lambda kill: KILL_ORDER.index(kill.state))
    terminal.print_heading("Kills")
    table = _table("trial", "epoch")
    table.add_column("ended by", no_wrap=True)
    table.add_column("why, and what to try", overflow="fold", ratio=1)
    for kill in kills[:top]:
        name = "-" if kill.number is None else str(kill.number)
        epoch = "-" if kill.epoch is None else str(kill.epoch)
        table.add_row(
            name,
            epoch,
            Text(kill.signal, style=STATE_STYLES[kill.state]),
            terminal.to_printable(_why(kill)),
        )
    terminal.print_renderable(table)
    if top is not None and len(kills) > top:
        terminal.print_paragraph(
            f"{len(kills) - top} more in `search show --study {report.name} --json`"
        )
    terminal.print_paragraph(
        "By cause: " + ", ".join(f"{amount} × {cause}" for cause, amount in report.causes.items())
    )
    for lesson in report.lessons:
        terminal.print_paragraph(f"Learnt: {lesson}")


def _why(kill: Kill) -> str:
    """The numbers, then the cause and the first remedy where somebody diagnosed them."""
    lines = [kill.reason.removeprefix(f"{kill.signal}: ")]
    if kill.state == "diverged":
        lines.append(
            f"likely cause: {kill.cause}"
            + (f" ({kill.confidence:.0%} sure)" if kill.confidence is not None else "")
        )
    if kill.remedy:
        lines.append(f"try: {kill.remedy}")
    return "\n".join(lines)


def print_studies(specs: Iterable[StudySpec]) -> None:
    """The studies that come with the package: what each searches, in which ranges, and how long it takes."""
    for spec in specs:
        terminal.print_heading(spec.name)
        terminal.print_line(f"  {spec.about}")
        presets = f"; tries first: {', '.join(spec.presets)}" if spec.presets else ""
        terminal.print_line(
            f"  {count(spec.trials, 'trial')} × {count(spec.epochs, 'epoch')}{presets}"
        )
        grid = Table.grid(padding=(0, 2), expand=False)
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for path, dimension in spec.space.items():
            grid.add_row(
                f"    {path}",
                terminal.to_printable(f"{dimension}{_condition(dimension.when, spec)}"),
            )
        terminal.print_renderable(grid)


def _condition(when: Condition, spec: StudySpec) -> str:
    """`, when loss.kind is focal`, or `is not …` where that is the shorter list."""
    told = []
    for path, wanted in when.items():
        values = wanted if isinstance(wanted, tuple) else (wanted,)
        parent = spec.space.get(path)
        others = (
            [choice for choice in parent.choices if choice not in values]
            if isinstance(parent, Choice)
            else []
        )
        word, named = ("is not", others) if 0 < len(others) < len(values) else ("is", list(values))
        told.append(f"{path} {word} {' or '.join(map(setting, named))}")
    return f", when {' and '.join(told)}" if told else ""


def print_weights(counts: ClassCounts, table: Mapping[str, Sequence[float]]) -> None:
    """The classes with their pixels and shares, the weight that every method gives them, and each method's max/min."""
    _print_methods(counts, table)
    absent = [name for name, pixels in zip(counts.names, counts.counts, strict=True) if pixels == 0]
    if absent:
        terminal.print_warning(
            f"no pixel of {', '.join(absent)} in the training data: the weight is 1, and means nothing"
        )


def _print_methods(counts: ClassCounts, table: Mapping[str, Sequence[float]]) -> None:
    """One table, or two with half of the methods each where the screen is narrow."""
    for gap in (2, 1):
        shown = _weights(counts, table, gap)
        if fits(shown) or len(table) < 2:
            terminal.print_renderable(shown)
            return
    names = list(table)
    for half in (names[: len(names) // 2], names[len(names) // 2 :]):
        _print_methods(counts, {name: table[name] for name in half})


def _weights(counts: ClassCounts, table: Mapping[str, Sequence[float]], gap: int) -> Table:
    total = sum(counts.counts) or 1
    shown = _table(gap=gap)
    shown.add_column("class", overflow="fold")
    for name in ("pixels", "share %", *table):
        shown.add_column(terminal.to_printable(_header(name)), justify="right", no_wrap=True)
    for index, (name, pixels) in enumerate(zip(counts.names, counts.counts, strict=True)):
        weights = [_weight(method[index]) for method in table.values()]
        shown.add_row(
            terminal.to_printable(name), f"{pixels:,}", f"{100 * pixels / total:.3g}", *weights
        )
    shown.add_section()
    shown.add_row(
        "max/min",
        "",
        "",
        *(f"{max(method) / min(method):.4g}" for method in table.values()),
        style="bold",
    )
    return shown


def _weight(value: float) -> str:
    return f"{value:.4f}" if 0.01 <= value < 100 else number(value)


def fits(table: Table) -> bool:
    """Whether the screen is wide enough for every cell in one line."""
    console = terminal.get_console()
    return (
        Measurement.get(console, console.options.update(max_width=UNBOUNDED), table).maximum
        <= console.width
    )


def _table(*right: str, gap: int = 2) -> Table:
    """A sober table, with columns of figures to begin with, and `gap` spaces between columns."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, gap - 1, 0, 0),
        pad_edge=False,
        header_style="bold",
        show_edge=False,
    )
    for name in right:
        table.add_column(terminal.to_printable(name), justify="right", no_wrap=True)
    return table
