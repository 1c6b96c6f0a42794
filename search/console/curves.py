"""Print one trial: its configuration, its curves and its classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from search.console import terminal
from search.console.explanation import print_end
from search.console.formatting import (
    format_count,
    format_number,
    format_rate,
    format_score,
    format_setting,
    wrap_pieces,
)
from search.console.remedy_tables import format_remedy_trial
from search.console.table_layout import STATE_STYLES
from search.planning.base_rate import BASE_LR
from search.report.models import TrialReport
from search.stored_study import LR_MULTIPLE
from spaces.config_tree import ConfigTree
from spaces.records import EpochRecord, best_record

CHART_WIDTH, CHART_HEIGHT = 100, 13
"""Largest size of a chart: columns, and lines including its frame."""

X_LABELS = 12
"""How many epochs are labeled below a chart at most."""

Y_STEPS = 4
"""Steps of the scale beside a chart."""

HUGE = 1e300

Points = Sequence[tuple[int, float]]
"""Epochs and their heights in a chart."""


@dataclass(frozen=True, slots=True)
class Series:
    """A curve. `letter` marks its epochs, so that curves can be distinguished without color."""

    letter: str
    name: str
    color: str
    values: Sequence[float]


def print_trial(report: TrialReport, store: str = "") -> None:
    """Print everything about a trial; why it was stopped comes last.

    Args:
        store: the `--store` option for the command that is printed.
    """
    _print_head(report)
    _print_config(report)
    _print_curves(report)
    _print_classes(report)
    if report.records:
        terminal.print_heading("Signs of health")
        for line in report.health:
            terminal.print_paragraph(line, indent=2)
    print_end(report, store)


def _print_head(report: TrialReport) -> None:
    is_remedy = report.remedy_of is not None
    preset = f" (preset {report.preset})" if report.preset and not is_remedy else ""
    terminal.print_heading(f"Trial {report.number} of {report.study}{preset}")
    done = report.records[-1].epoch if report.records else 0
    reached = f", {report.metric} {format_score(report.score)}" if report.score is not None else ""
    terminal.print_line(
        f"{report.state} after {done} of {format_count(report.epochs, 'epoch')}{reached}",
        style=STATE_STYLES.get(report.state, ""),
    )
    if report.remedy_of is not None:
        terminal.print_paragraph(format_remedy_trial(report.remedy_of))
    tests = [record.test.metric for record in report.records if record.test]
    if tests:
        score = format_score(tests[-1])
        terminal.print_line(f"{report.metric} on the test split (used for no decision): {score}")
    again = ""
    if report.attempts > 1:
        attempts = format_count(report.attempts, "attempt")
        again = f" ({attempts}: it was paused, or its worker stopped responding)"
    terminal.print_line(f"worker {report.worker} on {report.host}{again}")


def _print_config(report: TrialReport) -> None:
    """Print the configuration by section; searched values are marked with an asterisk."""
    terminal.print_heading("Configuration (* searched)")
    top = {key: value for key, value in report.config.items() if not isinstance(value, Mapping)}
    sections = {"trial": (top, "")} | {
        key: (value, f"{key}.")
        for key, value in report.config.items()
        if isinstance(value, Mapping)
    }
    margin = max(map(len, sections)) + 4
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(no_wrap=True)
    for name, (values, prefix) in sections.items():
        settings = [
            terminal.to_printable(_setting(f"{prefix}{key}", key, value, report))
            for key, value in ConfigTree(values).items()
        ]
        lines = Text("\n".join(wrap_pieces(settings, terminal.get_console().width - margin)))
        lines.highlight_regex(r"\*[^,]+", "bold")
        grid.add_row(f"  {name}", lines)
    terminal.print_renderable(grid)


def _setting(path: str, key: str, value: Any, report: TrialReport) -> str:
    mark = "*" if path in report.params else ""
    text = f"{mark}{key} {format_setting(value)}"
    if path != LR_MULTIPLE:
        return text
    lr = report.lr if report.lr is not None else ConfigTree(report.config)[BASE_LR] * value
    return f"{text}, lr {format_rate(lr, value)}"


def _print_curves(report: TrialReport) -> None:
    records = report.records
    if not records:
        terminal.print_heading("Curves")
        terminal.print_line("  no epoch is recorded yet")
        return
    if len(records) == 1:
        _print_only_epoch(report, records[0])
        return
    epochs = [record.epoch for record in records]
    loss = [Series("t", "training loss", "blue", [record.train_loss for record in records])]
    loss.append(Series("v", "validation loss", "orange", [record.val_loss for record in records]))
    for record in records:
        if record.broken_step is not None:
            terminal.print_paragraph(
                f"\nepoch {record.epoch} stopped at step {record.broken_step} and was not validated"
            )
    _print_chart(epochs, loss, log=False)
    _print_chart(
        epochs,
        [Series("m", report.metric, "green", [record.metric for record in records])],
        log=False,
    )
    largest = [record.grad_norm_max for record in records]
    _print_chart(
        epochs,
        [Series("g", "largest gradient norm before clipping, log scale", "red", largest)],
        log=True,
    )


def _print_only_epoch(report: TrialReport, record: EpochRecord) -> None:
    """Print the numbers of a trial's only epoch, which makes no curve."""
    terminal.print_heading("Curves")
    terminal.print_line("  only one epoch so far:")
    train_loss, val_loss = format_number(record.train_loss), format_number(record.val_loss)
    median = format_number(record.grad_norm_median)
    largest = format_number(record.grad_norm_max)
    terminal.print_paragraph(
        f"loss {train_loss}, validation loss {val_loss}, "
        f"{report.metric} {format_score(record.metric)}, "
        f"gradient norm {median} (median), {largest} (largest)",
        indent=2,
    )


def _print_chart(epochs: Sequence[int], series: Sequence[Series], *, log: bool) -> None:
    """Print a chart below its title; a value that cannot be drawn leaves a gap."""
    names = " and ".join(f"{curve.name} ({curve.letter})" for curve in series)
    terminal.print_heading(f"{names} by epoch")
    points = [_points(epochs, curve.values, log) for curve in series]
    if any(points):
        terminal.print_renderable(Text.from_ansi(_chart(epochs, series, points, log=log)))


def _points(epochs: Sequence[int], values: Sequence[float], log: bool) -> Points:
    """List the points that can be drawn.

    The logarithm is computed here, because plotext's logarithmic scale fails on a single value.
    NaN, infinity, and values whose difference overflows abort plotext.
    """
    drawable = [
        (epoch, value)
        for epoch, value in zip(epochs, values, strict=True)
        if abs(value) < HUGE and (value > 0 or not log)
    ]
    return [(epoch, math.log10(value) if log else value) for epoch, value in drawable]


def _chart(
    epochs: Sequence[int], series: Sequence[Series], points: Sequence[Points], *, log: bool
) -> str:
    plotext = import_module("plotext")  # takes half a second; only this command needs it
    plotext.terminal.limit(False, False)
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(min(terminal.get_console().width, CHART_WIDTH), CHART_HEIGHT)
    for curve, drawn in zip(series, points, strict=True):
        if drawn:
            places = [list(axis) for axis in zip(*drawn, strict=True)]
            line = plotext.marker("." if terminal.is_ascii_only() else "braille", curve.color)
            figure.draw(figure.signal(*places, marker=line).lines())
            figure.draw(figure.signal(*places, marker=plotext.marker(curve.letter, curve.color)))
    low, high = _find_limits([height for drawn in points for _, height in drawn], log)
    marks = [low + (high - low) * step / Y_STEPS for step in range(Y_STEPS + 1)]
    figure.ruler("y").lim(low, high)
    figure.ruler("y").ticks(marks, [format_number(10**mark if log else mark) for mark in marks])
    named = [
        epoch for epoch in epochs if (epoch - epochs[0]) % math.ceil(len(epochs) / X_LABELS) == 0
    ]
    figure.ruler("x").ticks(named, [str(epoch) for epoch in named])
    text: str = figure.build().string(
        colorless=terminal.get_console().no_color or not terminal.get_console().is_terminal
    )
    return terminal.to_printable(text.rstrip())


def _find_limits(heights: Sequence[float], log: bool) -> tuple[float, float]:
    """Find the lowest and highest value; a flat curve gets a margin so that its marks differ."""
    low, high = min(heights), max(heights)
    margin = 0.1 if log else 0.05 * max(abs(low), abs(high)) or 1.0
    return (low, high) if high - low > margin / 50 else (low - margin, high + margin)


def _print_classes(report: TrialReport) -> None:
    """Print the metric per class at the first, best and last epoch, and on the test split."""
    complete = [record for record in report.records if record.broken_step is None]
    if not complete:
        return
    best, last = best_record(complete, report.direction), complete[-1]
    chosen = {
        f"epoch {complete[0].epoch}": complete[0].class_metric,
        f"best: {best.epoch}": best.class_metric,
        f"last: {last.epoch}": last.class_metric,
    }
    if last.test is not None:
        chosen["test"] = last.test.class_metric
    terminal.print_heading("Classes")
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold",
        show_edge=False,
    )
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("class", overflow="fold")
    for name in (*chosen, "change"):
        table.add_column(name, justify="right", no_wrap=True)
    for index in range(len(last.class_metric)):
        values = [column[index] for column in chosen.values()]
        table.add_row(
            str(index),
            terminal.to_printable(_class_name(report, index)),
            *map(format_score, values),
            _format_change(complete, index),
        )
    terminal.print_renderable(table)


def _class_name(report: TrialReport, index: int) -> str:
    return report.class_names[index] if index < len(report.class_names) else str(index)


def _format_change(records: Sequence[EpochRecord], index: int) -> str:
    """Format the change of a class's metric from the first to the last epoch."""
    first, last = records[0].class_metric[index], records[-1].class_metric[index]
    return "-" if first is None or last is None else f"{last - first:+.4f}"
