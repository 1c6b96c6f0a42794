"""A trial that the device has no memory for: half the batch once, in a fresh process; after that it counts as infeasible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.pruners.verdict import grade_severity
from spaces.config_tree import ConfigTree
from spaces.errors import OutOfMemoryError
from spaces.records import Diagnosis, EpochRecord, Evidence, Remedy

SIGNAL, CAUSE = "out_of_memory", "out of memory"

BATCH, ACCUMULATE, CROP = "batch_size", "optimizer.accumulate", "data.crop"

HALVED = (BATCH, ACCUMULATE)
"""What a halving changes of a configuration, by path."""

Config = Mapping[str, Any]
"""Of a trial, nested."""


def halved(config: Config) -> dict[str, Any] | None:
    """The configuration with half the batch and doubled accumulation; None where there is no batch, or one of a single sample."""
    changes = _half(config)
    if not changes:
        return None
    return dict(ConfigTree(config).overlay(ConfigTree.from_paths(changes)).nested)


def asked_for(params: Mapping[str, Any], config: Config, halvings: int) -> dict[str, Any]:
    """What was sampled, as the training has to use it: a halving changed it."""
    values = ConfigTree(config if halvings else {})
    return {
        path: values.get(path, value) if path in HALVED else value for path, value in params.items()
    }


def evidence(
    problem: OutOfMemoryError,
    config: Config,
    records: Sequence[EpochRecord],
    halvings: int,
    epochs: int,
) -> Evidence:
    """That the trial cannot be trained here, as a signal: the earlier, the farther from what can."""
    values = ConfigTree(config)
    numbers = {path: values[path] for path in (*HALVED, CROP) if values.get(path) is not None}
    numbers |= {
        "device": problem.device,
        "asked": problem.asked or "not told",
        "halvings": halvings,
    }
    if records:
        numbers["peak_mib"] = max(record.peak_mib for record in records)
    told = f"{problem}{', with half of its batch, too' if halvings else ''}"
    found = Evidence(SIGNAL, records[-1].epoch + 1 if records else 1, None, told, numbers, 1.0)
    return Evidence(SIGNAL, found.epoch, None, told, numbers, grade_severity(found, epochs))


def diagnosis(problem: OutOfMemoryError, config: Config, halvings: int) -> Diagnosis:
    """There is no doubt about the cause; the remedies take less memory, first things first."""
    values = ConfigTree(config)
    because = [f"the allocator said so{f', asked for {problem.asked}' if problem.asked else ''}"]
    if BATCH in values:
        because.append(
            f"a batch holds {values[BATCH]}{f' after {halvings} halving' if halvings else ''}"
        )
    return Diagnosis(CAUSE, tuple(because), tuple(_remedies(config, values)), 1.0)


def _remedies(config: Config, values: Mapping[str, Any]) -> list[Remedy]:
    found = []
    if changes := _half(config):
        found.append(Remedy("half the batch, gathered twice as often", changes))
    crop = values.get(CROP)
    if isinstance(crop, Sequence) and min(crop) >= 64:
        smaller = [side // 2 // 32 * 32 for side in crop]
        found.append(Remedy("a smaller crop", {CROP: smaller}))
    found.append(
        Remedy("fewer workers on the device, a smaller model, or a device with more memory", {})
    )
    return found


def _half(config: Config) -> dict[str, Any]:
    values = ConfigTree(config)
    batch, accumulate = values.get(BATCH), values.get(ACCUMULATE)
    if not isinstance(batch, int) or not isinstance(accumulate, int) or batch < 2:
        return {}
    return {BATCH: batch // 2, ACCUMULATE: 2 * accumulate}
