"""Trains an exported configuration again, and compares its score with the recorded one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from objectives.contract import Trainer
from objectives.registry import objective
from search.export import Export
from spaces.config import TrialConfig
from spaces.errors import DeviceError
from spaces.records import EpochRecord, score


@dataclass(frozen=True)
class Comparison:
    """The recorded score and the new one.

    Attributes:
        test: the new score on the test split, if there is one.
        differences: what differs between the two environments, such as the device.
    """

    recorded: float
    trained: float
    test: float | None
    differences: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether the scores are equal to the last bit."""
        return self.recorded == self.trained


@dataclass
class _LastState:
    """Checkpoints that only keep the state after the last epoch."""

    path: Path | None

    def latest(self) -> Path | None:
        """Resume from nothing."""
        return None

    def step(self) -> bool:
        """Write no state within an epoch."""
        return False

    def due(self, record: EpochRecord, *, last: bool) -> bool:
        """Write a state after every epoch if there is a file, because a later epoch may fail."""
        return self.path is not None

    def write(self, save: Callable[[Path], None]) -> None:
        """Write a temporary file, then rename it."""
        assert self.path is not None
        draft = self.path.with_name(f"{self.path.name}.tmp")
        try:
            save(draft)
            draft.replace(self.path)
        finally:
            draft.unlink(missing_ok=True)


class Retraining:
    """One training of an exported configuration.

    Args:
        export: the exported configuration.
        device: where to train; None uses the recorded device.
        threads: CPU threads; None uses the recorded number.
        save: file for the state after the last epoch, including its best weights.
    """

    def __init__(
        self,
        export: Export,
        device: str | None = None,
        threads: int | None = None,
        save: Path | None = None,
    ) -> None:
        from objectives.training.device import use_device

        self.export = export
        self.config: TrialConfig = export.trial_config()
        self.device = device or export.provenance.device
        self.threads = threads or export.provenance.threads or 1
        try:
            use_device(self.device, self.threads)
        except DeviceError as problem:
            of_export = "provenance → device of the export, as there is no --device"
            raise problem.relocated(
                where="--device" if device else of_export,
                next_step="name an available device with --device",
            ) from None
        self.trainer: Trainer = objective(self.config.objective).load()
        self.records: list[EpochRecord] = []
        self._state = _LastState(save)

    def train_epochs(self) -> Iterator[EpochRecord]:
        """Train, and yield one record per epoch."""
        prepared = self.trainer.prepare(self.config, self.device)
        counts = self.trainer.count_classes(self.config)
        for record in self.trainer.train(self.config, prepared, counts, self.device, self._state):
            self.records.append(record)
            yield record

    def compare_scores(self) -> Comparison:
        """Compare the new score with the recorded one."""
        # A trial that was stopped early was scored on the epochs that it had.
        trained = (
            score(self.records[: self.export.score.epochs], self.config.metric)
            if self.records
            else math.nan
        )
        test = self.records[-1].test.metric if self.records and self.records[-1].test else None
        return Comparison(
            self.export.score.validation, trained, test, tuple(self._list_differences())
        )

    def _list_differences(self) -> Iterator[str]:
        then = self.export.provenance
        used = self.records[-1].used if self.records else {}
        if str(used.get("environment.device")) != then.device:
            yield f"device {then.device} → {used.get('environment.device')}"
        name = used.get("environment.device_name")
        if then.device_name is not None and name != then.device_name:
            yield f"device {then.device_name} → {name}"
        if used.get("environment.threads") != then.threads:
            yield f"threads {then.threads} → {used.get('environment.threads')}"
        if used.get("environment.torch") != then.versions.get("torch") and "torch" in then.versions:
            yield f"torch {then.versions['torch']} → {used.get('environment.torch')}"
