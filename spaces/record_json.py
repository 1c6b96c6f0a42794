"""One epoch of a recorded trial as a JSON object, in both directions.

Only `epoch`, `loss` and `metric` are required. What an object does not tell stays unknown, so that the signals that need
it do not judge: an unknown `val_loss` is NaN, an unknown `class_metric` empty, and where the gradient norm is unknown the
record says that no step was watched (`steps` 0). A loss without its parts counts as one part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from spaces.errors import RecordsError
from spaces.records import EpochRecord

DIGITS = 5
"""Significant digits of a float that is written; what is left out is below any noise."""

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
"""Numbers of a record and what stands for them where a row does not tell them."""

WRITTEN = (
    "metric",
    *PARTS,
    *UNKNOWN,
    "steps",
    "broken_step",
    "settled",
    "class_metric",
    "class_grad_shares",
    "metrics",
    "grad_shares",
)
"""Fields of a record that a row tells, besides epoch and loss."""

SPELLED = frozenset(sign + word for sign in ("", "+", "-") for word in ("nan", "inf", "infinity"))
"""Numbers that JSON has no word for, as text in small letters."""


def make_record(row: Mapping[str, Any], place: str = "an epoch") -> EpochRecord:
    """An epoch from what is known of it: at least `epoch`, `loss` and `metric`, else whatever `EpochRecord` has.

    Other keys are left aside. A null stands for what was not measured; NaN and the infinities may be text.

    Raises:
        RecordsError: when one of the three is missing, or a value is of another kind.

    >>> make_record({"epoch": 1, "loss": 0.8, "metric": 0.45}).train_loss
    0.8
    """
    for key in REQUIRED:
        if key not in row and REQUIRED[key] not in row:
            found = ", ".join(map(str, row))[:200] or "nothing"
            raise RecordsError(
                f"an epoch has no {key}",
                where=place,
                found=found,
                allowed=", ".join(REQUIRED),
                next_step=f"add {key} to every epoch",
            )
    loss, metric = row.get("loss", row.get("train_loss")), row["metric"]
    if loss is None:
        raise RecordsError(
            "a loss is null",
            where=place,
            allowed='a number, or "NaN" where it was none',
            next_step="leave an epoch out whose loss was not recorded",
        )
    train_loss = number(loss, f"{place} → loss")
    known: dict[str, Any] = {
        key: unknown if row.get(key) is None else number(row[key], f"{place} → {key}")
        for key, unknown in UNKNOWN.items()
    }
    if row.get("grad_norm_median") is None:
        known["grad_norm_median"] = known["grad_norm_max"]
    return EpochRecord(
        epoch=whole(row["epoch"], f"{place} → epoch", 1),
        train_loss=train_loss,
        metric=math.nan if metric is None else number(metric, f"{place} → metric"),
        steps=_steps(row, place),
        broken_step=None
        if row.get("broken_step") is None
        else whole(row["broken_step"], f"{place} → broken_step", 1),
        settled=_settled(row, place),
        class_metric=_list(row, "class_metric", place),
        class_grad_shares=_list(row, "class_grad_shares", place),
        metrics=_mapping(row, "metrics", place),
        grad_shares=_mapping(row, "grad_shares", place),
        **known,
        **_parts(row, train_loss, place),
    )


def _parts(row: Mapping[str, Any], loss: float, place: str) -> dict[str, Any]:
    """The parts of the loss; `dice_loss` may be missing alone, where it took no part in an epoch."""
    if row.get("ce_loss") is None or any(
        row.get(key) is None for key in PARTS if key != "dice_loss"
    ):
        return {"ce_loss": loss, "dice_loss": None, "ce_weight": 1.0, "dice_weight": 0.0}
    return {
        key: None if row.get(key) is None else number(row[key], f"{place} → {key}") for key in PARTS
    }


def _steps(row: Mapping[str, Any], place: str) -> int:
    """Norms that are unknown are told by 0: nobody watched the steps."""
    if row.get("grad_norm_max") is None:
        return 0
    return 1 if row.get("steps") is None else whole(row["steps"], f"{place} → steps", 1)


def _settled(row: Mapping[str, Any], place: str) -> bool:
    settled = row.get("settled", True)
    if not isinstance(settled, bool):
        raise wrong(settled, f"{place} → settled", "true or false")
    return settled


def _list(row: Mapping[str, Any], key: str, place: str) -> tuple[float | None, ...]:
    given = row.get(key)
    if given is None:
        return ()
    if not isinstance(given, list | tuple):
        raise wrong(
            given,
            f"{place} → {key}",
            "a list with a number for every class, null for a class that the split does not hold",
        )
    return tuple(
        None if value is None else number(value, f"{place} → {key}[{index}]")
        for index, value in enumerate(given)
    )


def _mapping(row: Mapping[str, Any], key: str, place: str) -> dict[str, float]:
    given = row.get(key) or {}
    if not isinstance(given, Mapping):
        raise wrong(given, f"{place} → {key}", "a mapping from names to numbers")
    return {
        str(name): number(value, f"{place} → {key} → {name}")
        for name, value in given.items()
        if value is not None
    }


def number(given: Any, place: str) -> float:
    """A JSON number, or NaN and the infinities as text, for JSON has no word for them.

    Raises:
        RecordsError: for anything else.
    """
    spelled = isinstance(given, str) and given.lower() in SPELLED
    if not spelled and (not isinstance(given, int | float) or isinstance(given, bool)):
        raise wrong(given, place, 'a number, "NaN", "Infinity" or "-Infinity"')
    try:
        return float(given)
    except OverflowError:
        raise wrong(given, place, "a number that a float can hold") from None


def whole(given: Any, place: str, lowest: int) -> int:
    """A whole number from `lowest` on; 3.0 is one, as tables have it.

    Raises:
        RecordsError: for anything else.
    """
    sound = (
        isinstance(given, int | float)
        and not isinstance(given, bool)
        and math.isfinite(given)
        and given == int(given)
    )
    if not sound or given < lowest:
        raise wrong(given, place, f"a whole number from {lowest} on")
    return int(given)


def wrong(found: Any, place: str, allowed: str) -> RecordsError:
    """What is to be raised for a value of another kind."""
    name = place.rpartition("→")[2].strip()
    return RecordsError(
        f"{name} cannot be {found!r:.60}",
        where=place,
        found=f"{type(found).__name__} {found!r:.200}",
        allowed=allowed,
        next_step="mend the line",
    )


def told_row(record: EpochRecord) -> dict[str, Any]:
    """The inverse of `make_record`, floats rounded; what is empty, unknown or as usual is left out."""
    told: dict[str, Any] = {"epoch": record.epoch, "loss": record.train_loss}
    told |= {name: getattr(record, name) for name in WRITTEN}
    if not record.steps:
        del told["steps"]
    usual = {
        name
        for name, value in told.items()
        if value is None or value in ({}, ()) or _unmeasured(record, name, value)
    }
    if record.settled:
        usual.add("settled")
    row: dict[str, Any] = plain({name: value for name, value in told.items() if name not in usual})
    return row


def _unmeasured(record: EpochRecord, name: str, value: Any) -> bool:
    """NaN where nothing was measured, and not a measured NaN: the loss, the metric, and the norm of a step that was watched."""
    measured = name in ("loss", "metric") or (name.startswith("grad_norm") and record.steps > 0)
    return isinstance(value, float) and value != value and not measured


def plain(value: Any) -> Any:
    """JSON values: floats rounded, NaN and infinity as text."""
    if isinstance(value, float):
        return (
            float(f"{value:.{DIGITS}g}")
            if math.isfinite(value)
            else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
        )
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return (
        [plain(item) for item in value]
        if isinstance(value, Iterable) and not isinstance(value, str)
        else value
    )
