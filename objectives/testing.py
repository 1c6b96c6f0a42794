"""Tests that every objective passes, to run against a custom one.

    from objectives.testing import ObjectiveContract

    class TestMine(ObjectiveContract):
        objective = "my_package.my_module:train"
        config = {"epochs": 3}
        sampled = {"rate": 0.03}

pytest collects the subclass; nothing here needs pytest itself.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from objectives.contract import Checkpoints, NoCheckpoints
from objectives.registry import objective
from spaces.config_tree import ConfigTree
from spaces.records import EpochRecord

CLOCK = ("seconds", "samples_per_s", "peak_mib")
"""Fields in which two runs of the same training may differ."""


@dataclass
class KeptState:
    """Checkpoints that keep the state after one epoch.

    Attributes:
        path: file of the state.
        epoch: after which the state is written.
        read: whether the training asked for the latest state.
    """

    path: Path
    epoch: int
    read: bool = field(default=False)

    def latest(self) -> Path | None:
        """Return the file, if there is one."""
        self.read = True
        return self.path if self.path.exists() else None

    def step(self) -> bool:
        """Return False: no state is written within an epoch."""
        return False

    def due(self, record: EpochRecord, *, last: bool) -> bool:
        """Return True after the chosen epoch."""
        return record.epoch == self.epoch

    def write(self, save: Callable[[Path], None]) -> None:
        """Write the state to a draft, then move it."""
        draft = self.path.with_suffix(".draft")
        save(draft)
        draft.replace(self.path)


class ObjectiveContract:
    """Tests of an objective: records in order, repeatable, resumable; used values as sampled.

    Attributes:
        objective: as a study names it.
        config: a small configuration with two epochs or more, nested or by dotted path.
        sampled: dotted path → values that a study would sample, other than the defaults.
        device: where to train.
    """

    objective: str
    config: Mapping[str, Any] = {"epochs": 3}
    sampled: Mapping[str, Any] = {}
    device: str = "cpu"

    def start(
        self, checkpoints: Checkpoints | None = None, changes: Mapping[str, Any] | None = None
    ) -> Iterator[EpochRecord]:
        """Make a training that has not started.

        As in a worker, the data are prepared once, from the configuration without the changes.
        """
        kind = objective(self.objective)
        tree = ConfigTree.from_paths({"objective": self.objective, **self.config})
        changed = tree.overlay(ConfigTree.from_paths(changes or {}))
        base = kind.config.model_validate(tree.nested)
        config = kind.config.model_validate(changed.nested)
        trainer = kind.load()
        same_data = kind.data_key(config) == kind.data_key(base)
        if not hasattr(self, "_data") or not same_data:
            source = base if same_data else config
            self._data = (trainer.prepare(source, self.device), trainer.count_classes(source))
        prepared, counts = self._data
        return trainer.train(config, prepared, counts, self.device, checkpoints or NoCheckpoints())

    def test_records_in_order(self) -> None:
        """There is one record per epoch, counted from 1, with numbers for loss and metric."""
        records = list(self.start())
        assert [record.epoch for record in records] == list(range(1, len(records) + 1))
        assert records, "no epoch was yielded"
        assert all(
            math.isfinite(record.train_loss) and math.isfinite(record.metric) for record in records
        )

    def test_repeatable(self) -> None:
        """The same configuration, with its seed, gives the same records."""
        assert _comparable_records(self.start()) == _comparable_records(self.start())

    def test_resumed(self, tmp_path: Path) -> None:
        """A training that is resumed gives the records of an uninterrupted one.

        One that writes no states starts from epoch 1, which is allowed.
        """
        uninterrupted = _comparable_records(self.start())
        keeper = KeptState(tmp_path / "state", 1)
        interrupted = self.start(keeper)
        assert _comparable_records(islice(interrupted, 1)) == uninterrupted[:1]
        interrupted.close()  # type: ignore[attr-defined]
        if keeper.path.exists():
            assert _comparable_records(self.start(keeper)) == uninterrupted
        else:
            assert not keeper.read, "it asks for the latest state, but wrote none where one was due"

    def test_closed(self) -> None:
        """A closed training yields nothing more, and leaves no generator of its own."""
        gc.collect()
        name = self.objective.rpartition(":")[2] if ":" in self.objective else "train"
        before = _count_generators(name)
        training = self.start()
        next(training)
        training.close()  # type: ignore[attr-defined]
        assert list(training) == []
        del training
        gc.collect()
        assert _count_generators(name) <= before

    def test_used(self) -> None:
        """Every sampled value is the one that the record has under `used`."""
        (record,) = islice(self.start(changes=self.sampled), 1)
        for path, value in self.sampled.items():
            assert path in record.used, f"{path} was sampled, but is not in the record's `used`"
            used = record.used[path]
            if isinstance(value, float):
                same = math.isclose(value, used, rel_tol=1e-12)
            else:
                same = value == used
            assert same, f"{path} was sampled as {value}, but {used} was used"


def _comparable_records(records: Iterator[EpochRecord]) -> list[str]:
    """Return the records without what depends on the clock, NaN equal to NaN."""
    return [
        repr({key: value for key, value in record.as_dict().items() if key not in CLOCK})
        for record in records
    ]


def _count_generators(name: str) -> int:
    """Count the suspended generators of that function."""
    return sum(
        type(thing).__name__ == "generator"
        and thing.gi_frame is not None
        and thing.gi_code.co_name == name
        for thing in gc.get_objects()
    )
