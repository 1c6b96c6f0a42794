"""Small trainings for the contract tests: an objective with its data, checkpoints, comparisons."""

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
"""Fields in which two runs of the same training may differ."""

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
"""For each objective the smallest training in which everything occurs."""


@dataclass
class Kit:
    """An objective with its data, as a worker keeps it between trials."""

    name: str
    trainer: Trainer
    prepared: Any
    counts: ClassCounts

    def config(self, changes: Mapping[str, Any] | None = None) -> Any:
        """Make the small configuration, with changes by dotted path."""
        tree = ConfigTree(SMALL[self.name]).overlay(ConfigTree.from_paths(changes or {}))
        return OBJECTIVES[self.name].config.model_validate(tree.nested)

    def start(
        self, config: TrialConfig, checkpoints: Any = None, data: Any = None
    ) -> Iterator[EpochRecord]:
        """Make a training that has not started."""
        return self.trainer.train(
            config, data or self.prepared, self.counts, "cpu", checkpoints or NoCheckpoints()
        )

    def train(
        self, changes: Mapping[str, Any] | None = None, checkpoints: Any = None, data: Any = None
    ) -> list[EpochRecord]:
        """Train to the end and return the records."""
        return list(self.start(self.config(changes), checkpoints, data))


class Left(BaseException):
    """Ends a training within an epoch."""


@dataclass
class Keeper:
    """Checkpoints that keep the newest state, written after some epochs and at some steps.

    Attributes:
        path: file of the state.
        epochs: after which a state is requested.
        steps: at which one is requested, counted from 1 over all epochs, with those of validation.
        asked: epochs after which the training called `due`.
        seen: number of steps that the training reported.
        ended: whether the training reported the last epoch as its last one.
        leave: whether to end the training after a state that was requested at a step.
    """

    path: Path
    epochs: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    asked: list[int] = field(default_factory=list)
    seen: int = 0
    leave: bool = False
    ended: bool = False

    def latest(self) -> Path | None:
        """Return the file, if there is one."""
        return self.path if self.path.exists() else None

    def step(self) -> bool:
        """Return True at the chosen steps."""
        self.seen += 1
        return self.seen in self.steps

    def due(self, record: EpochRecord, *, last: bool) -> bool:
        """Return True after the chosen epochs."""
        self.asked.append(record.epoch)
        self.ended = last
        return record.epoch in self.epochs

    def write(self, save: Callable[[Path], None]) -> None:
        """Write the state to a draft, then move it."""
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
    """Load an objective by name, decode its data and count its classes."""
    trainer, config = objective(name).load(), OBJECTIVES[name].config.model_validate(SMALL[name])
    return Kit(name, trainer, trainer.prepare(config, "cpu"), trainer.count_classes(config))


@pytest.fixture(scope="module")
def segmentation() -> Kit:
    """Segmentation."""
    return make_kit("segmentation")


def comparable(records: list[EpochRecord]) -> list[str]:
    """Return the records without what may differ between two runs, NaN equal to NaN."""
    return [
        repr({key: value for key, value in record.as_dict().items() if key not in VOLATILE})
        for record in records
    ]


def split(images_NCHW: torch.Tensor, target_NHW: torch.Tensor) -> SceneSplit:
    """Make a split of these images and targets."""
    made = SceneSplit.__new__(SceneSplit)
    made.images_NCHW, made.target_NHW = images_NCHW, target_NHW
    return made
