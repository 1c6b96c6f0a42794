"""What `search` may ask of an objective. No torch here: the commands that only look import nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spaces.config import Direction, TrialConfig
from spaces.records import ClassCounts, EpochRecord


class Checkpoints(Protocol):
    """Where a training keeps its state. The caller decides when it is worth the time to write.

    What an objective has to do:

    * start from `latest`, where there is one, and yield the record of its last finished epoch once more, if there is one;
    * call `step` after every optimiser step, and between the batches of everything else that takes long (validation, a
      test): it costs nothing, and it is the sign that the training lives. Where it says so, `write` a state from which the
      rest of the epoch, and every later one, comes out to the last bit as if nothing had happened. An objective that can
      be resumed between epochs only may leave the answer aside, and then loses the epoch when its machine is taken away;
    * ask `due` after every epoch, and `write` where it says so, before the epoch's record is yielded.

    `step` and `write` end the training where a stop was asked for that cannot wait for the end of the epoch: they raise
    what is no `Exception`, and no objective is to catch it.
    """

    def latest(self) -> Path | None:
        """The file to go on from, or None to start anew."""

    def step(self) -> bool:
        """Told of every step; whether the state should be written now, in the midst of the epoch. Waits for nothing."""

    def due(self, record: EpochRecord, *, last: bool) -> bool:
        """Whether the state after this epoch should be written.

        Args:
            record: of the epoch.
            last: the training ends with it. Its state then holds the weights that people keep as `best_weights`, a mapping
                that the model loads.
        """

    def write(self, save: Callable[[Path], None]) -> None:
        """Have `save` write the state to a temporary file, and put it in place when it is whole."""


class NoCheckpoints:
    """For a training that nobody will resume."""

    def latest(self) -> Path | None:
        """None: it starts anew."""
        return None

    def step(self) -> bool:
        """Never."""
        return False

    def due(self, record: EpochRecord, *, last: bool) -> bool:
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

    def train(
        self, config: Any, prepared: Any, counts: ClassCounts, device: str, checkpoints: Checkpoints
    ) -> Iterator[EpochRecord]:
        """Yield one record an epoch. Closing the generator frees the device.

        Raises:
            OutOfMemoryError: when the device has not the memory for it (`objectives.training.out_of_memory.translate_out_of_memory` knows the many
                words for that). A configuration with a `batch_size` and `optimizer.accumulate` is then tried once more
                with half of the former and twice the latter.
        """


@dataclass(frozen=True)
class Objective:
    """A kind of training: its configuration, its metrics, and how to load its trainer.

    Attributes:
        config: the model that a trial's configuration is checked by.
        metrics: name → direction of every metric that a study may name; empty: the study names one as it likes.
        load: imports the trainer (and torch).
        data_key: the part of the configuration that decides the data; a worker prepares again when it changes.
    """

    name: str
    config: type[TrialConfig]
    metrics: Mapping[str, Direction]
    load: Callable[[], Trainer]
    data_key: Callable[[Any], str]
