"""One trial, explained: its configuration, its curves, its classes, and why it ended."""

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
from search.console.formatting import count, joined, number, rate, score, setting
from search.console.tables import STATE_STYLES
from search.diagnosis.remedies import describe_remedy
from search.report.models import TrialReport
from search.stored_study import BASE_LR, LR_MULTIPLE
from spaces.config_tree import ConfigTree
from spaces.records import Diagnosis, EpochRecord, Evidence, best_record

CHART_WIDTH, CHART_HEIGHT = 100, 13
"""At most so many columns, and so many lines, frame included."""

X_LABELS = 12
"""At most so many epochs are named below a chart."""

Y_STEPS = 4
"""Steps of the scale beside a chart."""

HUGE = 1e300

Points = Sequence[tuple[int, float]]
"""Epochs, and where their values stand."""


@dataclass(frozen=True, slots=True)
class Series:
    """A curve. `letter` marks its epochs, so that curves can be told apart without colour."""

    letter: str
    name: str
    colour: str
    values: Sequence[float]


def print_trial(report: TrialReport, store: str = "") -> None:
    """Everything about a trial that a person may ask for, the reason of its end last; `store` is the option that finds it again."""
    _print_head(report)
    _print_config(report)
    _print_curves(report)
    _print_classes(report)
    if report.records:
        terminal.head("Signs of health")
        for line in report.health:
            terminal.tell(line, indent=2)
    _print_end(report, store)


def _print_head(report: TrialReport) -> None:
    terminal.head(
        f"Trial {report.number} of {report.study}{f' (preset {report.preset})' if report.preset else ''}"
    )
    done = report.records[-1].epoch if report.records else 0
    told = f", {report.metric} {score(report.score)}" if report.score is not None else ""
    terminal.say(
        f"{report.state} after {done} of {count(report.epochs, 'epoch')}{told}",
        style=STATE_STYLES.get(report.state, ""),
    )
    tests = [record.test.metric for record in report.records if record.test]
    if tests:
        terminal.say(
            f"{report.metric} on the test split, by which nothing was chosen: {score(tests[-1])}"
        )
    again = (
        f" ({count(report.attempts, 'attempt')}: it was paused, or its worker vanished)"
        if report.attempts > 1
        else ""
    )
    terminal.say(f"worker {report.worker} on {report.host}{again}")


def _print_config(report: TrialReport) -> None:
    """Section by section. What was searched is marked; the learning rate stands beside its multiple."""
    terminal.head("Configuration (* searched)")
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
            terminal.fit(_setting(f"{prefix}{key}", key, value, report))
            for key, value in ConfigTree(values).items()
        ]
        lines = Text("\n".join(joined(settings, terminal.console().width - margin)))
        lines.highlight_regex(r"\*[^,]+", "bold")
        grid.add_row(f"  {name}", lines)
    terminal.show(grid)


def _setting(path: str, key: str, value: Any, report: TrialReport) -> str:
    told = f"{'*' if path in report.params else ''}{key} {setting(value)}"
    if path != LR_MULTIPLE:
        return told
    lr = report.lr if report.lr is not None else ConfigTree(report.config)[BASE_LR] * value
    return f"{told}, lr {rate(lr, value)}"


def _print_curves(report: TrialReport) -> None:
    records = report.records
    if len(records) < 2:
        terminal.head("Curves")
        terminal.say(
            "  no epoch is recorded yet"
            if not records
            else "  one epoch makes no curve: its numbers"
        )
        for record in records:
            losses = f"loss {number(record.train_loss)}, validation loss {number(record.val_loss)}"
            norms = f"gradient norm {number(record.grad_norm_median)} (median), {number(record.grad_norm_max)} (largest)"
            terminal.tell(f"{losses}, {report.metric} {score(record.metric)}, {norms}", indent=2)
        return
    epochs = [record.epoch for record in records]
    loss = [Series("t", "training loss", "blue", [record.train_loss for record in records])]
    loss.append(Series("v", "validation loss", "orange", [record.val_loss for record in records]))
    for record in records:
        if record.broken_step is not None:
            terminal.tell(
                f"\nepoch {record.epoch} broke off at step {record.broken_step} and was not validated"
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


def _print_chart(epochs: Sequence[int], series: Sequence[Series], *, log: bool) -> None:
    """A chart with its title above it; a value that cannot be drawn leaves a gap."""
    terminal.head(" and ".join(f"{curve.name} ({curve.letter})" for curve in series) + " by epoch")
    points = [_points(epochs, curve.values, log) for curve in series]
    if any(points):
        terminal.show(Text.from_ansi(_chart(epochs, series, points, log=log)))


def _points(epochs: Sequence[int], values: Sequence[float], log: bool) -> Points:
    """What can be drawn. The logarithm is taken here: the plotting library's own scale cannot take a single value.

    NaN and infinity abort that library's kernel, and the difference of values so large that it overflows does, too.
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
    plotext = import_module("plotext")  # half a second, and wanted by this command alone
    plotext.terminal.limit(False, False)
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(min(terminal.console().width, CHART_WIDTH), CHART_HEIGHT)
    for curve, drawn in zip(series, points, strict=True):
        if drawn:
            places = [list(axis) for axis in zip(*drawn, strict=True)]
            line = plotext.marker("." if terminal.is_plain() else "braille", curve.colour)
            figure.draw(figure.signal(*places, marker=line).lines())
            figure.draw(figure.signal(*places, marker=plotext.marker(curve.letter, curve.colour)))
    low, high = _limits([height for drawn in points for _, height in drawn], log)
    marks = [low + (high - low) * step / Y_STEPS for step in range(Y_STEPS + 1)]
    figure.ruler("y").lim(low, high)
    figure.ruler("y").ticks(marks, [number(10**mark if log else mark) for mark in marks])
    named = [
        epoch for epoch in epochs if (epoch - epochs[0]) % math.ceil(len(epochs) / X_LABELS) == 0
    ]
    figure.ruler("x").ticks(named, [str(epoch) for epoch in named])
    text: str = figure.build().string(
        colorless=terminal.console().no_color or not terminal.console().is_terminal
    )
    return terminal.fit(text.rstrip())


def _limits(heights: Sequence[float], log: bool) -> tuple[float, float]:
    """The lowest and the highest; further apart where a flat curve would have the same mark at every step."""
    low, high = min(heights), max(heights)
    margin = 0.1 if log else 0.05 * max(abs(low), abs(high)) or 1.0
    return (low, high) if high - low > margin / 50 else (low - margin, high + margin)


def _print_classes(report: TrialReport) -> None:
    """The metric of every class at the first, the best and the last epoch, and on the test split."""
    whole = [record for record in report.records if record.broken_step is None]
    if not whole:
        return
    best, last = best_record(whole, report.direction), whole[-1]
    told = {
        f"epoch {whole[0].epoch}": whole[0],
        f"best: {best.epoch}": best,
        f"last: {last.epoch}": last,
    }
    chosen = {name: record.class_metric for name, record in told.items()}
    if last.test is not None:
        chosen["test"] = last.test.class_metric
    terminal.head("Classes")
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
            terminal.fit(_class_name(report, index)),
            *map(score, values),
            _change(whole, index),
        )
    terminal.show(table)


def _class_name(report: TrialReport, index: int) -> str:
    return report.class_names[index] if index < len(report.class_names) else str(index)


def _change(records: Sequence[EpochRecord], index: int) -> str:
    """From the first to the last epoch."""
    first, last = records[0].class_metric[index], records[-1].class_metric[index]
    return "-" if first is None or last is None else f"{last - first:+.4f}"


def _print_end(report: TrialReport, store: str) -> None:
    """Why it ended before its time, with the numbers, the likely cause, and what to try; or what is amiss with a whole one."""
    if report.trouble is not None:
        terminal.head("What is amiss")
        _print_diagnosis(report.trouble, report, store)
    if not report.reason and not report.error and not report.findings:
        return
    terminal.head(f"Why it {'was ' if report.state == 'pruned' else ''}{report.state}")
    for evidence, diagnosis in report.findings:
        _print_evidence(evidence)
        if diagnosis is not None:
            _print_diagnosis(diagnosis, report, store)
    if not report.findings:
        terminal.say(f"  {report.reason}")
    if report.error:
        terminal.say()
        terminal.say("\n".join(f"  {line}" for line in report.error.splitlines()), style="dim")


def _print_evidence(evidence: Evidence) -> None:
    place = f"epoch {evidence.epoch}" + (
        f", step {evidence.step}" if evidence.step is not None else ""
    )
    terminal.tell(f"{evidence.signal} at {place}: {evidence.statement}", indent=2, style="red")
    width = max((len(name) for name in evidence.numbers), default=0)
    for name, value in evidence.numbers.items():
        terminal.tell(f"{name:<{width}}  {setting(value)}", indent=4)


def _print_diagnosis(diagnosis: Diagnosis, report: TrialReport, store: str) -> None:
    terminal.say()
    terminal.say(
        f"  likely cause: {diagnosis.cause} ({diagnosis.confidence:.0%} sure)", style="bold"
    )
    for because in diagnosis.because:
        terminal.tell(f"+ {because}", indent=4)
    for against in diagnosis.against:
        terminal.tell(f"- {against}", indent=4)
    if diagnosis.others:
        terminal.tell(
            "less likely: "
            + ", ".join(f"{cause} ({likelihood:.0%})" for cause, likelihood in diagnosis.others),
            indent=4,
        )
    terminal.say()
    terminal.say("  to try, in this order:", style="bold")
    for place, remedy in enumerate(diagnosis.remedies, 1):
        terminal.tell(f"{place}. {describe_remedy(remedy, report.config)}", indent=4)
    if any(remedy.patch for remedy in diagnosis.remedies):
        terminal.say()
        terminal.tell(
            f"try the first with: search run --study {report.study} --enqueue-remedy {report.number}{store}",
            indent=2,
        )
