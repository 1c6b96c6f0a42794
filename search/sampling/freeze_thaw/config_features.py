"""What a configuration means for a training, in numbers that studies with other spaces share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from search.sampling.freeze_thaw.curves import Floats

WEIGHT_STRENGTHS = {
    "uniform": 0.0,
    "log_inv_freq": 0.3,
    "sqrt_inv_freq": 0.5,
    "effective_number": 0.8,
    "median_freq": 1.0,
    "inverse_freq": 1.0,
}
"""Weight method → about which power of the inverse class frequency its weights are."""

NO_CLIP = 1.15
"""Coordinate of no bound: a little above that of the largest one."""

WITHOUT_DICE = {"smooth": 0.4, "square": 0.25, "image": 0.25, "ce_only": 0.0}

FEATURE_NAMES = (
    "weight_strength",
    "clip_ratio",
    "focal",
    "gamma",
    "alpha_tau",
    "label_smoothing",
    "dice_weight",
    "smooth",
    "square",
    "image",
    "ce_only",
    "lr_multiple",
    "grad_clip_norm",
    "no_grad_clip",
    "weight_decay",
    "cosine",
    "lr_warmup",
    "batch_size",
)

REQUIRED = ("optimizer.lr_multiple", "loss.dice_weight", "weights.method")
"""Values without which a configuration is none of a training that these features describe."""


def describe_configs(configurations: Sequence[Mapping[str, Any]], epochs: int) -> Floats:
    """Return the features of complete configurations, one row each.

    Args:
        configurations: dotted path → value.
        epochs: of a complete trial.
    """
    rows = [
        [*_loss_features(values, epochs), *_optimizer_features(values)] for values in configurations
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURE_NAMES))


def _loss_features(values: Mapping[str, Any], epochs: int) -> list[float]:
    method = values["weights.method"]
    is_focal = values["loss.kind"] == "focal"
    clip_ratio = values.get("weights.clip_ratio") if method != "uniform" else None
    dice = _dice_features(values, epochs)
    return [
        WEIGHT_STRENGTHS.get(method, 1.0),
        _log_unit(clip_ratio, 1.0, 100.0),
        math.sqrt(0.5) * is_focal,
        (values["loss.gamma"] if is_focal else 0.0) / 5,
        (values.get("loss.alpha_tau") or 0.0) if is_focal else 0.0,
        5 * values.get("loss.label_smoothing", 0.0),
        values["loss.dice_weight"],
        dice["smooth"],
        dice["square"],
        dice["image"],
        dice["ce_only"],
    ]


def _dice_features(values: Mapping[str, Any], epochs: int) -> Mapping[str, float]:
    if not values["loss.dice_weight"]:
        return WITHOUT_DICE
    ramp = values.get("schedule.dice_ramp_epochs", 0)
    return {
        "smooth": _log_unit(values["loss.smooth"], 0.1, 20.0),
        "square": 0.5 * bool(values["loss.square_denominator"]),
        "image": 0.5 * (values.get("loss.dice_reduction") == "image"),
        "ce_only": 2 * (values.get("schedule.dice_ce_only_epochs", 0) + ramp / 2) / epochs,
    }


def _optimizer_features(values: Mapping[str, Any]) -> list[float]:
    clip = values.get("optimizer.grad_clip_norm")
    return [
        _log_unit(values["optimizer.lr_multiple"], 0.01, 30.0),
        _log_unit(clip, 0.1, 10.0),
        0.5 * (clip is None),
        _log_unit(max(values.get("optimizer.weight_decay") or 0.0, 1e-6), 1e-6, 1e-2),
        0.5 * (values.get("schedule.lr") == "cosine"),
        0.5 * bool(values.get("schedule.lr_warmup_epochs")),
        math.log2(max(values.get("batch_size") or 8, 1) / 4) / 2,
    ]


def _log_unit(value: float | None, low: float, high: float) -> float:
    """Position of a value on a logarithmic axis: 0 at `low`, 1 at `high`; `NO_CLIP` for None."""
    if value is None:
        return NO_CLIP
    return math.log(max(value, 1e-12) / low) / math.log(high / low)
