"""Reads the rows of tables of training curves: CSV, JSON Lines, or a JSON array."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from spaces.errors import RecordsError

FORMATS = "CSV (.csv), JSON Lines, or a JSON array of rows"

Row = dict[str, Any]
"""Name of a column → cell."""


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a table.

    Raises:
        RecordsError: when the file cannot be read, or is not a table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return _parse_csv(text, path)
        is_array = text.lstrip().startswith("[")
        rows = json.loads(text) if is_array else _parse_json_lines(text, path)
    except (OSError, ValueError, csv.Error) as problem:
        raise RecordsError(
            f"cannot read {path}",
            where=str(path),
            found=str(problem)[:200],
            allowed=FORMATS,
            next_step="export the history again",
        ) from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RecordsError(
                f"{path.name} is not a table",
                where=f"{path}, row {number}",
                found=f"{row!r:.80}",
                allowed="an object for every row",
                next_step="export with orient='records'",
            )
    return rows


def _parse_json_lines(text: str, path: Path) -> list[Any]:
    """The value of every line that is not empty."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as problem:
            raise RecordsError(
                f"a line of {path.name} is not JSON",
                where=f"{path}, line {number}",
                found=f"{line:.80}: {problem}",
                allowed=FORMATS,
                next_step="fix the line, or export the history again",
            ) from None
    return rows


def _parse_csv(text: str, path: Path) -> list[Row]:
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
                next_step="put text with commas in quotes, or export the table again",
            )
    return [dict(zip(head, row, strict=True)) for _, row in rows]
