"""The events of a worker process: text for people in its log, JSON lines for its supervisor.

Both sides of the JSON lines are in this module: the worker's logging handler writes them, the
supervisor reads them with `read_events`. Only a worker process of ours installs handlers. A script
that calls `run_worker` itself gets the records from the logger `search` and decides where they go.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from spaces.errors import SearchError

LOGGER = logging.getLogger("search")
"""Parent of the loggers of all modules of `search`."""

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """Something that a worker reports.

    Attributes:
        level: an error is what ends the process.
        message: for people; it may have several lines.
    """

    level: Level
    message: str


class TextFormatter(logging.Formatter):
    """Formats a record as a line for people, such as `warning: the disk is full`."""

    def format(self, record: logging.LogRecord) -> str:
        """Put the level in front of the message, unless it is only information."""
        level = level_of(record)
        return record.getMessage() if level == "info" else f"{level}: {record.getMessage()}"


class EventFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the fields of the record's `WorkerEvent`."""
        return json.dumps(asdict(WorkerEvent(level_of(record), record.getMessage())))


def level_of(record: logging.LogRecord) -> Level:
    """The level of a record's event."""
    if record.levelno >= logging.ERROR:
        return "error"
    return "warning" if record.levelno >= logging.WARNING else "info"


@contextmanager
def log_worker_events(path: Path | None) -> Iterator[None]:
    """Log to standard output, and to the file of events if there is one, in a worker process.

    Warnings for users become log records. The exception that ends the block is written to the file
    of events only: the caller prints it.

    Args:
        path: of the file; it is created with the first event.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    handlers[0].setFormatter(TextFormatter())
    if path is not None:
        handlers.append(logging.FileHandler(path, encoding="utf-8", delay=True))
        handlers[-1].setFormatter(EventFormatter())
    before = (LOGGER.level, LOGGER.propagate, warnings.showwarning)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False  # an objective may configure the root logger: no line comes twice
    warnings.showwarning = _log_warning
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        yield
    except Exception as problem:
        for handler in handlers[1:]:
            handler.handle(_failure_record(problem))
        raise
    finally:
        LOGGER.level, LOGGER.propagate, warnings.showwarning = before
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()


def _failure_record(problem: Exception) -> logging.LogRecord:
    message = str(problem)
    if not isinstance(problem, SearchError):
        kind = traceback.format_exception_only(problem)[-1].strip()
        message = f"a worker ended unexpectedly: {kind}"
    return LOGGER.makeRecord(LOGGER.name, logging.ERROR, __file__, 0, message, (), None)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Log warnings meant for users; those meant for programmers are dropped."""
    if category is UserWarning and "site-packages" not in filename:
        LOGGER.warning("%s", message)


def events_path(log: Path) -> Path:
    """The file for a worker's events, next to its log."""
    return log.with_name(f"{log.stem}.events.jsonl")


def read_events(path: Path, start: int = 0) -> list[WorkerEvent]:
    """Read the events in a file.

    Args:
        path: of the file; without it there are no events.
        start: offset in bytes at which to begin.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    return [event for event in map(_parse_event, lines) if event is not None]


def _parse_event(line: bytes) -> WorkerEvent | None:
    """The event in a line; None for a line that was cut off when its worker was killed."""
    try:
        fields = json.loads(line)
        return WorkerEvent(fields["level"], fields["message"])
    except (ValueError, KeyError, TypeError):
        return None


def list_warnings(events: list[WorkerEvent]) -> list[str]:
    """The messages of the warnings, each one once."""
    return list(dict.fromkeys(event.message for event in events if event.level == "warning"))


def last_error(events: list[WorkerEvent]) -> str | None:
    """The message of the last error; None where there is none."""
    errors = [event.message for event in events if event.level == "error"]
    return errors[-1] if errors else None
