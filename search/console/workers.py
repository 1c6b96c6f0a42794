"""Tables of active workers, and the use of device time."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from search.console import terminal
from search.console.formatting import format_duration
from search.report.models import ActiveWorker, StudyReport

SHOWN = 40
"""How many workers are listed; a cluster has more, and `--json` has all of them."""

HOUR_S = 3600.0


def print_workers(report: StudyReport) -> None:
    """Print a line for each active worker; nothing if there is none."""
    if not report.workers:
        return
    terminal.print_heading("Workers")
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
    for name in ("trial", "epoch", "last seen", "attempt"):
        table.add_column(name, justify="right", no_wrap=True)
    for worker in report.workers[:SHOWN]:
        trial = "-" if worker.trial is None else str(worker.trial)
        names = (
            terminal.to_printable(worker.worker),
            terminal.to_printable(worker.host),
            terminal.to_printable(worker.device or "-"),
        )
        table.add_row(
            *names,
            trial,
            f"{worker.epochs}/{report.epochs}",
            format_last_seen(worker),
            format_attempts(worker),
        )
    terminal.print_renderable(table)
    if len(report.workers) > SHOWN:
        terminal.print_paragraph(
            f"{len(report.workers) - SHOWN} more in `search show --study {report.name} --json`"
        )


def format_last_seen(worker: ActiveWorker) -> Text:
    """Format how long ago a worker last responded; marked once its lease has expired."""
    text = "-" if worker.silent_s is None else f"{format_duration(max(0.0, worker.silent_s))} ago"
    return Text(f"{text} (silent)", style="yellow") if worker.overdue else Text(text)


def format_attempts(worker: ActiveWorker) -> str:
    """Format the attempts of a trial: `1`, or `3 (1 lost)` if a worker stopped responding."""
    return f"{worker.attempts} ({worker.lost} lost)" if worker.lost else str(worker.attempts)


def format_device_time(report: StudyReport) -> str:
    """Format the device time: `device time: 1.52 h of 8 h`; empty if there is no limit."""
    if report.device_budget_s is None:
        return ""
    spent_h, limit_h = report.device_s / HOUR_S, report.device_budget_s / HOUR_S
    line = f"device time: {spent_h:.3g} h of {limit_h:.3g} h"
    if is_device_time_spent(report):
        return f"{line}; exhausted, raise `search run --device-hours` to continue"
    return line


def is_device_time_spent(report: StudyReport) -> bool:
    """Check whether the limit on device time is reached."""
    return report.device_budget_s is not None and report.device_s > report.device_budget_s - 0.001
