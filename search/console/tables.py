"""Print studies as tables: leaderboard, stopped trials, shipped studies, class weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from rich.table import Table

from search.console import terminal
from search.console.confirmed_tables import print_confirmation
from search.console.formatting import (
    format_count,
    format_number,
    format_params,
    format_score,
    format_setting,
    list_param_pairs,
    shorten_paths,
    wrap_pieces,
)
from search.console.rate_probe import print_rate_probe
from search.console.remedy_tables import print_remedies
from search.console.search_tables import print_search
from search.console.stopped_tables import (
    print_limited_trials,
    print_stopped_trials,
    print_warnings,
)
from search.console.table_layout import STATE_STYLES, break_header, fits_screen, make_table
from search.console.workers import format_device_time, print_workers
from search.report.models import LeaderboardRow, StudyReport
from spaces.parameters import Choice, Condition, Parameter, Scalar
from spaces.records import ClassCounts
from spaces.study import StudySpec

SCORE_RULES = {
    "best": "best epoch",
    "last": "last epoch",
    "mean_last_5": "mean of the last five epochs",
}

SHORT_CLASS = 8
"""Characters of a class's name where the screen is narrow."""

INDENT = 4
"""Indentation of the text below a row, columns."""


def print_study(report: StudyReport, top: int = 10) -> None:
    """Print a study: states, active workers, leaderboard, stopped trials and signs of health."""
    print_study_heading(report)
    if report.about:
        terminal.print_paragraph(report.about)
    terminal.print_paragraph(format_states(report))
    if report.device_budget_s is not None:
        terminal.print_paragraph(format_device_time(report))
    if report.rate_probe is not None:
        print_rate_probe(report.rate_probe)
    print_workers(report)
    print_leaderboard(report, top)
    if report.weights is not None:
        best = report.leaderboard[0].number
        terminal.print_paragraph(f"trained weights of trial {best}: {report.weights}")
    print_search(report)
    if report.confirmed is not None:
        print_confirmation(report.confirmed)
    print_stopped_trials(report)
    print_limited_trials(report)
    print_warnings(report)
    print_remedies(report)
    if report.health:
        terminal.print_heading("Signs of health")
        for line in report.health:
            terminal.print_paragraph(line, indent=2)


def print_study_heading(report: StudyReport) -> None:
    """Print the study's name, objective and metric."""
    metric = f"{report.metric} ({report.direction}, {SCORE_RULES[report.score_rule]})"
    terminal.print_heading(f"Study {report.name}: {report.objective}, {metric}")


def format_states(report: StudyReport) -> str:
    """Format the number of trials in each state.

    For example: `5 of 24 trials ended: 3 complete, 1 pruned, 1 diverged; 2 running, 17 left (12
    epochs each)`.
    """
    ended = {state: amount for state, amount in report.states.items() if state in STATE_STYLES}
    others = {state: amount for state, amount in report.states.items() if state not in ended}
    line = f"{sum(ended.values())} of {format_count(report.budget, 'trial')} ended"
    if any(ended.values()):
        line += f": {_list_states(ended)}"
    if any(others.values()):
        line += f"; {_list_states(others)}"
    return f"{line} ({format_count(report.epochs, 'epoch')} each)"


def _list_states(states: Mapping[str, int]) -> str:
    return ", ".join(f"{amount} {state}" for state, amount in states.items() if amount)


def print_leaderboard(report: StudyReport, top: int = 10) -> None:
    """Print the best trials with their sampled values, and how reliable their order is."""
    terminal.print_heading("Leaderboard")
    rows = report.leaderboard[:top]
    if not rows:
        terminal.print_line("  no trial is complete yet")
        return
    _print_rows(report, rows)
    terminal.print_paragraph(_describe_noise(report, rows))
    if len(report.leaderboard) > top:
        terminal.print_paragraph(
            f"{len(report.leaderboard) - top} more in `search show --study {report.name} --json`"
        )


def _describe_noise(report: StudyReport, rows: Sequence[LeaderboardRow]) -> str:
    """Say how reliable the order of the leaderboard is."""
    first = "The first row"
    tied = sum(row.tied for row in report.leaderboard)
    if tied:
        first = f"{format_count(tied, 'trial')} within noise of the first row (≈), which"
    noise = "too few epochs to measure the noise within a run"
    if any(row.noise is not None for row in rows):
        noise = "± is the noise within a run"
    return f"{first} is a suggestion, not a verdict: {noise}; other seeds add more."


def _print_rows(report: StudyReport, rows: Sequence[LeaderboardRow]) -> None:
    """Print the rows with a column per dimension, or with the dimensions below each trial.

    The columns are used if the screen is wide enough for them.
    """
    figures = {name: cells for name, cells in _figures(report, rows).items() if any(cells)}
    names = shorten_paths(
        dict.fromkeys(path for row in rows for path in (*row.params, *row.remedied))
    )
    starts = [_format_start(row, names) for row in rows]
    preset = {"preset": starts} if any(starts) else {}
    words = _dimensions(rows, names) | preset
    narrow = {**figures, "worst class": [_shorten_worst_class(row) for row in rows]}
    narrow = {name: cells for name, cells in narrow.items() if any(cells)}
    for columns, gap in ((figures, 2), (figures, 1), (narrow, 1)):
        table = _leaderboard(columns, words, gap)
        if fits_screen(table):
            terminal.print_renderable(table)
            return
    for row, start, cells in zip(rows, starts, _lines(figures), strict=True):
        terminal.print_line(terminal.to_printable(f"{cells}  {start}".rstrip()))
        for line in wrap_pieces(
            list_param_pairs(row.params, row.lr, names), terminal.get_console().width - INDENT
        ):
            terminal.print_line(f"{'':{INDENT}}{line}", style="dim")


def _figures(report: StudyReport, rows: Sequence[LeaderboardRow]) -> dict[str, list[str]]:
    return {
        "#": [f"{row.rank}{' ≈' if row.tied else ''}" for row in rows],
        "trial": [str(row.number) for row in rows],
        report.metric: [format_score(row.score) for row in rows],
        "±": ["" if row.noise is None else f"{row.noise:.3f}" for row in rows],
        "best epoch": [f"{row.best_epoch}/{row.epochs}" for row in rows],
        "worst class": [_format_worst_class(row) for row in rows],
        "test": ["" if row.test is None else format_score(row.test) for row in rows],
    }


def _format_start(row: LeaderboardRow, names: Mapping[str, str]) -> str:
    """Format what a trial started from: `safe`, or `remedy of 7: grad_clip_norm 5`.

    No column shows a value that a remedy changed and the study does not search.
    """
    values = ", ".join(list_param_pairs(row.remedied, None, names))
    return f"{row.preset}: {values}" if values else row.preset


def _shorten_worst_class(row: LeaderboardRow) -> str:
    """Format the name of the worst class alone, cut to a few characters."""
    if row.worst_class is None:
        return ""
    name = terminal.to_printable(row.worst_class[0])
    return name if len(name) <= SHORT_CLASS else f"{name[: SHORT_CLASS - 1]}…"


def _format_worst_class(row: LeaderboardRow) -> str:
    """Format the worst class: `digit_4 0.000 +2`, with the number of others never found."""
    if row.worst_class is None:
        return ""
    name, metric = row.worst_class
    others = len(set(row.never_found) - {name})
    more = f" +{others}" if others else ""
    return terminal.to_printable(f"{name} {metric:.3f}{more}")


def _dimensions(rows: Sequence[LeaderboardRow], names: Mapping[str, str]) -> dict[str, list[str]]:
    """Make a column for each dimension; its cell is empty for a trial that lacks the dimension."""
    shown = [format_params(row.params, row.lr, names) for row in rows]
    dimensions = dict.fromkeys(chain.from_iterable(shown))
    return {name: [params.get(name, "") for params in shown] for name in dimensions}


def _leaderboard(
    figures: Mapping[str, Sequence[str]], words: Mapping[str, Sequence[str]], gap: int
) -> Table:
    table = make_table(*map(break_header, figures), gap=gap)
    for name in words:
        table.add_column(terminal.to_printable(break_header(name)), no_wrap=True)
    for cells in zip(*figures.values(), *words.values(), strict=True):
        table.add_row(*map(terminal.to_printable, cells))
    return table


def _lines(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Print the heading, and format a line for each row."""
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


def print_studies(specs: Iterable[StudySpec]) -> None:
    """Print the shipped studies: what each searches, its ranges and its length."""
    for spec in specs:
        terminal.print_heading(spec.name)
        terminal.print_line(f"  {spec.about}")
        presets = f"; presets first: {', '.join(spec.presets)}" if spec.presets else ""
        trials, epochs = format_count(spec.trials, "trial"), format_count(spec.epochs, "epoch")
        terminal.print_line(f"  {trials} × {epochs}{presets}")
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
    """Format the condition of a dimension: `, when loss.kind is focal`; empty without one.

    `is not …` is used if that is the shorter list.
    """
    clauses = []
    for path, wanted in when.items():
        values = wanted if isinstance(wanted, tuple) else (wanted,)
        others = _list_other_choices(spec.space.get(path), values)
        if 0 < len(others) < len(values):
            clauses.append(f"{path} is not {_join_choices(others)}")
        else:
            clauses.append(f"{path} is {_join_choices(values)}")
    return f", when {' and '.join(clauses)}" if clauses else ""


def _list_other_choices(parent: Parameter | None, values: Sequence[Scalar]) -> list[Scalar]:
    if not isinstance(parent, Choice):
        return []
    return [choice for choice in parent.choices if choice not in values]


def _join_choices(values: Iterable[Scalar]) -> str:
    return " or ".join(map(format_setting, values))


def print_weights(counts: ClassCounts, table: Mapping[str, Sequence[float]]) -> None:
    """Print the pixels and shares of the classes, their weights by every method, and max/min."""
    _print_methods(counts, table)
    absent = [name for name, pixels in zip(counts.names, counts.counts, strict=True) if pixels == 0]
    if absent:
        terminal.print_warning(
            f"no pixel of {', '.join(absent)} in the training data: "
            "the weight is 1 and has no effect"
        )


def _print_methods(counts: ClassCounts, table: Mapping[str, Sequence[float]]) -> None:
    """Print one table, or on a narrow screen two, each with half of the methods."""
    for gap in (2, 1):
        shown = _weights(counts, table, gap)
        if fits_screen(shown) or len(table) < 2:
            terminal.print_renderable(shown)
            return
    names = list(table)
    for half in (names[: len(names) // 2], names[len(names) // 2 :]):
        _print_methods(counts, {name: table[name] for name in half})


def _weights(counts: ClassCounts, table: Mapping[str, Sequence[float]], gap: int) -> Table:
    total = sum(counts.counts) or 1
    shown = make_table(gap=gap)
    shown.add_column("class", overflow="fold")
    for name in ("pixels", "share %", *table):
        shown.add_column(terminal.to_printable(break_header(name)), justify="right", no_wrap=True)
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
    return f"{value:.4f}" if 0.01 <= value < 100 else format_number(value)
