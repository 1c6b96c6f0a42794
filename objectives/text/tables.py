"""Texts in tables: CSV, JSON Lines, Parquet or a folder of `datasets`, checked on loading."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from objectives.text.config import TableData
from objectives.text.texts import LabeledTexts, Texts
from spaces.errors import DataError, nearest

Row = Mapping[str, Any]

LONGEST_TEXT = 2**30
"""Characters. `max_length` truncates long texts; Python's own limit would refuse the file."""


class _Example(NamedTuple):
    """Text and label of a row, and the place of the row for messages."""

    text: str
    label: str
    place: str


def load_table(config: TableData) -> Texts:
    """Load the splits of the data set.

    Raises:
        DataError: for a file that cannot be read, a missing column, an empty text, a label without
            training texts, or a class without a training or validation text.
    """
    train = _read_examples(config, config.train, "train")
    if config.val is None:
        train, val = _draw_validation(train, config)
    else:
        val = _read_examples(config, config.val, "val")
    test = None if config.test is None else _read_examples(config, config.test, "test")
    labels = {example.label for example in train}
    names = config.classes or tuple(sorted(labels, key=_sort_key))
    if len(names) < 2:
        raise DataError(
            "there is only one class",
            where=config.train,
            found=repr(names[0]),
            allowed="two classes or more",
            next_step=f"check the column {config.label!r}",
        )
    texts = Texts(
        names,
        _index_labels(train, names, config),
        _index_labels(val, names, config),
        None if test is None else _index_labels(test, names, config),
    )
    _check_classes(texts, config)
    return texts


def file_marks(config: TableData) -> list[str]:
    """Identify the files by their names, sizes and times."""
    found = []
    for name in filter(None, (config.train, config.val, config.test)):
        path = Path(name)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                status = file.stat()
                found.append(f"{file} {status.st_size} {status.st_mtime_ns}")
    return found


def _sort_key(label: str) -> tuple[float, str]:
    """Sort numbers by value, then words."""
    try:
        value = float(label)
    except ValueError:
        value = math.inf
    return (value, "") if math.isfinite(value) else (math.inf, label)


def _read_examples(config: TableData, name: str, split: str) -> list[_Example]:
    """Read every row of a split."""
    path = Path(name)
    if not path.exists():
        kind = "folder" if config.kind == "datasets" else "file"
        raise DataError(
            f"there is no {kind} with the {split} texts",
            where=f"base.data.{split}",
            found=str(path),
            next_step="check the path; it is relative to the working directory",
        )
    csv.field_size_limit(LONGEST_TEXT)
    try:
        rows = [
            _read_row(row, f"{path}, row {number}", config)
            for number, row in enumerate(_READERS[config.kind](path), 1)
        ]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as problem:
        raise DataError(
            f"{path.name} cannot be read as {config.kind}",
            where=str(path),
            found=f"{type(problem).__name__}: {str(problem)[:200]}",
            next_step="fix the file, or name its kind in base.data.kind",
        ) from None
    if not rows:
        raise DataError(
            "there is no row",
            where=str(path),
            found=f"a file of {path.stat().st_size} bytes without one",
            allowed=f"rows with the columns {config.text!r} and {config.label!r}",
            next_step="check that it is the right file",
        )
    return rows


def _read_row(row: Row, place: str, config: TableData) -> _Example:
    for key, column in (("text", config.text), ("label", config.label)):
        if column not in row:
            known = [str(name) for name in row if name is not None]
            raise DataError(
                f"there is no column {column!r}{nearest(column, known)}",
                where=place,
                found=", ".join(known)[:200],
                next_step=f"name the column in base.data.{key}",
            )
    text = row[config.text]
    label = row[config.label]
    if not isinstance(text, str) or not text.strip():
        empty = text is None or isinstance(text, str)
        what = "a text is empty" if empty else "a text is not a string"
        raise DataError(
            what,
            where=f"{place}, column {config.text!r}",
            found=repr(text)[:100],
            allowed="a text",
            next_step="fill it in, or leave the row out",
        )
    if label is None or label != label or not str(label).strip():
        raise DataError(
            "a label is empty",
            where=f"{place}, column {config.label!r}",
            found=repr(label)[:100],
            allowed="the name of a class",
            next_step="fill it in, or leave the row out",
        )
    return _Example(text, str(label).strip(), place)


def _draw_validation(
    examples: list[_Example], config: TableData
) -> tuple[list[_Example], list[_Example]]:
    """Draw a share of every class for validation; return the other examples and those drawn.

    Equal texts stay in one split.
    """
    classes: dict[str, list[str]] = {}
    for example in examples:
        classes.setdefault(example.label, []).append(example.text)
    rng = np.random.default_rng(config.seed)
    drawn: set[str] = set()
    for label in sorted(classes):
        texts = sorted(set(classes[label]))
        count = min(len(texts) - 1, max(1, round(config.val_share * len(texts))))
        drawn.update(texts[index] for index in rng.permutation(len(texts))[:count])
    train = [example for example in examples if example.text not in drawn]
    return train, [example for example in examples if example.text in drawn]


def _index_labels(
    examples: list[_Example], names: tuple[str, ...], config: TableData
) -> LabeledTexts:
    index = {name: position for position, name in enumerate(names)}
    for _, label, place in examples:
        if label not in index:
            raise DataError(
                f"the label {label!r} is not one of the classes{nearest(label, names)}",
                where=f"{place}, column {config.label!r}",
                found=label,
                allowed=", ".join(names)[:300],
                next_step="fix the label, or add training texts "
                "(and the name to base.data.classes, if that is given)",
            )
    labels = tuple(index[example.label] for example in examples)
    return LabeledTexts(tuple(example.text for example in examples), labels)


def _check_classes(texts: Texts, config: TableData) -> None:
    """Check that every class has training and validation texts."""
    drawn_from = f"{config.train}, of which {config.val_share:g} was drawn"
    _check_split(texts.train, texts.class_names, "training", config.train, config)
    _check_split(texts.val, texts.class_names, "validation", config.val or drawn_from, config)


def _check_split(
    split: LabeledTexts, names: tuple[str, ...], kind: str, place: str, config: TableData
) -> None:
    present = set(split.labels)
    absent = [name for index, name in enumerate(names) if index not in present]
    if absent:
        next_step = "add texts of it, or leave it out"
        if not config.val:
            next_step += ", or name a file of your own in base.data.val"
        raise DataError(
            f"the class {absent[0]!r} has no {kind} text",
            where=place,
            found=f"no text of {', '.join(absent)}",
            allowed="at least one of every class",
            next_step=next_step,
        )


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, strict=True)


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                row = _parse_line(line, path, number)
                if not isinstance(row, dict):
                    raise DataError(
                        "a line is not a JSON object",
                        where=f"{path}, line {number}",
                        found=line.strip()[:100],
                        allowed='{"text": …, "label": …}',
                        next_step="fix the line",
                    )
                yield row


def _parse_line(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as problem:
        raise DataError(
            "a line is not valid JSON",
            where=f"{path}, line {number}, column {problem.colno}",
            found=line.strip()[:100],
            allowed='{"text": …, "label": …}',
            next_step="fix the line, or name the file's kind in base.data.kind",
        ) from None


def _read_parquet(path: Path) -> Iterable[Row]:
    rows: list[Row] = _import_reader("pyarrow.parquet", "parquet").read_table(path).to_pylist()
    return rows


def _read_datasets(path: Path) -> Iterator[Row]:
    loaded = _import_reader("datasets", "datasets").load_from_disk(str(path))
    if isinstance(loaded, dict):
        first = path / next(iter(loaded), "train")
        raise DataError(
            "the folder contains several splits, and one is needed",
            where=str(path),
            found=", ".join(loaded),
            allowed="the folder of one split",
            next_step=f"name {first}, and the others in base.data.val and base.data.test",
        )
    # Columns whose numbers stand for names.
    names = {
        column: feature.names
        for column, feature in loaded.features.items()
        if hasattr(feature, "names")
    }
    for row in loaded:
        yield {column: _class_name(value, names.get(column)) for column, value in row.items()}


def _class_name(value: Any, names: list[str] | None) -> Any:
    """Return the name that a class's number stands for; any other value as it is."""
    if names is None or value is None or value < 0:
        return value
    return names[value]


def _import_reader(module: str, kind: str) -> Any:
    """Import the library that reads a kind of file.

    Raises:
        DataError: when it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise DataError(
            f"reading {kind} needs {package}, which is not installed",
            where="base.data.kind",
            found=kind,
            allowed="csv and jsonl need nothing",
            next_step=f"pip install {package}",
        ) from None


_READERS = {
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "datasets": _read_datasets,
}
