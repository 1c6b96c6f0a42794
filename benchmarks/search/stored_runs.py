"""Finished runs, one JSON line each, so that a stopped benchmark continues where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.search.methods import version_of
from benchmarks.search.tasks.base import Task

STORED = Path(".cache") / "search_benchmark.jsonl"


def make_key(task: Task, method: str, seed: int, trainings: int) -> str:
    """The key of a run: it changes with the method's version and with the task's definition."""
    definition = f"{task.version}:{task.best}:{task.median}:{task.epochs}"
    text = f"{task.name}:{definition}:{method}:{version_of(method)}:{seed}:{trainings}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class StoredRuns:
    """The runs of a file; a line that was cut off by a kill is ignored.

    Args:
        path: of the file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = _parse(line)
                if row:
                    self.rows[row["key"]] = row

    def append(self, key: str, row: dict[str, Any]) -> None:
        """Write a finished run."""
        self.rows[key] = {"key": key, **row}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(self.rows[key]) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}" if self._is_cut_off() else line)

    def _is_cut_off(self) -> bool:
        """Whether the last line lacks its end; the next run would be appended to it."""
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 1))
            return size > 0 and file.read() != b"\n"

    def select(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """The runs with these keys, of those that are finished."""
        return [self.rows[key] for key in keys if key in self.rows]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "key" in row else None
