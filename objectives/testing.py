"""What every objective promises, as tests that one can point at one's own.

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
"""What two runs of the same training need not have in common."""


@dataclass
class KeptState:
    """Keeps the state after one epoch, for a training to go on from.

    Attributes:
        asked: whether the training asked for checkpoints at all.
    """

    path: Path
    epoch: int
    asked: bool = field(default=False)

    def latest(self) -> Path | None:
        """The file, where there is one."""
        self.asked = True
        return self.path if self.path.exists() else None

    def step(self) -> bool:
        """Never in the midst of an epoch."""
        return False

    def due(self, record: EpochRecord, *, last: bool) -> bool:
        """After the chosen epoch."""
        return record.epoch == self.epoch

    def write(self, save: Callable[[Path], None]) -> None:
        """Through a draft."""
        draft = self.path.with_suffix(".draft")
        save(draft)
        draft.replace(self.path)


class ObjectiveContract:
    """Records in order, the same twice and after a resume; nothing left behind; and what is used is what was sampled.

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
        """A training of the objective that has not begun. As in a worker, its data are prepared once, and from the configuration without the changes."""
        kind = objective(self.objective)
        tree = ConfigTree.from_paths({"objective": self.objective, **self.config})
        changed = tree.overlay(ConfigTree.from_paths(changes or {}))
        base = kind.config.model_validate(tree.nested)
        config = kind.config.model_validate(changed.nested)
        trainer = kind.load()
        if not hasattr(self, "_data") or kind.data_key(config) != kind.data_key(base):
            of = base if kind.data_key(config) == kind.data_key(base) else config
            self._data = trainer.prepare(of, self.device), trainer.count_classes(of)
        return trainer.train(config, *self._data, self.device, checkpoints or NoCheckpoints())

    def test_records_in_order(self) -> None:
        """One record an epoch, counted from 1, with numbers for loss and metric."""
        records = list(self.start())
        assert [record.epoch for record in records] == list(range(1, len(records) + 1))
        assert records, "no epoch was yielded"
        assert all(
            math.isfinite(record.train_loss) and math.isfinite(record.metric) for record in records
        )

    def test_repeatable(self) -> None:
        """The same configuration, seed and all, gives the same records."""
        assert _told(self.start()) == _told(self.start())

    def test_resumed(self, tmp_path: Path) -> None:
        """A training that goes on from a state gives what an unbroken one gives. One that keeps no states starts anew, which is allowed."""
        whole, keeper = _told(self.start()), KeptState(tmp_path / "state", 1)
        broken_off = self.start(keeper)
        assert _told(islice(broken_off, 1)) == whole[:1]
        broken_off.close()  # type: ignore[attr-defined]
        if keeper.path.exists():
            assert _told(self.start(keeper)) == whole
        else:
            assert not keeper.asked, (
                "it asks for the latest state, but wrote none where one was due"
            )

    def test_closed(self) -> None:
        """A closed training yields nothing more, and leaves no generator of its own behind."""
        gc.collect()
        name = self.objective.rpartition(":")[2] if ":" in self.objective else "train"
        before = _generators(name)
        training = self.start()
        next(training)
        training.close()  # type: ignore[attr-defined]
        assert list(training) == []
        del training
        gc.collect()
        assert _generators(name) <= before

    def test_used(self) -> None:
        """Every sampled value is the one that the records say was used."""
        (record,) = islice(self.start(changes=self.sampled), 1)
        for path, value in self.sampled.items():
            assert path in record.used, (
                f"{path} was sampled, but the record does not say that it was used"
            )
            used = record.used[path]
            same = (
                math.isclose(value, used, rel_tol=1e-12)
                if isinstance(value, float)
                else value == used
            )
            assert same, f"{path} was sampled as {value}, but {used} was used"


def _told(records: Iterator[EpochRecord]) -> list[str]:
    """The records without what the clock decides, NaN equal to NaN."""
    return [
        repr({key: value for key, value in record.as_dict().items() if key not in CLOCK})
        for record in records
    ]


def _generators(name: str) -> int:
    """How many suspended generators of that function are alive."""
    return sum(
        type(thing).__name__ == "generator"
        and thing.gi_frame is not None
        and thing.gi_code.co_name == name
        for thing in gc.get_objects()
    )
