"""Recorded trials as JSON Lines, one trial a line, from anywhere; docs/backtest.md describes the format.

A line is `{"epochs": [{"epoch": 1, "loss": …, "metric": …, …}, …]}` with, if known, `number`, `state`, `params`, `preset`
and `study`. What stands in an epoch is the business of `spaces.record_json`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from spaces.config import MetricConfig
from spaces.errors import RecordsError, nearest
from spaces.frozen import Frozen
from spaces.loader import check
from spaces.output_path import obstacle
from spaces.record_json import make_record, plain, told_row, whole, wrong
from spaces.records import EpochRecord

RecordedState = Literal["complete", "pruned", "diverged", "failed", "running"]

STATES: tuple[RecordedState, ...] = get_args(RecordedState)
GZIP_MAGIC = b"\x1f\x8b"
EXAMPLE = '{"epochs": [{"epoch": 1, "loss": 0.8, "metric": 0.45}, …]}'


class RecordedStudy(Frozen):
    """What the trials of a file were run for: how they are scored, and how long they were meant to be."""

    name: str = "records"
    metric: MetricConfig = MetricConfig(name="metric")
    epochs: int | None = Field(
        default=None, ge=1, description="epochs planned for a trial; null: those of the longest"
    )


@dataclass(frozen=True, slots=True)
class RecordedTrial:
    """One trial as it was recorded, its epochs in order. It may have none, when it failed before the first."""

    number: int
    epochs: tuple[EpochRecord, ...]
    state: RecordedState = "complete"
    params: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """Trials in order of their numbers, and the study that they belong to."""

    study: RecordedStudy
    trials: tuple[RecordedTrial, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    place: str
    study: RecordedStudy
    trial: RecordedTrial


def read_recording(path: Path) -> Recording:
    """The trials of a JSON Lines file, compressed by gzip or not.

    Raises:
        RecordsError: when the file cannot be read, or a line is no trial; it names the line.
    """
    lines = [_line(held, index, place) for index, (held, place) in enumerate(_objects(path))]
    if not lines:
        raise RecordsError(
            f"{path.name} holds no trial",
            where=str(path),
            found="no line",
            allowed=EXAMPLE,
            next_step="write one object a line, one line a trial",
        )
    _check_together(lines)
    return Recording(
        lines[0].study,
        tuple(sorted((line.trial for line in lines), key=lambda trial: trial.number)),
    )


def check_out(path: Path, sources: Sequence[Path] = ()) -> None:
    """Whether a recording may be written there; asked before the work begins, not after.

    Args:
        path: where it is to go.
        sources: what it is made of, and must not be written over.

    Raises:
        RecordsError: when it is a folder, or its folder is not there or cannot be written.
    """
    if any(path.resolve() == source.resolve() for source in sources):
        raise _unwritable(path, "the table that is to be read")
    met = obstacle(path, "--out")
    if met:
        raise _unwritable(path, *met)


def write_recording(path: Path, recording: Recording) -> None:
    """Write trials as JSON Lines, through gzip where the name ends with .gz; floats are rounded.

    Raises:
        RecordsError: when the place cannot be written.
    """
    study = {"study": recording.study.model_dump(mode="json")}
    lines = [
        json.dumps(study | _told(trial), separators=(",", ":"), allow_nan=False)
        for trial in recording.trials
    ]
    data = "".join(f"{line}\n" for line in lines).encode()
    try:
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    except OSError as problem:
        raise _unwritable(path, problem.strerror or str(problem)) from None


def _unwritable(
    path: Path, found: str, next_step: str = "name another place with --out"
) -> RecordsError:
    return RecordsError(
        f"cannot write {path}",
        where=str(path),
        found=found,
        allowed="a file in a folder that is there",
        next_step=next_step,
    )


def _told(trial: RecordedTrial) -> dict[str, Any]:
    told: dict[str, Any] = {
        "number": trial.number,
        "state": trial.state,
        "params": plain(trial.params),
    }
    return (
        told
        | ({"preset": trial.preset} if trial.preset else {})
        | {"epochs": [told_row(record) for record in trial.epochs]}
    )


def _objects(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Every line that is not empty, as a mapping, with its place."""
    for number, line in enumerate(_text(path).split("\n"), 1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            held = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise RecordsError(
                f"a line of {path.name} is not JSON",
                where=place,
                found=f"{line:.80}",
                allowed=EXAMPLE,
                next_step=f"mend it: {problem}"[:200],
            ) from None
        if not isinstance(held, dict):
            raise RecordsError(
                f"a line of {path.name} is no trial",
                where=place,
                found=f"{line:.80}",
                allowed=EXAMPLE,
                next_step="write one object a line",
            )
        yield held, place


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data).decode("utf-8-sig")
    except UnicodeDecodeError:
        reason = "not UTF-8 text"
    except (OSError, EOFError, zlib.error) as problem:
        reason = getattr(problem, "strerror", None) or f"broken gzip: {problem}"
    raise RecordsError(
        f"cannot read {path}",
        where=str(path),
        found=reason,
        allowed="JSON Lines, compressed by gzip or not",
        next_step="check the path, its rights, and that the file is whole",
    )


def _line(held: Mapping[str, Any], index: int, place: str) -> _Line:
    number = index if held.get("number") is None else whole(held["number"], f"{place} → number", 0)
    study = check(
        RecordedStudy, _mapping(held.get("study") or {}, f"{place} → study"), place, RecordsError
    )
    params = _mapping(held.get("params") or {}, f"{place} → params")
    return _Line(
        place,
        study,
        RecordedTrial(
            number,
            _epochs(held, place),
            _state(held, place),
            dict(params),
            str(held.get("preset") or ""),
        ),
    )


def _state(held: Mapping[str, Any], place: str) -> RecordedState:
    given = held.get("state") or "complete"
    for state in STATES:
        if given == state:
            return state
    raise RecordsError(
        f"unknown state {given!r:.60}{nearest(given, STATES)}",
        where=f"{place} → state",
        found=f"{given!r:.60}",
        allowed=", ".join(STATES),
        next_step="name one of these",
    )


def _epochs(held: Mapping[str, Any], place: str) -> tuple[EpochRecord, ...]:
    rows = held.get("epochs")
    if not isinstance(rows, list):
        what = "a trial has no epochs" if rows is None else f"epochs cannot be {rows!r:.60}"
        raise RecordsError(
            what,
            where=place,
            found=", ".join(held)[:200] or "nothing",
            allowed=EXAMPLE,
            next_step="add them; a trial that never trained has an empty list",
        )
    places = [f"{place} → epochs[{index}]" for index in range(len(rows))]
    records = tuple(
        make_record(_mapping(row, at), at) for row, at in zip(rows, places, strict=True)
    )
    for (before, after), at in zip(pairwise(records), places[1:], strict=True):
        _check_pair(before, after, at)
    return records


def _mapping(given: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise wrong(given, place, "an object of keys and values")
    return given


def _check_pair(before: EpochRecord, after: EpochRecord, place: str) -> None:
    """Gaps are fine; an epoch that stands twice or too late is not, nor is a class that comes or goes."""
    if after.epoch <= before.epoch:
        what = (
            f"epoch {after.epoch} stands twice"
            if after.epoch == before.epoch
            else f"epoch {after.epoch} comes after epoch {before.epoch}"
        )
        raise RecordsError(
            what,
            where=place,
            found=f"{before.epoch}, {after.epoch}",
            allowed="every epoch once, in order; gaps are fine",
            next_step="sort the epochs, and keep one of each",
        )
    classes = len(before.class_metric), len(after.class_metric)
    if classes[0] != classes[1] and all(classes):
        raise RecordsError(
            "the number of classes changes within a trial",
            where=f"{place} → class_metric",
            found=f"{classes[0]}, then {classes[1]}",
            allowed="one length; null for a class that the split does not hold",
            next_step="mend the list",
        )


def _check_together(lines: Sequence[_Line]) -> None:
    """One study, and a number of its own for every trial."""
    seen: dict[int, str] = {}
    for line in lines:
        if line.study != lines[0].study:
            raise RecordsError(
                "the file mixes trials of different studies",
                where=f"{line.place} → study",
                found=str(line.study),
                allowed=str(lines[0].study),
                next_step="make a file for each study",
            )
        if line.trial.number in seen:
            allowed = "a number of its own for every trial, or none for any"
            raise RecordsError(
                f"two trials have the number {line.trial.number}",
                where=line.place,
                found=f"also in {seen[line.trial.number]}",
                allowed=allowed,
                next_step="number them anew",
            )
        seen[line.trial.number] = line.place
