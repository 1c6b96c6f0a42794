"""Show a running study: redrawn in place on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.console import terminal
from search.console.formatting import (
    format_count,
    format_duration,
    format_score,
    list_param_pairs,
    shorten_paths,
)
from search.console.remedy_tables import format_remedy_trial
from search.console.table_layout import STATE_STYLES
from search.console.workers import format_attempts, format_last_seen
from search.report.remedy_outcomes import measure_remedy
from search.report.study_report import active_workers
from search.stored_study import sampled_values
from spaces.errors import StoreError
from spaces.presets import first_name
from spaces.records import SPARED, Evidence, better
from spaces.study import StudySpec
from storage.rows import FINAL_STATES, Progress, StoredTrial

if TYPE_CHECKING:
    from search.planning.plan import Plan
    from storage.rows import StoredStudy
    from storage.store import Store

POLL_S = 0.5
EVENTS_SHOWN = 5
LINES_AROUND = 14
"""Lines of the display that are not running trials."""

TRIAL_BAR, STUDY_BAR = 10, 30
"""Widths, columns."""

BAR = "blue"
"""Style of the completed part of a progress bar."""

FOUND_STATES = (*FINAL_STATES, "paused")
"""States of trials that are summed up when they are found in the store."""


def watch_study(
    store: Store,
    stored: StoredStudy,
    plan: Plan,
    *,
    until: Callable[[], bool],
    poll_s: float = POLL_S,
    note: Callable[[], str] = str,
) -> frozenset[str]:
    """Show a study and the events of its trials until `until` returns true.

    While the store does not respond, it is polled again.

    Args:
        store: of the study.
        stored: the study in the store.
        plan: the checked plan of the study.
        until: called before every poll; after it returns true, there is one last poll.
        poll_s: seconds between two polls.
        note: returns a line for the user, such as that a stop was requested; usually empty.

    Returns:
        The warnings on trials that remain to be read: those of a display are gone, so it has none.
    """
    watcher = Watcher(store, stored.id, plan.spec)
    if not terminal.is_terminal():
        for event in _poll_until(watcher, until, poll_s):
            terminal.print_line(event.text)
        return frozenset(watcher.warnings.values())
    with Live(console=terminal.get_console(), auto_refresh=False) as live:
        over = False
        while not over:
            over = until()
            watcher.events.extend(watcher.poll_events())
            live.update(build_frame(watcher, note(), terminal.get_console().height), refresh=True)
            if not over:
                time.sleep(poll_s)
    return frozenset()


def wait_quietly(until: Callable[[], bool], poll_s: float = POLL_S) -> None:
    """Wait until `until` returns true, and show nothing."""
    while not until():
        time.sleep(poll_s)


def _poll_until(watcher: Watcher, until: Callable[[], bool], poll_s: float) -> Iterator[Event]:
    over = False
    while not over:
        over = until()
        yield from watcher.poll_events()
        if not over:
            time.sleep(poll_s)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a trial."""

    text: str
    style: str = ""


@dataclass
class Watcher:
    """What was seen of a study so far. `poll_events` returns what is new."""

    store: Store
    study_id: int
    spec: StudySpec
    began: float = field(default_factory=time.monotonic)
    seen: dict[int, Progress] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS_SHOWN))
    best: StoredTrial | None = None
    warnings: dict[tuple[int, str], str] = field(default_factory=dict)
    polled: bool = False
    store_down: bool = False

    def poll_events(self) -> list[Event]:
        """Read the store again and return the new events."""
        events: list[Event] = []
        try:
            for event in self._find_events(self.store.trials.list_progress(self.study_id)):
                events.append(event)
        except StoreError as problem:
            if not self.store_down:
                text = f"the store does not respond; retrying: {problem.what}"
                events.append(Event(text, "yellow"))
            self.store_down = True
            return events
        if self.store_down:
            events.insert(0, Event("the store responds again"))
        self.store_down = False
        return events

    def _find_events(self, lines: Sequence[Progress]) -> Iterator[Event]:
        if not self.polled:
            yield from self._summarize_found(lines)
        for line in lines:
            if line.state == "reserved":  # not sampled yet, so there is nothing to report
                continue
            # A list first: if the store fails in between, none of a trial's events is lost.
            events = list(self._compare_progress(self.seen.get(line.trial_id), line))
            self.seen[line.trial_id] = line
            yield from events
        self.polled = True
        self._update_best(lines)

    def _summarize_found(self, lines: Sequence[Progress]) -> Iterator[Event]:
        """Sum up the trials of earlier runs in one event."""
        self.seen = {line.trial_id: line for line in lines if line.state in FOUND_STATES}
        if self.seen:
            found = Counter(line.state for line in self.seen.values())
            states = ", ".join(f"{amount} {state}" for state, amount in found.items())
            yield Event(f"found in the store: {states}")

    def _compare_progress(self, before: Progress | None, now: Progress) -> Iterator[Event]:
        """Find what happened to a trial between two polls; nothing before it is sampled."""
        if now.state == "reserved":
            return
        if (before is None or before.state == "reserved") and now.number is not None:
            yield self._describe_start(now)
        elif before is not None and now.attempt > before.attempt:
            yield _describe_resumption(before, now)
        if before is None or (before.state, before.epochs) != (now.state, now.epochs):
            yield from self._find_warnings(now)
        if before is not None and (before.state, before.attempt) == (now.state, now.attempt):
            return
        if now.awaits_promotion:
            yield Event(f"trial {now.number} paused {self._find_pause(now)}")
        elif now.state == "paused":
            lost = before is not None and now.lost > before.lost
            reason = f": worker {now.worker} stopped responding" if lost else ""
            yield Event(f"trial {now.number} released after epoch {now.epochs}{reason}")
        elif now.state in FINAL_STATES:
            yield self._describe_end(now)
            yield from self._describe_remedy(now)

    def _find_warnings(self, now: Progress) -> Iterator[Event]:
        """Find what signals found in a trial without ending it, once per trial and signal."""
        for evidence, _ in self.store.findings.trial_evidence(now.trial_id):
            if not evidence.is_warning or (now.trial_id, evidence.signal) in self.warnings:
                continue
            text = format_warning(now.number, evidence)
            self.warnings[now.trial_id, evidence.signal] = text
            yield Event(f"warning: {text}", "yellow")

    def _describe_start(self, now: Progress) -> Event:
        trial = self.store.trials.find_trial(self.study_id, now.number or 0)
        preset = f" ({self._name_start(now.preset)})" if now.preset else ""
        began = "started"
        if now.epochs > 0 and not self.polled:
            began = f"is running, {_count_epochs(now)} done"
        return Event(f"trial {now.number} {began}{preset}: {self.format_params(trial)}")

    def _describe_end(self, now: Progress) -> Event:
        name = "a trial" if now.number is None else f"trial {now.number}"
        style, reason = STATE_STYLES[now.state], self._find_reason(now)
        if now.state == "complete":
            score = f"{self.spec.metric.name} {format_score(now.score)}"
            return Event(f"{name} is complete: {score} after {_count_epochs(now)}", style)
        verb = "was pruned" if now.state == "pruned" else now.state
        return Event(f"{name} {verb} at epoch {now.epochs}{reason}", style)

    def _name_start(self, label: str) -> str:
        """Name what a trial starts from: `preset safe`, or `remedy of 7`."""
        return f"preset {label}" if first_name(label) in self.spec.presets else label

    def _describe_remedy(self, now: Progress) -> Iterator[Event]:
        """Find what the remedy did that an ended trial tried, if any."""
        if now.number is None or not now.preset or first_name(now.preset) in self.spec.presets:
            return
        trial = self.store.trials.find_trial(self.study_id, now.number)
        if trial is None:
            return
        tried = self.store.remedies.list_tried(self.study_id)
        outcome = measure_remedy(self.store, self.study_id, self.spec.metric, trial, tried)
        if outcome is not None and (outcome.verdict or outcome.change is not None):
            yield Event(format_remedy_trial(outcome))

    def _find_reason(self, now: Progress) -> str:
        """Find why a trial ended, after a colon; empty if there is no reason."""
        if now.number is None:
            return ""
        trial = self.store.trials.find_trial(self.study_id, now.number)
        return f": {trial.reason}" if trial is not None and trial.reason else ""

    def _find_pause(self, now: Progress) -> str:
        """Find where and why the search paused a trial."""
        trial = self.store.trials.find_trial(self.study_id, now.number or 0)
        reason = trial.reason if trial is not None else ""
        return reason or f"after epoch {now.epochs}"

    def _update_best(self, lines: Sequence[Progress]) -> None:
        for line in lines:
            if line.state != "complete" or line.score is None or line.number is None:
                continue
            if self.best is None or better(
                line.score, self.best.score or 0.0, self.spec.metric.direction
            ):
                self.best = self.store.trials.find_trial(self.study_id, line.number)

    def format_params(self, trial: StoredTrial | None) -> str:
        """Format the sampled values of a trial."""
        if trial is None:
            return ""
        params, lr = sampled_values(self.spec, trial.config or {})
        return ", ".join(list_param_pairs(params, lr, shorten_paths(self.spec.space)))


def _describe_resumption(before: Progress, now: Progress) -> Event:
    lost = now.lost > before.lost
    reason = f" (worker {before.worker} stopped responding)" if lost else ""
    return Event(
        f"trial {now.number} resumed after epoch {before.epochs} "
        f"by {now.worker} (attempt {now.attempt}){reason}"
    )


def format_warning(number: int | None, evidence: Evidence) -> str:
    """Format a warning as the worker's log has it, so that the same one is not printed twice."""
    spared = evidence.numbers[SPARED]
    found = f"{evidence.signal}: {evidence.statement}"
    return f"trial {number}, epoch {evidence.epoch}: {found}; spared: {spared}"


def _count_epochs(now: Progress) -> str:
    return format_count(now.epochs, "epoch")


def build_frame(watcher: Watcher, note: str, height: int) -> RenderableType:
    """Build the display for a screen of `height` lines."""
    lines = list(watcher.seen.values())
    running = [line for line in lines if line.state == "running"]
    parts: list[RenderableType] = [_build_header(watcher, lines), _build_best(watcher)]
    room = max(3, height - LINES_AROUND)
    if running:
        parts += [Text(), _build_running_table(watcher, running[:room])]
    if len(running) > room:
        parts.append(Text(f"and {len(running) - room} more running"))
    parts += [
        Text(),
        *(
            Text(
                terminal.to_printable(event.text), style=event.style, no_wrap=True, overflow="crop"
            )
            for event in watcher.events
        ),
    ]
    if note:
        parts += [Text(), Text(terminal.to_printable(note), style="bold yellow")]
    return Group(*parts)


def _build_header(watcher: Watcher, lines: Sequence[Progress]) -> RenderableType:
    """Build the name, progress and elapsed time of the study, and its trials by state."""
    tally = Counter(line.state for line in lines)
    done = sum(tally[state] for state in FINAL_STATES)
    grid = Table.grid(padding=(0, 2))
    elapsed = format_duration(time.monotonic() - watcher.began)
    bar = ProgressBar(
        total=watcher.spec.trials,
        completed=done,
        width=STUDY_BAR,
        complete_style=BAR,
        finished_style=BAR,
    )
    grid.add_row(
        Text(watcher.spec.name, style="bold"), bar, f"{done}/{watcher.spec.trials} trials", elapsed
    )
    states = Text()
    for state in (*FINAL_STATES, "running", "paused"):
        if tally[state]:
            states.append(", " if states.plain else "").append(
                f"{tally[state]} {state}", style=STATE_STYLES.get(state, "")
            )
    return Group(grid, states)


def _build_best(watcher: Watcher) -> RenderableType:
    best = watcher.best
    if best is None:
        return Text("no trial is complete yet", style="dim")
    score = f"{watcher.spec.metric.name} {format_score(best.score)}"
    params = watcher.format_params(best)
    return Text(terminal.to_printable(f"best so far: {score}, trial {best.number}: {params}"))


def _build_running_table(watcher: Watcher, running: Sequence[Progress]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("trial", "epoch", "", watcher.spec.metric.name):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name in ("worker", "device", "last seen", "attempt"):
        table.add_column(name, overflow="fold")
    for line, worker in zip(running, active_workers(running), strict=True):
        epochs = f"{line.epochs}/{watcher.spec.epochs}"
        bar = ProgressBar(
            total=watcher.spec.epochs,
            completed=line.epochs,
            width=TRIAL_BAR,
            complete_style=BAR,
            finished_style=BAR,
        )
        cells = (
            terminal.to_printable(line.worker),
            terminal.to_printable(worker.device or "-"),
            format_last_seen(worker),
            format_attempts(worker),
        )
        table.add_row(str(line.number), epochs, bar, format_score(line.metric), *cells)
    return table
