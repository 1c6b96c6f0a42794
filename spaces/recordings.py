"""Read and write recorded trials as JSON Lines, a trial per line; docs/backtest.md has the format.

A line is `{"epochs": [{"epoch": 1, "loss": …, "metric": …, …}, …]}` with, if known, `number`,
`state`, `params`, `preset` and `study`. `spaces.record_json` reads and writes the epochs.
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
from spaces.output_path import find_obstacle
from spaces.record_json import (
    make_record,
    make_row,
    read_whole_number,
    to_json_value,
    value_error,
)
from spaces.records import EpochRecord

RecordedState = Literal["complete", "pruned", "diverged", "failed", "running"]

STATES: tuple[RecordedState, ...] = get_args(RecordedState)
GZIP_MAGIC = b"\x1f\x8b"
EXAMPLE = '{"epochs": [{"epoch": 1, "loss": 0.8, "metric": 0.45}, …]}'


class RecordedStudy(Frozen):
    """The study of the trials of a file: how they are scored, and how many epochs were planned."""

    name: str = "records"
    metric: MetricConfig = MetricConfig(name="metric")
    epochs: int | None = Field(
        default=None, ge=1, description="planned epochs per trial; null: those of the longest"
    )


@dataclass(frozen=True, slots=True)
class RecordedTrial:
    """One recorded trial with its epochs in order; one that failed early may have none."""

    number: int
    epochs: tuple[EpochRecord, ...]
    state: RecordedState = "complete"
    params: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """Trials in order of their numbers, and their study."""

    study: RecordedStudy
    trials: tuple[RecordedTrial, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    place: str
    study: RecordedStudy
    trial: RecordedTrial


def read_recording(path: Path) -> Recording:
    """Read the trials of a JSON Lines file, compressed by gzip or not.

    Raises:
        RecordsError: when the file cannot be read, or a line is no trial; it names the line.
    """
    lines = [_read_line(row, index, place) for index, (row, place) in enumerate(_read_rows(path))]
    if not lines:
        raise RecordsError(
            f"{path.name} contains no trial",
            where=str(path),
            found="no line",
            allowed=EXAMPLE,
            next_step="write one object per trial, one line per object",
        )
    _check_together(lines)
    trials = sorted((line.trial for line in lines), key=lambda trial: trial.number)
    return Recording(lines[0].study, tuple(trials))


def check_out(path: Path, sources: Sequence[Path] = ()) -> None:
    """Check that a recording can be written to `path`, before the work begins.

    Args:
        path: of the recording.
        sources: files that it is made of, and that cannot be overwritten.

    Raises:
        RecordsError: when it is a folder, or its folder does not exist or cannot be written.
    """
    if any(path.resolve() == source.resolve() for source in sources):
        raise _unwritable_error(path, "a table that is read for it")
    obstacle = find_obstacle(path, "--out")
    if obstacle:
        raise _unwritable_error(path, *obstacle)


def write_recording(path: Path, recording: Recording) -> None:
    """Write trials as JSON Lines, through gzip if the name ends with .gz; floats are rounded.

    Raises:
        RecordsError: when the file cannot be written.
    """
    study = {"study": recording.study.model_dump(mode="json")}
    lines = [
        json.dumps(study | _make_line(trial), separators=(",", ":"), allow_nan=False)
        for trial in recording.trials
    ]
    data = "".join(f"{line}\n" for line in lines).encode()
    try:
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    except OSError as problem:
        raise _unwritable_error(path, problem.strerror or str(problem)) from None


def _unwritable_error(
    path: Path, found: str, next_step: str = "choose another path with --out"
) -> RecordsError:
    return RecordsError(
        f"cannot write {path}",
        where=str(path),
        found=found,
        allowed="a file in a folder that exists",
        next_step=next_step,
    )


def _make_line(trial: RecordedTrial) -> dict[str, Any]:
    preset = {"preset": trial.preset} if trial.preset else {}
    return {
        "number": trial.number,
        "state": trial.state,
        "params": to_json_value(trial.params),
        **preset,
        "epochs": [make_row(record) for record in trial.epochs],
    }


def _read_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every line that is not empty, as a mapping, with what it is called in an error."""
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise RecordsError(
                f"a line of {path.name} is not JSON",
                where=place,
                found=f"{line:.80}",
                allowed=EXAMPLE,
                next_step=f"fix it: {problem}"[:200],
            ) from None
        if not isinstance(row, dict):
            raise RecordsError(
                f"a line of {path.name} is no trial",
                where=place,
                found=f"{line:.80}",
                allowed=EXAMPLE,
                next_step="write one object per line",
            )
        yield row, place


def _read_text(path: Path) -> str:
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
        next_step="check the path, its permissions, and that the file is complete",
    )


def _read_line(row: Mapping[str, Any], index: int, place: str) -> _Line:
    number = row.get("number")
    study = _check_mapping(row.get("study") or {}, place, "study")
    params = _check_mapping(row.get("params") or {}, place, "params")
    trial = RecordedTrial(
        number=index if number is None else read_whole_number(number, place, "number", 0),
        epochs=_read_epochs(row, place),
        state=_read_state(row, place),
        params=dict(params),
        preset=str(row.get("preset") or ""),
    )
    return _Line(place, check(RecordedStudy, study, place, RecordsError), trial)


def _read_state(row: Mapping[str, Any], place: str) -> RecordedState:
    given = row.get("state") or "complete"
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


def _read_epochs(row: Mapping[str, Any], place: str) -> tuple[EpochRecord, ...]:
    rows = row.get("epochs")
    if not isinstance(rows, list):
        missing = "a trial has no epochs"
        raise RecordsError(
            missing if rows is None else f"epochs cannot be {rows!r:.60}",
            where=place,
            found=", ".join(row)[:200] or "nothing",
            allowed=EXAMPLE,
            next_step="add them; a trial that never trained has an empty list",
        )
    names = [f"epochs[{index}]" for index in range(len(rows))]
    records = tuple(
        make_record(_check_mapping(each, place, name), f"{place} → {name}")
        for each, name in zip(rows, names, strict=True)
    )
    for (before, after), name in zip(pairwise(records), names[1:], strict=True):
        _check_pair(before, after, f"{place} → {name}")
    return records


def _check_mapping(given: Any, place: str, name: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise value_error(given, place, name, "an object of keys and values")
    return given


def _check_pair(before: EpochRecord, after: EpochRecord, place: str) -> None:
    """Refuse epochs out of order and a number of classes that changes; gaps are allowed."""
    if after.epoch <= before.epoch:
        repeated = f"epoch {after.epoch} is given twice"
        late = f"epoch {after.epoch} comes after epoch {before.epoch}"
        raise RecordsError(
            repeated if after.epoch == before.epoch else late,
            where=place,
            found=f"{before.epoch}, {after.epoch}",
            allowed="every epoch once, in order; gaps are allowed",
            next_step="sort the epochs, and keep one of each",
        )
    classes = (len(before.class_metric), len(after.class_metric))
    if classes[0] != classes[1] and all(classes):
        raise RecordsError(
            "the number of classes changes within a trial",
            where=f"{place} → class_metric",
            found=f"{classes[0]}, then {classes[1]}",
            allowed="one length; null for a class that is not in the split",
            next_step="fix the list",
        )


def _check_together(lines: Sequence[_Line]) -> None:
    """Check that all trials are of one study, and that no two have the same number."""
    seen: dict[int, str] = {}
    for line in lines:
        if line.study != lines[0].study:
            raise RecordsError(
                "the file mixes trials of different studies",
                where=f"{line.place} → study",
                found=str(line.study),
                allowed=str(lines[0].study),
                next_step="make one file per study",
            )
        if line.trial.number in seen:
            raise RecordsError(
                f"two trials have the number {line.trial.number}",
                where=line.place,
                found=f"also in {seen[line.trial.number]}",
                allowed="a different number for each trial, or no numbers at all",
                next_step="number the trials again",
            )
        seen[line.trial.number] = line.place
