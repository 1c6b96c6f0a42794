"""Conversion of training curves from other programs, such as W&B's export of a run's history.

A table has a row for every log call. The rows of one epoch become one record: a loss is the mean of
what was logged in the epoch, a largest norm the largest, anything else the last value. Cells may be
empty, as they are where training and validation are logged separately.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from search.replay.table_files import Row, read_rows
from spaces.config import Direction, MetricConfig
from spaces.errors import RecordsError, nearest
from spaces.record_json import PARTS, UNKNOWN, make_record
from spaces.recordings import RecordedStudy, RecordedTrial, Recording
from spaces.records import EpochRecord

Columns = Mapping[str, str]
"""Key of an epoch → name of its column."""

COLUMNS = {"epoch": "epoch", "loss": "loss", "metric": "metric", "class_metric": "class/*"} | {
    key: key for key in (*PARTS, *UNKNOWN)
}
"""Key of an epoch → its default column; `class_metric` is a pattern for several columns."""

MEANS = ("loss", "ce_loss", "dice_loss")
LARGEST = ("grad_norm_max",)
NEEDED = ("epoch", "loss", "metric")
EMPTY = ("", "none", "null")
"""Cells without a value. Tables may have NaN for those too, so a NaN counts only where an epoch has
no number in the column."""


class PlacedRow(NamedTuple):
    """A row and its place: the file, and its number in it."""

    place: str
    row: Row


@dataclass(frozen=True, slots=True)
class RunTable:
    """The table of one run.

    Attributes:
        path: its file.
        rows: of the table.
        columns: key of an epoch → column.
        classes: the columns of class metrics, in the same order for all runs.
    """

    path: Path
    rows: Sequence[Row]
    columns: Columns
    classes: Sequence[str]


def convert_tables(
    files: Sequence[Path], columns: Columns, direction: Direction, *, whole: bool = False
) -> Recording:
    """Convert tables to a recording with one trial per file, in the order given.

    Args:
        files: CSV, JSON Lines, or a JSON array of rows.
        columns: key of an epoch → column, where it differs from the default.
        direction: of the metric.
        whole: treat runs that are shorter than the longest as complete instead of truncated.

    Raises:
        RecordsError: when a file cannot be read, lacks a column, or is given twice.
    """
    _check_given_once(files)
    all_columns = COLUMNS | {_known_key(key): column for key, column in columns.items()}
    tables = {path: read_rows(path) for path in files}
    classes = _matching_columns(tables.values(), all_columns["class_metric"])
    runs = {
        path: _convert_run(RunTable(path, rows, all_columns, classes), columns)
        for path, rows in tables.items()
    }
    longest = max(records[-1].epoch for records in runs.values())
    trials = [
        RecordedTrial(
            number,
            records,
            "complete" if whole or records[-1].epoch == longest else "pruned",
            {"run": path.stem},
        )
        for number, (path, records) in enumerate(runs.items())
    ]
    metric = MetricConfig(name=all_columns["metric"], direction=direction)
    return Recording(RecordedStudy(metric=metric), tuple(trials))


def _check_given_once(files: Sequence[Path]) -> None:
    """Check that no file is given twice, as its run would count twice.

    Raises:
        RecordsError: when one is.
    """
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


def _known_key(key: str) -> str:
    if key not in COLUMNS:
        raise RecordsError(
            f"unknown key {key!r}{nearest(key, COLUMNS)}",
            where="--column",
            found=key,
            allowed=", ".join(COLUMNS),
            next_step="write --column key=column",
        )
    return key


def _matching_columns(tables: Iterable[Sequence[Row]], pattern: str) -> tuple[str, ...]:
    """The columns of all tables that match a pattern, in the order in which they appear."""
    found = dict.fromkeys(name for rows in tables for row in rows for name in row)
    return tuple(name for name in found if fnmatchcase(name, pattern))


def _convert_run(table: RunTable, named: Iterable[str]) -> tuple[EpochRecord, ...]:
    """Convert the epochs of one run; those without a loss are left out.

    Args:
        table: of the run.
        named: keys whose columns were named, which therefore have to exist.

    Raises:
        RecordsError: when a column is missing, or no epoch has a loss.
    """
    _check_columns(table, dict.fromkeys((*NEEDED, *named)))
    by_epoch = _group_by_epoch(table)
    first = min(by_epoch, default=1)
    shift = 1 - first if first < 1 else 0
    epochs = [
        {"epoch": epoch + shift, **_merge_rows(by_epoch[epoch], table)}
        for epoch in sorted(by_epoch)
    ]
    records = tuple(
        make_record(epoch, f"{table.path}, epoch {epoch['epoch']}")
        for epoch in epochs
        if epoch.get("loss") is not None
    )
    if not records:
        raise RecordsError(
            f"{table.path.name} has no epoch with a loss",
            where=str(table.path),
            found=f"{len(table.rows)} rows",
            allowed="rows with an epoch and a loss",
            next_step="name the columns with --column",
        )
    return records


def _group_by_epoch(table: RunTable) -> dict[int, list[PlacedRow]]:
    """Epoch → its rows; some programs log 0.25, 0.5, … within the first epoch."""
    found: dict[int, list[PlacedRow]] = defaultdict(list)
    column = table.columns["epoch"]
    for number, row in enumerate(table.rows, 1):
        place = f"{table.path}, row {number}"
        epoch = _parse_number(row.get(column), f"epoch (column {column!r})", place)
        if epoch is not None and math.isfinite(epoch):
            found[math.ceil(epoch)].append(PlacedRow(place, row))
    return found


def _check_columns(table: RunTable, wanted: Iterable[str]) -> None:
    existing = list(dict.fromkeys(name for row in table.rows for name in row))
    for key in wanted:
        column = table.columns[key]
        if not any(fnmatchcase(name, column) for name in existing):
            raise RecordsError(
                f"{table.path.name} has no column {column!r} for {key}{nearest(column, existing)}",
                where=str(table.path),
                found=", ".join(existing)[:300] or "no column",
                allowed="a column of the file",
                next_step=f"name it: --column {key}=…",
            )


def _merge_rows(rows: Sequence[PlacedRow], table: RunTable) -> dict[str, Any]:
    """Merge the rows of one epoch; a class without a number in them is None."""
    epoch: dict[str, Any] = {"metric": None}
    for key, column in table.columns.items():
        if key in ("epoch", "class_metric"):
            continue
        values = _column_values(rows, column, key)
        if values:
            epoch[key] = _merge_values(key, values)
    by_class = [_column_values(rows, name, name) for name in table.classes]
    if any(by_class):
        epoch["class_metric"] = [values[-1] if values else None for values in by_class]
    return epoch


def _merge_values(key: str, values: Sequence[float]) -> float:
    """One value of an epoch from those that were logged in it."""
    if key in MEANS:
        return fmean(values)
    return max(values) if key in LARGEST else values[-1]


def _column_values(rows: Sequence[PlacedRow], column: str, key: str) -> list[float]:
    """The numbers of a column; NaN only where it has no others."""
    cells = [
        _parse_number(row.get(column), f"{key} (column {column!r})", place) for place, row in rows
    ]
    values = [value for value in cells if value is not None]
    return [value for value in values if value == value] or values


def _parse_number(cell: Any, what: str, place: str) -> float | None:
    """The number in a cell; None where the cell is empty."""
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
            next_step="fix the row, or name another column with --column",
        ) from None
