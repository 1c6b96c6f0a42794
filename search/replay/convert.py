"""Training curves from elsewhere as a recording: tables with a row for every log call, such as W&B's export of a run's history.

Rows of one epoch become one epoch: a loss is the mean of what was logged in it, a largest norm the largest, anything else
the last that was there. Cells may be empty, as they are where training and validation log apart.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean
from typing import Any

from spaces.config import Direction, MetricConfig
from spaces.errors import RecordsError, nearest
from spaces.record_json import PARTS, UNKNOWN, make_record
from spaces.recordings import RecordedStudy, RecordedTrial, Recording
from spaces.records import EpochRecord

Row = Mapping[str, Any]
Columns = Mapping[str, str]
Placed = tuple[str, Row]
"""A row with its place: the file, and which of its rows."""

COLUMNS = {"epoch": "epoch", "loss": "loss", "metric": "metric", "class_metric": "class/*"} | {
    key: key for key in (*PARTS, *UNKNOWN)
}
"""What an epoch can hold, and the column that it is looked for in; `class_metric` is a pattern that several may match."""

MEANS = ("loss", "ce_loss", "dice_loss")
LARGEST = ("grad_norm_max",)
NEEDED = ("epoch", "loss", "metric")
EMPTY = ("", "none", "null")
"""Cells without a value. Tables may have NaN for them, too, so a NaN counts only where an epoch has no number beside it."""


def convert(
    files: Sequence[Path], columns: Columns, direction: Direction, *, whole: bool = False
) -> Recording:
    """One trial a file, in the order given.

    Args:
        files: CSV, JSON Lines, or a JSON array of rows.
        columns: key of an epoch → column, where they are called otherwise.
        direction: of the metric.
        whole: runs that are shorter than the longest ended by themselves; else they count as cut short.

    Raises:
        RecordsError: when a file cannot be read, lacks a column, or is named twice.
    """
    _check_once(files)
    wanted = COLUMNS | {_known(key): column for key, column in columns.items()}
    tables = [read_rows(path) for path in files]
    classes = tuple(
        dict.fromkeys(
            name
            for rows in tables
            for row in rows
            for name in row
            if fnmatchcase(name, wanted["class_metric"])
        )
    )
    trials = [
        _epochs(rows, wanted, columns, classes, path)
        for rows, path in zip(tables, files, strict=True)
    ]
    longest = max(records[-1].epoch for records in trials)
    made = [
        RecordedTrial(
            number,
            records,
            "complete" if whole or records[-1].epoch == longest else "pruned",
            {"run": path.stem},
        )
        for number, (path, records) in enumerate(zip(files, trials, strict=True))
    ]
    return Recording(
        RecordedStudy(metric=MetricConfig(name=wanted["metric"], direction=direction)), tuple(made)
    )


def _check_once(files: Sequence[Path]) -> None:
    """A run that is given twice would count twice."""
    seen: dict[Path, Path] = {}
    for path in files:
        if path.resolve() in seen:
            raise RecordsError(
                f"{path} is given twice",
                where="files",
                found=f"{seen[path.resolve()]}, {path}",
                allowed="every table once: each is a trial",
                next_step="leave one of the two out",
            )
        seen[path.resolve()] = path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table.

    Raises:
        RecordsError: when it cannot be read, or is no table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return _table(text, path)
        rows = json.loads(text) if text.lstrip().startswith("[") else _json_lines(text, path)
    except (OSError, ValueError, csv.Error) as problem:
        raise RecordsError(
            f"cannot read {path}",
            where=str(path),
            found=str(problem)[:200],
            allowed="CSV (.csv), JSON Lines, or a JSON array of rows",
            next_step="export the history anew",
        ) from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RecordsError(
                f"{path.name} is no table",
                where=f"{path}, row {number}",
                found=f"{row!r:.80}",
                allowed="an object for every row",
                next_step="export with orient='records'",
            )
    return rows


def _json_lines(text: str, path: Path) -> list[Any]:
    """Every line that is not empty, read."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as problem:
            found = f"{line:.80}: {problem}"
            raise RecordsError(
                f"a line of {path.name} is not JSON",
                where=f"{path}, line {number}",
                found=found,
                allowed="CSV (.csv), JSON Lines, or a JSON array of rows",
                next_step="mend it, or export the history anew",
            ) from None
    return rows


def _table(text: str, path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, each with a cell for every column."""
    reader = csv.reader(text.splitlines())
    head = next(reader, [])
    rows = [(reader.line_num, row) for row in reader if row]
    for line, row in rows:
        if len(row) != len(head):
            raise RecordsError(
                f"a row of {path.name} has {len(row)} cells",
                where=f"{path}, line {line}",
                found=",".join(row)[:200],
                allowed=f"{len(head)} cells, as the first line has",
                next_step="put text with commas in quotes, or export the table anew",
            )
    return [dict(zip(head, row, strict=True)) for _, row in rows]


def _known(key: str) -> str:
    if key not in COLUMNS:
        raise RecordsError(
            f"unknown key {key!r}{nearest(key, COLUMNS)}",
            where="--column",
            found=key,
            allowed=", ".join(COLUMNS),
            next_step="write --column key=column",
        )
    return key


def _epochs(
    rows: Sequence[Row], columns: Columns, named: Iterable[str], classes: Sequence[str], path: Path
) -> tuple[EpochRecord, ...]:
    """The epochs of one run; those without a loss are left out. `classes` are the columns of class metrics of all runs, in one order."""
    _check_columns(rows, columns, dict.fromkeys((*NEEDED, *named)), path)
    found: dict[int, list[Placed]] = defaultdict(list)
    for number, row in enumerate(rows, 1):
        place = f"{path}, row {number}"
        epoch = _number(row.get(columns["epoch"]), f"epoch (column {columns['epoch']!r})", place)
        if epoch is not None and math.isfinite(epoch):
            found[math.ceil(epoch)].append(
                (place, row)
            )  # some log 0.25, 0.5, … within the first epoch
    first = min(found, default=1)
    told = [
        {"epoch": epoch + (1 - first if first < 1 else 0)} | _told(found[epoch], columns, classes)
        for epoch in sorted(found)
    ]
    records = tuple(
        make_record(row, f"{path}, epoch {row['epoch']}")
        for row in told
        if row.get("loss") is not None
    )
    if not records:
        raise RecordsError(
            f"{path.name} holds no epoch with a loss",
            where=str(path),
            found=f"{len(rows)} rows",
            allowed="rows with an epoch and a loss",
            next_step="name the columns with --column",
        )
    return records


def _check_columns(
    rows: Sequence[Row], columns: Columns, wanted: Iterable[str], path: Path
) -> None:
    there = list(dict.fromkeys(name for row in rows for name in row))
    for key in wanted:
        if not any(fnmatchcase(name, columns[key]) for name in there):
            found = ", ".join(there)[:300] or "no column"
            raise RecordsError(
                f"{path.name} has no column {columns[key]!r} for {key}{nearest(columns[key], there)}",
                where=str(path),
                found=found,
                allowed="a column of the file",
                next_step=f"name it: --column {key}=…",
            )


def _told(rows: Sequence[Placed], columns: Columns, classes: Sequence[str]) -> dict[str, Any]:
    """What the rows of one epoch tell together. A class without a number in it keeps its place."""
    told: dict[str, Any] = {"metric": None}
    for key, column in columns.items():
        if key in ("epoch", "class_metric"):
            continue
        values = _values(rows, column, key)
        if values:
            told[key] = (
                fmean(values) if key in MEANS else max(values) if key in LARGEST else values[-1]
            )
    found = [_values(rows, name, name) for name in classes]
    return told | (
        {"class_metric": [held[-1] if held else None for held in found]} if any(found) else {}
    )


def _values(rows: Sequence[Placed], column: str, key: str) -> list[float]:
    """The numbers of a column; NaN only where it has no others."""
    values = [
        value
        for place, row in rows
        if (value := _number(row.get(column), f"{key} (column {column!r})", place)) is not None
    ]
    return [value for value in values if value == value] or values


def _number(cell: Any, what: str, place: str) -> float | None:
    """A cell's number, None where it is empty."""
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in EMPTY):
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise RecordsError(
            f"{what} cannot be {cell!r:.60}",
            where=place,
            found=f"{cell!r:.60}",
            allowed="a number, or an empty cell",
            next_step="mend the row, or name another column with --column",
        ) from None
