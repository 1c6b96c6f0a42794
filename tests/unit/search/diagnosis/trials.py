"""Trials to diagnose: their records, configurations and facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from objectives.segmentation.config import SegmentationConfig
from search.diagnosis.facts import Facts
from search.diagnosis.rank_causes import diagnose
from spaces.config_tree import ConfigTree
from spaces.records import ClassCounts, Diagnosis, EpochRecord, Evidence

Course = Callable[..., list[EpochRecord]]
COUNTS = ClassCounts(("road", "car", "person", "rider"), (8800, 900, 250, 50))

HEALTHY: dict[str, Any] = {
    "metrics": {},
    "dice_loss": 0.5,
    "val_loss": 0.8,
    "class_metric": (0.9, 0.5, 0.3, 0.2),
    "weight_ratio": 10.0,
    "grad_norm_median": 1.0,
    "grad_norm_max": 2.0,
    "clipped_share": 0.1,
    "lr": 0.03,
    "ce_weight": 0.7,
    "dice_weight": 0.3,
    "smooth": 5.0,
    "steps": 24,
    "grad_shares": {"ce": 0.8, "dice": 0.2},
    "class_grad_shares": (0.3, 0.25, 0.25, 0.2),
}
"""Every epoch of a training of four classes in which nothing is wrong."""

RECOMMENDED: dict[str, Any] = {
    "weights.method": "sqrt_inv_freq",
    "weights.clip_ratio": 100.0,
    "loss.dice_weight": 0.3,
    "loss.ce_weight": 0.7,
    "loss.smooth": 5.0,
    "loss.square_denominator": True,
    "optimizer.lr_multiple": 0.3,
    "optimizer.grad_clip_norm": 1.0,
}


def configuration(**changes: Any) -> dict[str, Any]:
    """The recommended preset with changes, by dotted path with __ for the dot."""
    values = RECOMMENDED | {path.replace("__", "."): value for path, value in changes.items()}
    tree = ConfigTree.from_paths(values)
    return SegmentationConfig.model_validate(tree.nested).model_dump(mode="json")


def diagnosed(
    records: Sequence[EpochRecord],
    signal: str = "",
    counts: ClassCounts | None = COUNTS,
    **changes: Any,
) -> Diagnosis:
    """The diagnosis of a trial of the recommended preset with changes."""
    evidence = Evidence(signal, records[-1].epoch, None, "", {}, 1.0) if signal else None
    return diagnose(evidence, records, configuration(**changes), counts)


def patches(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """What the remedies change, in their order."""
    return [dict(remedy.patch) for remedy in diagnosis.remedies]


def facts_of(records: Sequence[EpochRecord], **changes: Any) -> Facts:
    """The facts of a trial that no signal ended."""
    return Facts(records, ConfigTree(configuration(**changes)), None, COUNTS)
