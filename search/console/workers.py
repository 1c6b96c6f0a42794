"""Who works on what, how long ago that was heard, and what device time there is."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from search.console import terminal
from search.console.formatting import duration
from search.report.models import ActiveWorker, StudyReport

SHOWN = 40
"""So many workers are listed; a cluster has more, and `--json` has all."""

HOUR_S = 3600.0


def print_workers(report: StudyReport) -> None:
    """A line for every worker that has a trial; nothing when there is none."""
    if not report.workers:
        return
    terminal.head("Workers")
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold",
        show_edge=False,
    )
    table.add_column("worker", overflow="fold")
    table.add_column("host", overflow="fold")
    table.add_column("device", no_wrap=True)
    for name in ("trial", "epoch", "seen", "attempt"):
        table.add_column(name, justify="right", no_wrap=True)
    for holder in report.workers[:SHOWN]:
        trial = "-" if holder.trial is None else str(holder.trial)
        names = (
            terminal.fit(holder.worker),
            terminal.fit(holder.host),
            terminal.fit(holder.device or "-"),
        )
        table.add_row(
            *names, trial, f"{holder.epochs}/{report.epochs}", seen(holder), attempts(holder)
        )
    terminal.show(table)
    if len(report.workers) > SHOWN:
        terminal.tell(
            f"{len(report.workers) - SHOWN} more in `search show --study {report.name} --json`"
        )


def seen(holder: ActiveWorker) -> Text:
    """How long ago the worker gave a sign of life; marked once its lease is over."""
    told = "-" if holder.silent_s is None else f"{duration(max(0.0, holder.silent_s))} ago"
    return Text(f"{told} (silent)", style="yellow") if holder.overdue else Text(told)


def attempts(holder: ActiveWorker) -> str:
    """`1`, or `3 (1 lost)` where a worker vanished."""
    return f"{holder.attempts} ({holder.lost} lost)" if holder.lost else str(holder.attempts)


def device_time_line(report: StudyReport) -> str:
    """`device time: 1.52 h of 8 h`; empty where there is no limit."""
    if report.device_budget_s is None:
        return ""
    spent = (
        "; it is spent, a larger `search run --device-hours` goes on"
        if spent_device_time(report)
        else ""
    )
    return f"device time: {report.device_s / HOUR_S:.3g} h of {report.device_budget_s / HOUR_S:.3g} h{spent}"


def spent_device_time(report: StudyReport) -> bool:
    """Whether no device time is left for what is not done."""
    return report.device_budget_s is not None and report.device_s > report.device_budget_s - 0.001
