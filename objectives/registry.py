"""Objectives by name, with their configurations; trainers, and torch, load when needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from objectives.contract import Objective, Trainer
from objectives.custom import custom_objective
from objectives.segmentation.config import SegmentationConfig
from objectives.text.config import TextConfig
from spaces.errors import StudyError, nearest


def _load_segmentation() -> Trainer:
    trainer: Trainer = import_module("objectives.segmentation.train")
    return trainer


def _segmentation_data(config: Any) -> str:
    return str(config.data.model_dump_json())


def _load_text() -> Trainer:
    try:
        trainer: Trainer = import_module("objectives.text.train")
    except ModuleNotFoundError as problem:
        if problem.name not in ("transformers", "tokenizers"):
            raise
        raise StudyError(
            f"text classification needs {problem.name}, which is not installed",
            where="objective",
            place=("objective",),
            found="text_classification",
            next_step="pip install 'imbalance-search[text]'",
        ) from None
    return trainer


def _text_data(config: Any) -> str:
    tokens = {"checkpoint", "tokenizer", "max_length", "vocabulary"}
    return f"{config.data.model_dump_json()}{config.model.model_dump_json(include=tokens)}"


OBJECTIVES: dict[str, Objective] = {
    "segmentation": Objective(
        name="segmentation",
        config=SegmentationConfig,
        metrics={
            "miou": "maximize",
            "pixel_accuracy": "maximize",
            "macro_f1": "maximize",
            "val_ce": "minimize",
        },
        load=_load_segmentation,
        data_key=_segmentation_data,
        has_rate_probe=True,
    ),
    "text_classification": Objective(
        name="text_classification",
        config=TextConfig,
        metrics={"macro_f1": "maximize", "accuracy": "maximize", "val_ce": "minimize"},
        load=_load_text,
        data_key=_text_data,
        has_rate_probe=True,
    ),
}


def objective(name: str) -> Objective:
    """Return the objective called `name`, or a custom one by `module:function`.

    Raises:
        StudyError: when there is none.
    """
    if ":" in name:
        return custom_objective(name)
    if name not in OBJECTIVES:
        allowed = f"{', '.join(OBJECTIVES)}, or a custom one as module:function"
        raise StudyError(
            f"unknown objective {name!r}{nearest(name, OBJECTIVES)}",
            where="objective",
            place=("objective",),
            found=name,
            allowed=allowed,
            next_step="name one of these",
        )
    return OBJECTIVES[name]
