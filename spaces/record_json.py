"""Convert one epoch of a recorded trial to and from a JSON object.

Only `epoch`, `loss` and `metric` are required. What an object lacks stays unknown, so that the
signals that need it do not judge the epoch: an unknown `val_loss` is NaN, an unknown `class_metric`
is empty, and with an unknown gradient norm the record has no observed steps (`steps` 0). A loss
without its parts counts as one part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from spaces.errors import RecordsError
from spaces.records import EpochRecord, InputFigures

DIGITS = 5
"""Significant digits of a written float; the rest is below any noise."""

REQUIRED = {"epoch": "epoch", "loss": "train_loss", "metric": "metric"}
"""Key of a row → field of a record."""

PARTS = ("ce_loss", "dice_loss", "ce_weight", "dice_weight")
"""Without all of these the loss is one part."""

UNKNOWN = {
    "val_loss": math.nan,
    "val_ce": math.nan,
    "lr": math.nan,
    "smooth": 1.0,
    "weight_ratio": 1.0,
    "grad_norm_max": math.nan,
    "grad_norm_median": math.nan,
    "clipped_share": 0.0,
    "seconds": math.nan,
    "samples_per_s": math.nan,
    "peak_mib": math.nan,
}
"""Numbers of a record and their values where a row lacks them."""

WRITTEN = (
    "metric",
    *PARTS,
    *UNKNOWN,
    "steps",
    "broken_step",
    "settled",
    "class_metric",
    "class_grad_shares",
    "target_shares",
    "metrics",
    "grad_shares",
    "skipped_steps",
    "batch_norm_samples",
    "inputs",
    "val_inputs",
)
"""Fields of a record that are written to a row, besides epoch and loss."""

SPELLED = frozenset(sign + word for sign in ("", "+", "-") for word in ("nan", "inf", "infinity"))
"""Numbers that JSON cannot express, as text in lower case."""


def make_record(row: Mapping[str, Any], place: str = "an epoch") -> EpochRecord:
    """Make an epoch from `epoch`, `loss`, `metric` and other known fields of `EpochRecord`.

    Other keys are ignored. A null is a value that was not measured; NaN and infinities may be text.

    Args:
        row: key → value.
        place: what the row is called in an error.

    Raises:
        RecordsError: when a required key is missing, or a value is of another type.

    >>> make_record({"epoch": 1, "loss": 0.8, "metric": 0.45}).train_loss
    0.8
    """
    for key in REQUIRED:
        if key not in row and REQUIRED[key] not in row:
            raise RecordsError(
                f"an epoch has no {key}",
                where=place,
                found=", ".join(map(str, row))[:200] or "nothing",
                allowed=", ".join(REQUIRED),
                next_step=f"add {key} to every epoch",
            )
    loss = row.get("loss", row.get("train_loss"))
    metric = row["metric"]
    if loss is None:
        raise RecordsError(
            "a loss is null",
            where=place,
            allowed='a number, or "NaN" if the loss was not finite',
            next_step="leave out an epoch whose loss was not recorded",
        )
    train_loss = read_number(loss, place, "loss")
    known: dict[str, Any] = {
        key: _read_optional(row, key, place, unknown) for key, unknown in UNKNOWN.items()
    }
    if row.get("grad_norm_median") is None:
        known["grad_norm_median"] = known["grad_norm_max"]
    broken_step = row.get("broken_step")
    return EpochRecord(
        epoch=read_whole_number(row["epoch"], place, "epoch", 1),
        train_loss=train_loss,
        metric=math.nan if metric is None else read_number(metric, place, "metric"),
        steps=_read_steps(row, place),
        broken_step=None
        if broken_step is None
        else read_whole_number(broken_step, place, "broken_step", 1),
        settled=_read_settled(row, place),
        class_metric=_read_list(row, "class_metric", place),
        class_grad_shares=_read_list(row, "class_grad_shares", place),
        metrics=_read_mapping(row, "metrics", place),
        grad_shares=_read_mapping(row, "grad_shares", place),
        **_read_data_figures(row, place),
        **known,
        **_read_loss_parts(row, train_loss, place),
    )


def _read_data_figures(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Read what was recorded of inputs, targets, skipped steps and batch normalization."""
    samples = row.get("batch_norm_samples")
    return {
        "target_shares": tuple(
            0.0 if share is None else share for share in _read_list(row, "target_shares", place)
        ),
        "skipped_steps": read_whole_number(
            row.get("skipped_steps") or 0, place, "skipped_steps", 0
        ),
        "batch_norm_samples": None
        if samples is None
        else read_whole_number(samples, place, "batch_norm_samples", 1),
        "inputs": _read_inputs(row, "inputs", place),
        "val_inputs": _read_inputs(row, "val_inputs", place),
    }


def _read_inputs(row: Mapping[str, Any], key: str, place: str) -> InputFigures | None:
    """Read figures of images, of which each channel has four."""
    given = row.get(key)
    if given is None:
        return None
    names = ("mean", "deviation", "at_minimum", "at_maximum")
    if not isinstance(given, Mapping) or not {*names, "constant"} <= set(given):
        raise value_error(given, place, key, f"a mapping with {', '.join(names)} and constant")
    inside = f"{place} → {key}"
    channels = (_read_list(given, name, inside) for name in names)
    mean, deviation, at_minimum, at_maximum = (
        tuple(math.nan if value is None else value for value in values) for values in channels
    )
    constant = read_number(given["constant"], inside, "constant")
    return InputFigures(mean, deviation, at_minimum, at_maximum, constant)


def _read_optional(row: Mapping[str, Any], key: str, place: str, unknown: float) -> float:
    value = row.get(key)
    return unknown if value is None else read_number(value, place, key)


def _read_loss_parts(row: Mapping[str, Any], loss: float, place: str) -> dict[str, Any]:
    """Read the parts of the loss; only `dice_loss` may be null, in an epoch without Dice."""
    if any(row.get(key) is None for key in PARTS if key != "dice_loss"):
        return {"ce_loss": loss, "dice_loss": None, "ce_weight": 1.0, "dice_weight": 0.0}
    return {
        key: None if row.get(key) is None else read_number(row[key], place, key) for key in PARTS
    }


def _read_steps(row: Mapping[str, Any], place: str) -> int:
    """Read the number of observed steps: 0 where gradient norms are unknown."""
    if row.get("grad_norm_max") is None:
        return 0
    return 1 if row.get("steps") is None else read_whole_number(row["steps"], place, "steps", 1)


def _read_settled(row: Mapping[str, Any], place: str) -> bool:
    settled = row.get("settled", True)
    if not isinstance(settled, bool):
        raise value_error(settled, place, "settled", "true or false")
    return settled


def _read_list(row: Mapping[str, Any], key: str, place: str) -> tuple[float | None, ...]:
    given = row.get(key)
    if given is None:
        return ()
    if not isinstance(given, list | tuple):
        raise value_error(
            given,
            place,
            key,
            "a list with a number for every class, null for a class that is not in the split",
        )
    return tuple(
        None if value is None else read_number(value, place, f"{key}[{index}]")
        for index, value in enumerate(given)
    )


def _read_mapping(row: Mapping[str, Any], key: str, place: str) -> dict[str, float]:
    given = row.get(key) or {}
    if not isinstance(given, Mapping):
        raise value_error(given, place, key, "a mapping from names to numbers")
    return {
        str(name): read_number(value, f"{place} → {key}", str(name))
        for name, value in given.items()
        if value is not None
    }


def read_number(given: Any, place: str, name: str) -> float:
    """Read a JSON number, or NaN and the infinities as text, which JSON cannot express.

    Args:
        given: the value.
        place: what it is in, for an error.
        name: its key.

    Raises:
        RecordsError: for anything else.
    """
    spelled = isinstance(given, str) and given.lower() in SPELLED
    if not spelled and (not isinstance(given, int | float) or isinstance(given, bool)):
        raise value_error(given, place, name, 'a number, "NaN", "Infinity" or "-Infinity"')
    try:
        return float(given)
    except OverflowError:
        raise value_error(given, place, name, "a number within the range of a float") from None


def read_whole_number(given: Any, place: str, name: str, lowest: int) -> int:
    """Read a whole number from `lowest` on; 3.0 is one, as tables write it.

    Args:
        given: the value.
        place: what it is in, for an error.
        name: its key.
        lowest: the lowest allowed number.

    Raises:
        RecordsError: for anything else.
    """
    is_whole = (
        isinstance(given, int | float)
        and not isinstance(given, bool)
        and math.isfinite(given)
        and given == int(given)
    )
    if not is_whole or given < lowest:
        raise value_error(given, place, name, f"a whole number from {lowest} on")
    return int(given)


def value_error(found: Any, place: str, name: str, allowed: str) -> RecordsError:
    """Make the error about a value of another type, under the key `name` of what `place` is."""
    return RecordsError(
        f"{name} cannot be {found!r:.60}",
        where=f"{place} → {name}",
        found=f"{type(found).__name__} {found!r:.200}",
        allowed=allowed,
        next_step="fix the line",
    )


def make_row(record: EpochRecord) -> dict[str, Any]:
    """Invert `make_record`, with rounded floats; empty, unknown and default values are left out."""
    values: dict[str, Any] = {"epoch": record.epoch, "loss": record.train_loss}
    values |= {name: getattr(record, name) for name in WRITTEN}
    if not record.steps:
        del values["steps"]
    if record.settled:
        del values["settled"]
    if not record.skipped_steps:
        del values["skipped_steps"]
    for name in ("inputs", "val_inputs"):
        figures = getattr(record, name)
        values[name] = None if figures is None else asdict(figures)
    row: dict[str, Any] = to_json_value(
        {
            name: value
            for name, value in values.items()
            if not (value is None or value in ({}, ()) or _is_unmeasured(record, name, value))
        }
    )
    return row


def _is_unmeasured(record: EpochRecord, name: str, value: Any) -> bool:
    """Return whether NaN means that nothing was measured; a measured value can be NaN, too."""
    measured = name in ("loss", "metric") or (name.startswith("grad_norm") and record.steps > 0)
    return isinstance(value, float) and math.isnan(value) and not measured


def to_json_value(value: Any) -> Any:
    """Convert to JSON values: floats rounded, NaN and infinities as text."""
    if isinstance(value, float):
        if math.isfinite(value):
            return float(f"{value:.{DIGITS}g}")
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [to_json_value(item) for item in value]
    return value
