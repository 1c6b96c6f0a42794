"""The objectives by name. Their configurations load at once; their trainers, and torch with them, only when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from objectives.contract import Objective, Trainer
from objectives.segmentation.config import SegmentationConfig
from spaces.errors import StudyError, nearest


def _load_segmentation() -> Trainer:
    trainer: Trainer = import_module("objectives.segmentation.train")
    return trainer


def _segmentation_data(config: Any) -> str:
    return f"{config.data.model_dump_json()}{config.model.model_dump_json()}"


OBJECTIVES: dict[str, Objective] = {
    "segmentation": Objective(
        name="segmentation",
        config=SegmentationConfig,
        metrics={"miou": "maximize", "pixel_accuracy": "maximize", "macro_f1": "maximize", "val_ce": "minimize"},
        load=_load_segmentation,
        data_key=_segmentation_data,
    )
}


def objective(name: str) -> Objective:
    """The objective called `name`.

    Raises:
        StudyError: when there is none.
    """
    if name not in OBJECTIVES:
        raise StudyError(f"unknown objective {name!r}{nearest(name, OBJECTIVES)}", where="objective", found=name, allowed=", ".join(OBJECTIVES), next_step="name one of these")
    return OBJECTIVES[name]
