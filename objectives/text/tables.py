"""One's own texts: rows of CSV, JSON Lines, Parquet or a folder of `datasets`, checked before anything is trained on them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from objectives.text.config import TableData
from objectives.text.texts import Labelled, Texts
from spaces.errors import DataError, nearest

Row = Mapping[str, Any]

LONGEST_TEXT = 2**30
"""Characters; max_length cuts off what is too much, and Python's own limit would refuse the file."""


def load_table(config: TableData) -> Texts:
    """The splits of the data set.

    Raises:
        DataError: for a file that cannot be read, a column that is not there, an empty text, a label that training does
            not know, or a class without a training or validation text.
    """
    train = _pairs(config, config.train, "train")
    val = None if config.val is None else _pairs(config, config.val, "val")
    if val is None:
        train, val = _drawn(train, config)
    test = None if config.test is None else _pairs(config, config.test, "test")
    names = config.classes or tuple(sorted({label for _, label, _ in train}, key=_order))
    if len(names) < 2:
        raise DataError(
            "there is nothing to tell apart",
            where=config.train,
            found=f"one class, {names[0]!r}",
            allowed="two classes or more",
            next_step=f"check the column {config.label!r}",
        )
    texts = Texts(
        names,
        _labelled(train, names, config),
        _labelled(val, names, config),
        None if test is None else _labelled(test, names, config),
    )
    _all_held(texts, config)
    return texts


def marks(config: TableData) -> list[str]:
    """Names, sizes and times of the files: what the texts depend on besides the configuration."""
    found = []
    for name in (config.train, config.val, config.test):
        path = Path(name or "")
        files = sorted(path.rglob("*")) if path.is_dir() and name else [path]
        found += [
            f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}"
            for file in files
            if name and file.is_file()
        ]
    return found


def _order(label: str) -> tuple[float, str]:
    """Numbers by their size, and then words."""
    try:
        value = float(label)
    except ValueError:
        value = math.inf
    return (value, "") if math.isfinite(value) else (math.inf, label)


def _pairs(config: TableData, name: str, split: str) -> list[tuple[str, str, str]]:
    """Text, label and place of every row."""
    path = Path(name)
    if not path.exists():
        raise DataError(
            f"there is no {'folder' if config.kind == 'datasets' else 'file'} with the {split} texts",
            where=f"base.data.{split}",
            found=str(path),
            next_step="check the path; it is relative to the working directory",
        )
    csv.field_size_limit(LONGEST_TEXT)
    try:
        rows = [
            _pair(row, f"{path}, row {number}", config)
            for number, row in enumerate(_READERS[config.kind](path), 1)
        ]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as problem:
        raise DataError(
            f"{path.name} cannot be read as {config.kind}",
            where=str(path),
            found=f"{type(problem).__name__}: {str(problem)[:200]}",
            next_step="mend the file, or name its kind in base.data.kind",
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


def _pair(row: Row, place: str, config: TableData) -> tuple[str, str, str]:
    for key, column in (("text", config.text), ("label", config.label)):
        if column not in row:
            known = [str(name) for name in row if name is not None]
            raise DataError(
                f"there is no column {column!r}{nearest(column, known)}",
                where=place,
                found=", ".join(known)[:200],
                next_step=f"name the column in base.data.{key}",
            )
    text, label = row[config.text], row[config.label]
    if not isinstance(text, str) or not text.strip():
        what = "a text is empty" if text is None or isinstance(text, str) else "a text is no text"
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
    return text, str(label).strip(), place


def _drawn(
    rows: list[tuple[str, str, str]], config: TableData
) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """Training rows without, and with nothing but, the share of every class that is drawn for validation. Equal texts stay together."""
    classes: dict[str, list[str]] = {}
    for text, label, _ in rows:
        classes.setdefault(label, []).append(text)
    rng, chosen = np.random.default_rng(config.seed), set[str]()
    for label in sorted(classes):
        texts = sorted(set(classes[label]))
        chosen.update(
            texts[index]
            for index in rng.permutation(len(texts))[
                : min(len(texts) - 1, max(1, round(config.val_share * len(texts))))
            ]
        )
    return [row for row in rows if row[0] not in chosen], [row for row in rows if row[0] in chosen]


def _labelled(
    rows: list[tuple[str, str, str]], names: tuple[str, ...], config: TableData
) -> Labelled:
    index = {name: at for at, name in enumerate(names)}
    for _, label, place in rows:
        if label not in index:
            raise DataError(
                f"the label {label!r} is no class that is trained{nearest(label, names)}",
                where=f"{place}, column {config.label!r}",
                found=label,
                allowed=", ".join(names)[:300],
                next_step="mend the label, or add training texts (and the name to base.data.classes, where that is given)",
            )
    return Labelled(tuple(text for text, _, _ in rows), tuple(index[label] for _, label, _ in rows))


def _all_held(texts: Texts, config: TableData) -> None:
    """Every class has texts to learn from and texts to be judged by."""
    for split, place in (
        ("train", config.train),
        ("val", config.val or f"{config.train}, of which {config.val_share:g} was drawn"),
    ):
        held = set(getattr(texts, split).labels)
        absent = [name for at, name in enumerate(texts.class_names) if at not in held]
        if absent:
            kind = "training" if split == "train" else "validation"
            raise DataError(
                f"the class {absent[0]!r} has no {kind} text",
                where=place,
                found=f"no text of {', '.join(absent)}",
                allowed="at least one of every class",
                next_step="add texts of it, or leave it out"
                + ("" if config.val else ", or name a file of your own in base.data.val"),
            )


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, strict=True)


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                row = _parsed(line, path, number)
                if not isinstance(row, dict):
                    raise DataError(
                        "a line is no object",
                        where=f"{path}, line {number}",
                        found=line.strip()[:100],
                        allowed='{"text": …, "label": …}',
                        next_step="mend the line",
                    )
                yield row


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as problem:
        raise DataError(
            "a line is no JSON",
            where=f"{path}, line {number}, column {problem.colno}",
            found=line.strip()[:100],
            allowed='{"text": …, "label": …}',
            next_step="mend the line, or name the file's kind in base.data.kind",
        ) from None


def _parquet(path: Path) -> Iterable[Row]:
    rows: list[Row] = _library("pyarrow.parquet", "parquet").read_table(path).to_pylist()
    return rows


def _datasets(path: Path) -> Iterator[Row]:
    held = _library("datasets", "datasets").load_from_disk(str(path))
    if isinstance(held, dict):
        raise DataError(
            "the folder holds several splits, and one is needed",
            where=str(path),
            found=", ".join(held),
            allowed="the folder of one split",
            next_step=f"name {path / next(iter(held), 'train')}, and the others in base.data.val and base.data.test",
        )
    names = {
        column: feature.names
        for column, feature in held.features.items()
        if hasattr(feature, "names")
    }  # classes kept as numbers
    for row in held:
        yield {
            column: names[column][value]
            if column in names and value is not None and value >= 0
            else value
            for column, value in row.items()
        }


def _library(module: str, kind: str) -> Any:
    """A reader that not everybody has.

    Raises:
        DataError: where it is not installed.
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


_READERS = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet, "datasets": _datasets}
