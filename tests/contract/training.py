"""Small trainings for the contract: an objective with its data, what keeps its state, and what two trainings have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives.contract import NoCheckpoints, Trainer
from objectives.data.build import SceneSplit
from objectives.registry import OBJECTIVES, objective
from spaces.config import TrialConfig
from spaces.config_tree import ConfigTree
from spaces.records import ClassCounts, EpochRecord

VOLATILE = ("seconds", "samples_per_s", "peak_mib")
"""What two runs of the same training need not have in common."""

DIGITS = {"train_scenes": 16, "val_scenes": 8, "test_scenes": 8, "size": 32}
TEXTS = {"texts": 120}
TINY_BERT = {"hidden": 16, "layers": 1, "max_length": 16, "vocabulary": 300}
EVERYTHING = {
    "epochs": 3,
    "seed": 5,
    "loss": {"dice_weight": 0.4},
    "weights": {"method": "sqrt_inv_freq"},
}
SMALL: dict[str, dict[str, Any]] = {
    "segmentation": EVERYTHING | {"data": DIGITS},
    "text_classification": EVERYTHING | {"data": TEXTS, "model": TINY_BERT},
}
"""For each objective the smallest training that has everything in it."""


@dataclass
class Kit:
    """An objective with its data, as a warm worker has it."""

    name: str
    trainer: Trainer
    prepared: Any
    counts: ClassCounts

    def config(self, changes: Mapping[str, Any] | None = None) -> Any:
        """The small configuration, with changes by dotted path."""
        tree = ConfigTree(SMALL[self.name]).overlay(ConfigTree.from_paths(changes or {}))
        return OBJECTIVES[self.name].config.model_validate(tree.nested)

    def start(
        self, config: TrialConfig, checkpoints: Any = None, data: Any = None
    ) -> Iterator[EpochRecord]:
        """A training that has not begun."""
        return self.trainer.train(
            config, data or self.prepared, self.counts, "cpu", checkpoints or NoCheckpoints()
        )

    def train(
        self, changes: Mapping[str, Any] | None = None, checkpoints: Any = None, data: Any = None
    ) -> list[EpochRecord]:
        """The records of a whole training."""
        return list(self.start(self.config(changes), checkpoints, data))


class Left(BaseException):
    """A training was ended in the midst of an epoch."""


@dataclass
class Keeper:
    """Keeps the state after some epochs and in the midst of some, the newest in place of the one before.

    Attributes:
        epochs: after which a state is asked for.
        steps: at which one is asked for, counted from 1 over all epochs, those of validation among them.
        asked: the epochs that the training told of.
        seen: so many steps it told of.
        ended: whether the training told that the last epoch was its last one.
        leave: end the training with a state that was asked for at a step.
    """

    path: Path
    epochs: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    asked: list[int] = field(default_factory=list)
    seen: int = 0
    leave: bool = False
    ended: bool = False

    def latest(self) -> Path | None:
        """The file, where there is one."""
        return self.path if self.path.exists() else None

    def step(self) -> bool:
        """At the chosen steps."""
        self.seen += 1
        return self.seen in self.steps

    def due(self, record: EpochRecord, *, last: bool) -> bool:
        """After the chosen epochs."""
        self.asked.append(record.epoch)
        self.ended = last
        return record.epoch in self.epochs

    def write(self, save: Callable[[Path], None]) -> None:
        """Through a draft."""
        draft = self.path.with_suffix(".draft")
        save(draft)
        draft.replace(self.path)
        if self.leave and self.seen in self.steps:
            raise Left


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread, and a cache of our own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


def make_kit(name: str) -> Kit:
    """An objective by name, its data decoded and its classes counted."""
    trainer, config = objective(name).load(), OBJECTIVES[name].config.model_validate(SMALL[name])
    return Kit(name, trainer, trainer.prepare(config, "cpu"), trainer.count_classes(config))


@pytest.fixture(scope="module")
def segmentation() -> Kit:
    """Segmentation."""
    return make_kit("segmentation")


def told(records: list[EpochRecord]) -> list[str]:
    """The records without what may differ between two runs, NaN equal to NaN."""
    return [
        repr({key: value for key, value in record.as_dict().items() if key not in VOLATILE})
        for record in records
    ]


def split(images_NCHW: torch.Tensor, target_NHW: torch.Tensor) -> SceneSplit:
    """A split of these images and targets."""
    made = SceneSplit.__new__(SceneSplit)
    made.images_NCHW, made.target_NHW = images_NCHW, target_NHW
    return made
