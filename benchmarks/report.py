"""The result of a benchmark: figures with bounds and peers, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sqlite3
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
QUICK = RESULTS / "quick"
PACKAGES = ("torch", "optuna", "sqlalchemy", "psycopg")
HEAD = ("figure", "found", "to reach", "peer or baseline", "ratio", "verdict")


@dataclass(frozen=True)
class Figure:
    """One number that was measured.

    Attributes:
        bound: what it has to reach; None for a figure that only informs.
        at_least: whether the bound is a floor; else it is a ceiling.
        peer: the thing measured beside it, and `peer_found` its number in the same unit.
    """

    name: str
    found: float
    unit: str = ""
    bound: float | None = None
    at_least: bool = False
    peer: str = ""
    peer_found: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the peer's number."""
        return self.found / self.peer_found if self.peer_found else None

    @property
    def reached(self) -> bool | None:
        """Whether the bound was met; None where there is none."""
        if self.bound is None:
            return None
        return self.found >= self.bound if self.at_least else self.found <= self.bound

    def cells(self, *, judged: bool = True) -> tuple[str, ...]:
        """The row of a table, in the order of `HEAD`."""
        sign = "≥" if self.at_least else "≤"
        verdict = {True: "reached", False: "MISSED", None: ""}[self.reached]
        return (
            self.name,
            _number(self.found, self.unit),
            f"{sign} {_number(self.bound, self.unit)}" if self.bound is not None else "",
            f"{self.peer}: {_number(self.peer_found, self.unit)}"
            if self.peer_found is not None
            else "",
            f"{self.ratio:.2f}×" if self.ratio is not None else "",
            verdict if judged or not verdict else "smoke run",
        )


@dataclass(frozen=True)
class Result:
    """The figures of a benchmark, their details, and facts about the machine that only it has."""

    figures: Sequence[Figure]
    details: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def parser(about: str) -> argparse.ArgumentParser:
    """The options of every benchmark. From here on SIGTERM raises, so that no process is left."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--quick",
        action="store_true",
        help="a smoke run: small, not judged, kept apart from the real results",
    )
    return made


def publish(name: str, result: Result, *, quick: bool) -> int:
    """Print the table and write the JSON; exit code 1 when a bound was missed in a real run."""
    print(table(HEAD, [figure.cells(judged=not quick) for figure in result.figures]), flush=True)
    folder = QUICK if quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    payload = {
        "benchmark": name,
        "measured": datetime.now(UTC).date().isoformat(),
        "quick": quick,
        "machine": {**machine(), **result.facts},
        "figures": [
            {**asdict(figure), "ratio": figure.ratio, "reached": figure.reached}
            for figure in result.figures
        ],
        "details": result.details,
    }
    path = folder / f"{name}.json"
    path.write_text(
        json.dumps(payload, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"\nwritten to {path.relative_to(RESULTS.parent.parent)}", flush=True)
    return 0 if quick or all(figure.reached is not False for figure in result.figures) else 1


def machine() -> dict[str, Any]:
    """What the numbers depend on. No host name and no path."""
    versions = {package: version(package) for package in PACKAGES}
    cores = len(os.sched_getaffinity(0))
    return {
        "cores": cores,
        "load_at_end": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **versions,
        "sqlite": sqlite3.sqlite_version,
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under each other, as plain text."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, tuple("─" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    text = f"{value:.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()
