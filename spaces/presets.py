"""Complete configurations that are known to train well; a study tries them first.

Their epoch numbers (warm-up 5 + 10, smooth from epoch 10, phases of 5 and 10) are for 30 epochs or
more. A shorter study scales them down in proportion, so that every final value is still reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from spaces.errors import StudyError, nearest

REFERENCE_EPOCHS = 30

SEPARATOR = ", "
"""Between the names of presets that are the same configuration, and share a trial."""

_Scale = Callable[[int], int]


def scaled_to(epochs: int) -> _Scale:
    """Return the function that scales an epoch number for 30 epochs down to `epochs`."""
    factor = min(1.0, epochs / REFERENCE_EPOCHS)
    return lambda epoch: max(1, math.floor(epoch * factor))


def first_name(names: str) -> str:
    """Return the first of the presets that one trial tries: `safe` of `safe, recommended`."""
    return names.partition(SEPARATOR)[0]


def make_preset(name: str, epochs: int, *, focal: bool = False) -> dict[str, Any]:
    """Make the configuration `name` for a training of `epochs`, to be laid over a study's base.

    With `focal` cross entropy is written as focal loss with gamma 0 and alpha 1, which equals it to
    the last digit: a study that searches gamma or alpha can then place the preset in its space.

    Raises:
        StudyError: when there is no such preset.
    """
    if name not in PRESETS:
        raise StudyError(
            f"unknown preset {name!r}{nearest(name, PRESETS)}",
            where="presets",
            place=("presets",),
            found=name,
            allowed=", ".join(PRESETS),
            next_step="name one of these",
        )
    configuration = PRESETS[name](scaled_to(epochs))
    if focal and configuration["loss"]["kind"] == "ce":
        configuration["loss"] |= {"kind": "focal", "alpha_tau": 0.0}
    return configuration


def _make_untuned(_: _Scale) -> dict[str, Any]:
    return {
        "weights": {"method": "uniform", "clip_ratio": None},
        "loss": {"kind": "ce", "gamma": 0.0, "alpha": None, "alpha_tau": None, "dice_weight": 0.0},
        "optimizer": {"lr_multiple": 1.0, "grad_clip_norm": None},
        "schedule": {"dice_ce_only_epochs": 0, "dice_ramp_epochs": 0, "stages": []},
    }


def _make_recommended(_: _Scale) -> dict[str, Any]:
    return {
        "weights": {"method": "sqrt_inv_freq", "clip_ratio": 100.0},
        "loss": {
            "kind": "ce",
            "gamma": 0.0,
            "alpha": None,
            "alpha_tau": None,
            "dice_weight": 0.3,
            "smooth": 5.0,
            "square_denominator": True,
        },
        "optimizer": {"lr_multiple": 0.3, "grad_clip_norm": 1.0},
        "schedule": {"dice_ce_only_epochs": 0, "dice_ramp_epochs": 0, "stages": []},
    }


def _make_safe(scaled: _Scale) -> dict[str, Any]:
    return {
        "weights": {"method": "sqrt_inv_freq", "clip_ratio": 100.0},
        "loss": {
            "kind": "ce",
            "gamma": 0.0,
            "alpha": None,
            "alpha_tau": None,
            "dice_weight": 0.4,
            "smooth": 1.0,
            "square_denominator": True,
        },
        "optimizer": {"lr_multiple": 0.3, "grad_clip_norm": 1.0},
        "schedule": {
            "dice_ce_only_epochs": scaled(5),
            "dice_ramp_epochs": scaled(10),
            "stages": [{"before_epoch": 1 + scaled(9), "smooth": 5.0}],
        },
        "batch_size": 8,
    }


def _make_progressive(scaled: _Scale) -> dict[str, Any]:
    first = {"before_epoch": 1 + scaled(5), "dice_weight": 0.0, "lr_multiple": 0.5}
    second = {"before_epoch": 1 + scaled(5) + scaled(10), "dice_weight": 0.2, "smooth": 5.0}
    return {
        "weights": {"method": "sqrt_inv_freq", "clip_ratio": 100.0},
        "loss": {
            "kind": "ce",
            "gamma": 0.0,
            "alpha": None,
            "alpha_tau": None,
            "dice_weight": 0.4,
            "smooth": 1.0,
            "square_denominator": True,
        },
        "optimizer": {"lr_multiple": 0.3, "grad_clip_norm": 1.0},
        "schedule": {"dice_ce_only_epochs": 0, "dice_ramp_epochs": 0, "stages": [first, second]},
    }


def _make_text(_: _Scale) -> dict[str, Any]:
    return {
        "weights": {"method": "uniform", "clip_ratio": None},
        "loss": {
            "kind": "focal",
            "gamma": 2.0,
            "alpha": None,
            "alpha_tau": 1.0,
            "label_smoothing": 0.1,
            "dice_weight": 0.0,
        },
        "optimizer": {"lr_multiple": 1.0, "grad_clip_norm": 1.0},
        "schedule": {"lr": "cosine", "dice_ce_only_epochs": 0, "dice_ramp_epochs": 0, "stages": []},
        "early_stopping_patience": 3,
    }


PRESETS: dict[str, Callable[[_Scale], dict[str, Any]]] = {
    "untuned": _make_untuned,
    "recommended": _make_recommended,
    "safe": _make_safe,
    "progressive": _make_progressive,
    "text": _make_text,
}
