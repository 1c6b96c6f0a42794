"""What `search` may ask of an objective. No torch here: the commands that only look import nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spaces.config import Direction, TrialConfig
from spaces.records import ClassCounts, EpochRecord


class Checkpoints(Protocol):
    """Where a training keeps its state. The caller decides when it is worth the time to write."""

    def latest(self) -> Path | None:
        """The file to go on from, or None to start anew."""

    def due(self, epoch: int) -> bool:
        """Whether the state after this epoch should be written."""

    def write(self, save: Callable[[Path], None]) -> None:
        """Have `save` write the state to a temporary file, and put it in place when it is whole."""


class NoCheckpoints:
    """For a training that nobody will resume."""

    def latest(self) -> Path | None:
        """None: it starts anew."""
        return None

    def due(self, epoch: int) -> bool:
        """Never."""
        return False

    def write(self, save: Callable[[Path], None]) -> None:
        """Nothing is kept."""


class Trainer(Protocol):
    """The working half of an objective, loaded only by a worker."""

    def fingerprint(self, config: Any) -> str:
        """What class counts belong to; changes when the data do."""

    def count_classes(self, config: Any) -> ClassCounts:
        """Count the valid training pixels (or samples) of every class."""

    def prepare(self, config: Any, device: str) -> Any:
        """Decode the data and check that the model can be built; kept by a warm worker between trials."""

    def train(self, config: Any, prepared: Any, counts: ClassCounts, device: str, checkpoints: Checkpoints) -> Iterator[EpochRecord]:
        """Yield one record an epoch. Closing the generator frees the device."""


@dataclass(frozen=True)
class Objective:
    """A kind of training: its configuration, its metrics, and how to load its trainer.

    Attributes:
        config: the model that a trial's configuration is checked by.
        metrics: name → direction of every metric that a study may name.
        load: imports the trainer (and torch).
        data_key: the part of the configuration that decides the data; a worker prepares again when it changes.
    """

    name: str
    config: type[TrialConfig]
    metrics: Mapping[str, Direction]
    load: Callable[[], Trainer]
    data_key: Callable[[Any], str]
