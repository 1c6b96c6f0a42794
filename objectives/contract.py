"""Interface between `search` and an objective. No torch: most commands load nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from spaces.config import Direction, TrialConfig
from spaces.rate_probe import ProbeStep
from spaces.records import ClassCounts, EpochRecord


class Checkpoints(Protocol):
    """Store of a training's state. The caller decides when a state is worth the time to write it.

    An objective that can be resumed:

    * starts from `latest`, if there is one, and first yields the record of that state's last
      complete epoch again, if there is one;
    * calls `step` after every optimizer step, and between the batches of everything else that takes
      long, such as validation. The call costs nothing and shows that training makes progress. If it
      returns True, the objective calls `write` with a state from which the rest of the epoch, and
      all later ones, follow to the last bit. An objective that can only be resumed between epochs
      may ignore the answer, and loses the epoch when its process is stopped;
    * calls `due` after every epoch, and `write` if it returns True, before it yields the record.

    `step` and `write` end the training if a stop was requested that cannot wait for the end of the
    epoch. What they then raise is not an `Exception`, and an objective must not catch it.
    """

    def latest(self) -> Path | None:
        """Return the state to resume from, or None to start from epoch 1.

        It is the state that was chosen when the attempt began, the same at every call: what the
        training writes later, or another attempt, does not change it.
        """

    def step(self) -> bool:
        """Report a step; return whether to write the state now, within the epoch. Never waits."""

    def due(self, record: EpochRecord, *, last: bool) -> bool:
        """Return whether to write the state after this epoch.

        Args:
            record: of the epoch.
            last: whether the training ends with it. Its state then contains the weights that people
                keep as `best_weights`, a mapping that the model loads.
        """

    def write(self, save: Callable[[Path], None]) -> None:
        """Call `save` with a temporary file, and move the file to its place when it is complete."""


class NoCheckpoints:
    """Checkpoints of a training that will not be resumed: nothing is read or written."""

    def latest(self) -> Path | None:
        """Return None: start from epoch 1."""
        return None

    def step(self) -> bool:
        """Return False."""
        return False

    def due(self, record: EpochRecord, *, last: bool) -> bool:
        """Return False."""
        return False

    def write(self, save: Callable[[Path], None]) -> None:
        """Do nothing."""


class Trainer(Protocol):
    """The part of an objective that trains, loaded only by workers."""

    def fingerprint(self, config: Any) -> str:
        """Identify the data that class counts belong to; changes when the data do."""

    def count_classes(self, config: Any) -> ClassCounts:
        """Count the valid training pixels, or samples, of every class."""

    def prepare(self, config: Any, device: str) -> Any:
        """Load the data and check that the model can be built; workers keep the result."""

    def train(
        self, config: Any, prepared: Any, counts: ClassCounts, device: str, checkpoints: Checkpoints
    ) -> Iterator[EpochRecord]:
        """Yield one record per epoch. Closing the generator frees the device.

        Args:
            config: the trial's.
            prepared: what `prepare` returned.
            counts: what `count_classes` returned.
            device: `cpu`, `cuda:0`, …
            checkpoints: where the state is read and written.

        Raises:
            OutOfMemoryError: when the device does not have enough memory; for what torch raises
                then see `objectives.training.out_of_memory.translate_out_of_memory`. A
                configuration that has `batch_size` and `optimizer.accumulate` is tried once more
                with half the former and twice the latter.
        """


@runtime_checkable
class RateProber(Protocol):
    """What a trainer may offer beside `Trainer`: a probe of the learning rate."""

    def probe_rates(
        self, config: Any, prepared: Any, counts: ClassCounts, device: str
    ) -> Iterator[ProbeStep]:
        """Train with a learning rate that grows from step to step, and yield every step.

        It ends where the training breaks, or when it has tried all rates. The arguments are those
        of `Trainer.train`; the configuration's own learning rate does not matter.

        Raises:
            OutOfMemoryError: when the device does not have enough memory.
        """


@dataclass(frozen=True)
class Objective:
    """A kind of training: its configuration, its metrics, and how to load its trainer.

    Attributes:
        name: as a study names it.
        config: the model that validates a trial's configuration.
        metrics: name → direction of every metric that a study may name; empty: any name is allowed.
        load: imports the trainer (and torch).
        data_key: the part of the configuration that determines the data; when it changes, a worker
            calls `prepare` again.
        has_rate_probe: whether its trainer is a `RateProber`.
    """

    name: str
    config: type[TrialConfig]
    metrics: Mapping[str, Direction]
    load: Callable[[], Trainer]
    data_key: Callable[[Any], str]
    has_rate_probe: bool = False
