"""One whole training outside of any search, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from objectives.contract import NoCheckpoints
from objectives.registry import objective
from spaces.records import score


@dataclass(frozen=True)
class Trained:
    """The scores of a training on the validation split, by its metric's rule, and on test."""

    validation: float
    test: float | None
    epochs: int


def train(config: Mapping[str, Any]) -> Trained:
    """Train a configuration to its end on one CPU thread."""
    from objectives.training.device import use_device

    use_device("cpu", 1)
    kind = objective(str(config["objective"]))
    checked, trainer = kind.config.model_validate(config), kind.load()
    prepared, counts = trainer.prepare(checked, "cpu"), trainer.count_classes(checked)
    records = list(trainer.train(checked, prepared, counts, "cpu", NoCheckpoints()))
    last = records[-1]
    return Trained(
        score(records, checked.metric), last.test.metric if last.test else None, last.epoch
    )
