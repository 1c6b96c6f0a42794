"""A trial that runs out of memory is retried once with half the batch, and then infeasible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from search.pruners.verdict import grade_severity
from spaces.config_tree import ConfigTree
from spaces.errors import OutOfMemoryError
from spaces.records import Diagnosis, EpochRecord, Evidence, Remedy

SIGNAL = "out_of_memory"
CAUSE = "out of memory"

BATCH = "batch_size"
ACCUMULATE = "optimizer.accumulate"
CROP = "data.crop"

HALVED = (BATCH, ACCUMULATE)
"""Paths of the configuration that a halving changes."""

Config = Mapping[str, Any]
"""Configuration of a trial, nested."""


def halve_batch(config: Config) -> dict[str, Any] | None:
    """The configuration with half the batch and twice the accumulation; None if not possible."""
    changes = _batch_changes(config)
    if not changes:
        return None
    return dict(ConfigTree(config).overlay(ConfigTree.from_paths(changes)).nested)


def expected_values(params: Mapping[str, Any], config: Config, halvings: int) -> dict[str, Any]:
    """The sampled values as the training has to use them, with the changes of a halving."""
    values = ConfigTree(config if halvings else {})
    return {
        path: values.get(path, value) if path in HALVED else value for path, value in params.items()
    }


def make_evidence(
    problem: OutOfMemoryError,
    config: Config,
    records: Sequence[EpochRecord],
    halvings: int,
    epochs: int,
) -> Evidence:
    """The evidence that the trial cannot be trained here; more severe the earlier it failed."""
    values = ConfigTree(config)
    numbers = {path: values[path] for path in (*HALVED, CROP) if values.get(path) is not None}
    numbers |= {
        "device": problem.device,
        "asked": problem.asked or "unknown",
        "halvings": halvings,
    }
    if records:
        numbers["peak_mib"] = max(record.peak_mib for record in records)
    statement = f"{problem}, even with half of its batch" if halvings else str(problem)
    epoch = records[-1].epoch + 1 if records else 1
    evidence = Evidence(SIGNAL, epoch, None, statement, numbers, 1.0)
    return replace(evidence, severity=grade_severity(evidence, epochs))


def make_diagnosis(problem: OutOfMemoryError, config: Config, halvings: int) -> Diagnosis:
    """The diagnosis: a certain cause, and remedies that take less memory, the simplest first."""
    values = ConfigTree(config)
    asked = f", which was asked for {problem.asked}" if problem.asked else ""
    because = [f"reported by the allocator{asked}"]
    if BATCH in values:
        after = f" after {halvings} halving" if halvings else ""
        because.append(f"the batch has {values[BATCH]} samples{after}")
    return Diagnosis(CAUSE, tuple(because), tuple(_list_remedies(config, values)), 1.0)


def _list_remedies(config: Config, values: Mapping[str, Any]) -> list[Remedy]:
    remedies = []
    if changes := _batch_changes(config):
        remedies.append(_make_remedy("half the batch, accumulated twice as often", values, changes))
    crop = values.get(CROP)
    if isinstance(crop, Sequence) and min(crop) >= 64:
        smaller = [side // 2 // 32 * 32 for side in crop]
        remedies.append(_make_remedy("a smaller crop", values, {CROP: smaller}))
    remedies.append(
        Remedy("fewer workers per device, a smaller model, or a device with more memory", {})
    )
    return remedies


def _make_remedy(title: str, values: Mapping[str, Any], changes: Mapping[str, Any]) -> Remedy:
    shown = ", ".join(f"{path} {values.get(path)} → {value}" for path, value in changes.items())
    return Remedy(f"{title}: {shown}", changes)


def _batch_changes(config: Config) -> dict[str, Any]:
    values = ConfigTree(config)
    batch = values.get(BATCH)
    accumulate = values.get(ACCUMULATE)
    if not isinstance(batch, int) or not isinstance(accumulate, int) or batch < 2:
        return {}
    return {BATCH: batch // 2, ACCUMULATE: 2 * accumulate}
