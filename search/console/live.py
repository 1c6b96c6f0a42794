"""A study while it runs: redrawn in place on a terminal, one plain line an event everywhere else."""

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
from search.console.formatting import count, duration, pairs, score, short_names
from search.console.tables import STATE_STYLES
from search.console.workers import attempts, seen
from search.report.study import active_workers
from search.stored_study import sampled_values
from spaces.errors import StoreError
from spaces.records import better
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
"""Style of what is done."""


def watch(
    store: Store,
    stored: StoredStudy,
    plan: Plan,
    *,
    until: Callable[[], bool],
    poll_s: float = POLL_S,
    note: Callable[[], str] = str,
) -> None:
    """Show how the study stands, and what happens to its trials, until `until` says so; a database that fails is waited for.

    Args:
        store: where the trials report.
        stored: the study in it.
        plan: what was planned.
        until: asked before every look; after it says yes, there is one more look.
        poll_s: seconds between two looks.
        note: a word to the reader, such as that a stop was asked for; empty most of the time.
    """
    watcher = Watcher(store, stored.id, plan.spec)
    if not terminal.is_terminal():
        for event in _looks(watcher, until, poll_s):
            terminal.say(event.text)
        return
    with Live(console=terminal.console(), auto_refresh=False) as live:
        over = False
        while not over:
            over = until()
            watcher.events.extend(watcher.look())
            live.update(frame(watcher, note(), terminal.console().height), refresh=True)
            if not over:
                time.sleep(poll_s)


def _looks(watcher: Watcher, until: Callable[[], bool], poll_s: float) -> Iterator[Event]:
    over = False
    while not over:
        over = until()
        yield from watcher.look()
        if not over:
            time.sleep(poll_s)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a trial."""

    text: str
    style: str = ""


@dataclass
class Watcher:
    """What has been seen of a study so far. `look` returns what is new."""

    store: Store
    study_id: int
    spec: StudySpec
    began: float = field(default_factory=time.monotonic)
    seen: dict[int, Progress] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS_SHOWN))
    best: StoredTrial | None = None
    looked: bool = False
    silent: bool = False

    def look(self) -> list[Event]:
        """Ask the store once more."""
        events: list[Event] = []
        try:
            for event in self._news(self.store.trials.list_progress(self.study_id)):
                events.append(event)
        except StoreError as problem:
            if not self.silent:
                events.append(
                    Event(
                        f"the store does not answer, and is asked again: {problem.what}", "yellow"
                    )
                )
            self.silent = True
            return events
        back, self.silent = self.silent, False
        return [*([Event("the store answers again")] if back else []), *events]

    def _news(self, lines: Sequence[Progress]) -> Iterator[Event]:
        if not self.looked:
            yield from self._first(lines)
        for line in lines:
            if (
                line.state == "reserved"
            ):  # nobody has sampled it yet, so there is nothing to tell of it
                continue
            news = list(
                self._changes(self.seen.get(line.trial_id), line)
            )  # all or none of it, for the store may fail in between
            self.seen[line.trial_id] = line
            yield from news
        self.looked = True
        self._keep_best(lines)

    def _first(self, lines: Sequence[Progress]) -> Iterator[Event]:
        """What an earlier run left is summed up, and not told again trial by trial."""
        self.seen = {
            line.trial_id: line
            for line in lines
            if line.state in FINAL_STATES or line.state == "paused"
        }
        if self.seen:
            found = Counter(line.state for line in self.seen.values())
            yield Event(
                f"found in the store: {', '.join(f'{amount} {state}' for state, amount in found.items())}"
            )

    def _changes(self, before: Progress | None, now: Progress) -> Iterator[Event]:
        """What happened to a trial between two looks. A trial that no one has bound yet has nothing sampled, and no news."""
        if now.state == "reserved":
            return
        if (before is None or before.state == "reserved") and now.number is not None:
            yield self._started(now)
        elif before is not None and now.attempt > before.attempt:
            came = (
                f"was left by {before.worker} and goes on" if now.lost > before.lost else "goes on"
            )
            yield Event(
                f"trial {now.number} {came} after epoch {before.epochs}, with {now.worker} (attempt {now.attempt})"
            )
        if before is not None and (before.state, before.attempt) == (now.state, now.attempt):
            return
        if now.state == "paused":
            left = (
                f"left by {now.worker}"
                if before is not None and now.lost > before.lost
                else "given back"
            )
            yield Event(f"trial {now.number} was {left} after epoch {now.epochs}")
        elif now.state in FINAL_STATES:
            yield self._ended(now)

    def _started(self, now: Progress) -> Event:
        trial = self.store.trials.find_trial(self.study_id, now.number or 0)
        preset = f" (preset {now.preset})" if now.preset else ""
        began = (
            "started"
            if self.looked or now.epochs == 0
            else f"is running, {count(now.epochs, 'epoch')} done"
        )
        return Event(f"trial {now.number} {began}{preset}: {self.params(trial)}")

    def _ended(self, now: Progress) -> Event:
        trial = (
            None if now.number is None else self.store.trials.find_trial(self.study_id, now.number)
        )
        name = "a trial" if now.number is None else f"trial {now.number}"
        reason = f": {trial.reason}" if trial is not None and trial.reason else ""
        if now.state == "complete":
            reached = (
                f"{self.spec.metric.name} {score(now.score)} after {count(now.epochs, 'epoch')}"
            )
            return Event(f"{name} is complete: {reached}", STATE_STYLES[now.state])
        verb = "was pruned" if now.state == "pruned" else now.state
        return Event(f"{name} {verb} at epoch {now.epochs}{reason}", STATE_STYLES[now.state])

    def _keep_best(self, lines: Sequence[Progress]) -> None:
        for line in lines:
            if line.state != "complete" or line.score is None or line.number is None:
                continue
            if self.best is None or better(
                line.score, self.best.score or 0.0, self.spec.metric.direction
            ):
                self.best = self.store.trials.find_trial(self.study_id, line.number)

    def params(self, trial: StoredTrial | None) -> str:
        """What was sampled for a trial."""
        if trial is None:
            return ""
        params, lr = sampled_values(self.spec, trial.config or {})
        return ", ".join(pairs(params, lr, short_names(self.spec.space)))


def frame(watcher: Watcher, note: str, height: int) -> RenderableType:
    """The display as it stands, on a screen of `height` lines."""
    lines = list(watcher.seen.values())
    running = [line for line in lines if line.state == "running"]
    parts: list[RenderableType] = [_header(watcher, lines), _best(watcher)]
    room = max(3, height - LINES_AROUND)
    if running:
        parts += [Text(), _running(watcher, running[:room])]
    if len(running) > room:
        parts.append(Text(f"and {len(running) - room} more running"))
    parts += [
        Text(),
        *(
            Text(terminal.fit(event.text), style=event.style, no_wrap=True, overflow="crop")
            for event in watcher.events
        ),
    ]
    if note:
        parts += [Text(), Text(terminal.fit(note), style="bold yellow")]
    return Group(*parts)


def _header(watcher: Watcher, lines: Sequence[Progress]) -> RenderableType:
    """Name, progress, elapsed time, and the trials by state."""
    tally = Counter(line.state for line in lines)
    done = sum(tally[state] for state in FINAL_STATES)
    grid = Table.grid(padding=(0, 2))
    elapsed = duration(time.monotonic() - watcher.began)
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
    told = Text()
    for state in (*FINAL_STATES, "running", "paused"):
        if tally[state]:
            told.append(", " if told.plain else "").append(
                f"{tally[state]} {state}", style=STATE_STYLES.get(state, "")
            )
    return Group(grid, told)


def _best(watcher: Watcher) -> RenderableType:
    best = watcher.best
    if best is None:
        return Text("no trial is complete yet", style="dim")
    return Text(
        terminal.fit(
            f"best so far: {watcher.spec.metric.name} {score(best.score)}, trial {best.number}: {watcher.params(best)}"
        )
    )


def _running(watcher: Watcher, running: Sequence[Progress]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("trial", "epoch", "", watcher.spec.metric.name):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name in ("worker", "device", "seen", "attempt"):
        table.add_column(name, overflow="fold")
    for line, holder in zip(running, active_workers(running), strict=True):
        epochs = f"{line.epochs}/{watcher.spec.epochs}"
        bar = ProgressBar(
            total=watcher.spec.epochs,
            completed=line.epochs,
            width=TRIAL_BAR,
            complete_style=BAR,
            finished_style=BAR,
        )
        told = (
            terminal.fit(line.worker),
            terminal.fit(holder.device or "-"),
            seen(holder),
            attempts(holder),
        )
        table.add_row(str(line.number), epochs, bar, score(line.metric), *told)
    return table
