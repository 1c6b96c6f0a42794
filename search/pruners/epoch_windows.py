"""Windows of epoch records in which losses and metrics can be compared, for the signals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from spaces.records import EpochRecord, Evidence

Records = Sequence[EpochRecord]
"""Records of one trial, in order of epochs."""

LEAST_SEVERITY = 0.1
"""Severity that a signal has at least; a signal that fires at a step has 1."""


def has_metric(record: EpochRecord) -> bool:
    """Whether the metric is finite; NaN compares as neither above nor below any threshold."""
    return math.isfinite(record.metric)


def last_validated(records: Records, count: int) -> list[EpochRecord]:
    """The last records that have a metric, at most `count`, in order."""
    found: list[EpochRecord] = []
    for record in reversed(records):
        if len(found) == count:
            break
        if has_metric(record):
            found.append(record)
    return found[::-1]


def last_comparable(records: Records, count: int) -> list[EpochRecord]:
    """The last records whose losses can be compared with the latest one, at most `count`.

    They have the same class weights and the same smooth. Records without a finite loss are left
    out.
    """
    latest = records[-1]
    found: list[EpochRecord] = []
    for record in reversed(records):
        if len(found) == count or not _same_loss(record, latest):
            break
        if math.isfinite(record.train_loss) and math.isfinite(record.ce_loss):
            found.append(record)
    return found[::-1]


def _same_loss(record: EpochRecord, latest: EpochRecord) -> bool:
    """Whether both were trained with the same class weights, and with the same Dice or none."""
    if record.weight_ratio != latest.weight_ratio:
        return False
    if record.dice_loss is None or latest.dice_loss is None:
        return record.dice_loss is latest.dice_loss
    return record.smooth == latest.smooth


def recombined_losses(records: Records) -> list[float]:
    """The training losses with the latest CE/Dice weights, which a schedule does not change."""
    latest = records[-1]
    if latest.dice_loss is None:
        return [record.ce_loss for record in records]
    return [
        latest.ce_weight * record.ce_loss + latest.dice_weight * (record.dice_loss or 0.0)
        for record in records
    ]


def epoch_numbers(records: Records, steps: int) -> list[int]:
    """The epochs of the last `steps` + 1 records."""
    return [record.epoch for record in records[-(steps + 1) :]]


def relative_severity(change: float, reference: float) -> float:
    """A change in the wrong direction relative to a reference, within 0.1 and 1."""
    share = abs(change / reference) if reference else 1.0
    return min(1.0, max(LEAST_SEVERITY, share))


def make_evidence(
    signal: str,
    record: EpochRecord,
    statement: str,
    numbers: Mapping[str, Any],
    severity: float = 1.0,
) -> Evidence:
    """The evidence of a signal that fired at a record.

    Args:
        signal: its name.
        record: the latest one.
        statement: what happened, with the main numbers.
        numbers: those from which the rule was computed.
        severity: above 0 and up to 1.
    """
    return Evidence(signal, record.epoch, record.broken_step, statement, numbers, severity)
