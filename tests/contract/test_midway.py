"""A training that is interrupted within an epoch resumes from there as if nothing had happened."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives.data.loading import Batch, Batches, Key
from search.worker.checkpoints import ResumePoint, TrialCheckpoints
from search.worker.stop import StopRequest
from search.worker.watchdog import Watchdog
from spaces.errors import DataError
from spaces.records import EpochRecord
from storage.files.checkpoints import StoredCheckpoints
from storage.files.study_files import StudyFiles
from tests.contract.test_training_options import NO_BATCH_NORM
from tests.contract.training import (
    Keeper,
    Kit,
    Left,
    comparable,
    machine,
    make_kit,
    segmentation,
    split,
)

__all__ = ["machine", "segmentation"]

MANY = 100
"""Steps in all of a small training, at most."""


def interrupted(
    kit: Kit, changes: dict[str, Any], path: Path, at: int
) -> tuple[list[EpochRecord], Keeper]:
    """Resume a training from its state and interrupt it with a new one at a step."""
    keeper, records = Keeper(path, steps=(at,), leave=True), []
    with suppress(Left):
        for record in kit.start(kit.config(changes), keeper):
            records.append(record)
    torch.rand(3)
    return records, keeper


def count_harmless_interruptions(kit: Kit, changes: dict[str, Any], path: Path) -> int:
    """Check that a training with many interruptions yields the records of an uninterrupted one.

    Returns:
        The number of interruptions.
    """
    whole = kit.train(changes)
    found: dict[int, str] = {}
    for at in range(1, MANY):
        records, keeper = interrupted(kit, changes, path, at)
        for record, line in zip(records, comparable(records), strict=True):
            assert found.setdefault(record.epoch, line) == line, (
                "an epoch that is yielded again has the same record"
            )
        if keeper.seen < at:
            break
    assert list(found.values()) == comparable(whole)
    return at


class TestResume:
    @pytest.mark.parametrize(
        "changes",
        [
            {"batch_size": 4},
            {"loss.normalize": True, "optimizer.accumulate": 3, "batch_size": 2},
            {
                "loss.normalize": True,
                "loss.normalize_momentum": 0.7,
                "optimizer.kind": "adamw",
                "optimizer.base_lr": 0.01,
                "batch_size": 3,
            },
            {
                "schedule": {"plan": "progressive", "smooth_steps": True, "light_clip_epochs": 1},
                "weights.clip_ratio": 25.0,
                "batch_size": 4,
            },
            NO_BATCH_NORM | {"model.dropout": 0.3, "schedule.swa_from_epoch": 2, "batch_size": 4},
            {
                "epochs": 2,
                "schedule.swa_from_epoch": 1,
                "loss.kind": "focal",
                "optimizer.accumulate": 2,
                "batch_size": 2,
                "metric.score": "last",
            },
            {
                "optimizer.lr_multiple": 20.0,
                "epochs": 6,
                "early_stopping_patience": 2,
                "optimizer.grad_clip_norm": 0.5,
            },
        ],
        ids=[
            "dice",
            "normalize+accumulate",
            "normalize+adamw",
            "schedules",
            "dropout+swa",
            "swa+accumulate",
            "early stop",
        ],
    )
    def test_bit_for_bit(self, segmentation: Kit, tmp_path: Path, changes: dict[str, Any]) -> None:
        """A training with many interruptions yields the records of an uninterrupted one.

        It is interrupted after its first step, then after two more, then three, and so on, in
        training, averaging, validation and test.
        """
        assert count_harmless_interruptions(segmentation, changes, tmp_path / "state") > 4

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {
                "loss.kind": "focal",
                "loss.alpha_tau": 0.5,
                "model.dropout": 0.3,
                "schedule.swa_from_epoch": 2,
                "optimizer.accumulate": 2,
            },
        ],
        ids=["plain", "dropout+swa+accumulate"],
    )
    def test_texts(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        """So does a text classifier."""
        assert (
            count_harmless_interruptions(
                make_kit("text_classification"), changes, tmp_path / "state"
            )
            > 4
        )

    def test_every_place(self, segmentation: Kit, tmp_path: Path) -> None:
        """A training can be interrupted after each single step, also of averaging, validation and test."""
        changes = {
            "epochs": 2,
            "batch_size": 16,
            "schedule.swa_from_epoch": 2,
            "metric.score": "last",
        }
        count = Keeper(tmp_path / "none")
        whole = comparable(segmentation.train(changes, count))
        assert count.seen == (1 + 1) + (1 + 1 + 1 + 1)
        for at in range(1, count.seen + 1):
            path = tmp_path / f"state-{at}"
            first, _ = interrupted(segmentation, changes, path, at)
            then = segmentation.train(changes, Keeper(path))
            assert comparable(first) == whole[: len(first)]
            assert comparable(then) == whole[max(0, len(first) - 1) :]

    def test_not_disturbed(self, segmentation: Kit, tmp_path: Path) -> None:
        """Writing a state within an epoch does not change the training."""
        keeper = Keeper(tmp_path / "state", steps=tuple(range(1, MANY)))
        changes = {"batch_size": 4, "loss.normalize": True, "schedule.swa_from_epoch": 2}
        assert comparable(segmentation.train(changes, keeper)) == comparable(
            segmentation.train(changes)
        )
        assert keeper.path.exists()

    def test_time_spent(self, segmentation: Kit, tmp_path: Path) -> None:
        """The seconds of an interrupted epoch are those spent on it before and after."""
        changes = {"epochs": 1, "batch_size": 4}
        _, keeper = interrupted(segmentation, changes, tmp_path / "state", 3)
        state = torch.load(keeper.path, weights_only=True)
        state["midway"]["seconds"] += 1000
        torch.save(state, keeper.path)
        (record,) = segmentation.train(changes, Keeper(keeper.path))
        assert 1000 < record.seconds < 1000 + 300
        assert record.steps == 4

    def test_no_code(self, segmentation: Kit, tmp_path: Path) -> None:
        """Such a checkpoint, too, contains tensors and plain data, and the progress of the epoch."""
        _, keeper = interrupted(segmentation, {"batch_size": 4}, tmp_path / "state", 4 + 1 + 2)
        state = torch.load(keeper.path, weights_only=True)
        assert (state["record"]["epoch"], state["midway"]["means"]["steps"]) == (1, 2)

    def test_broken_step(self, segmentation: Kit, tmp_path: Path) -> None:
        """A step that breaks after a resume is recorded as in an uninterrupted training."""
        train = segmentation.prepared.train
        poisoned = split(train.images_NCHW.clone(), train.target_NHW)
        poisoned.images_NCHW[7, 0, 10, 10] = float("nan")
        data, config = (
            replace(segmentation.prepared, train=poisoned),
            segmentation.config({"batch_size": 2, "seed": 1}),
        )
        whole = list(segmentation.start(config, data=data))
        (record,) = whole
        assert record.broken_step is not None
        assert record.broken_step > 1
        keeper = Keeper(tmp_path / "state", steps=(record.broken_step - 1,), leave=True)
        with pytest.raises(Left):
            list(segmentation.start(config, keeper, data))
        assert comparable(
            list(segmentation.start(config, Keeper(keeper.path), data))
        ) == comparable(whole)


class TestDisk:
    def test_full(
        self, segmentation: Kit, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """On a full disk training continues without checkpoints and warns; older ones stay complete."""
        files = StudyFiles(tmp_path)
        states = StoredCheckpoints(files, files.trial_stem("demo", 0))
        checkpoints = TrialCheckpoints(
            states=states,
            attempt=1,
            owner={},
            resume_point=ResumePoint(),
            stop=StopRequest(),
            watchdog=Watchdog(),
            is_promising=lambda record: False,
            unconfirmed_records=lambda: (),
            confirm_lease=lambda: None,
            at_least_s=1e-9,
        )
        changes = {"batch_size": 8}
        training = segmentation.start(segmentation.config(changes), checkpoints)
        records = [next(training)]
        orders = [state.order for state in states.list_newest_first()]
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        checkpoints.every_s = 0
        try:
            records.append(next(training))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "no checkpoint written" in caplog.text
        assert [state.order for state in states.list_newest_first()] == orders
        assert orders
        checkpoints.every_s = 0
        records += list(training)
        assert comparable(records) == comparable(segmentation.train(changes))
        assert all(state.is_intact() for state in states.list_newest_first())
        assert {path.suffix for path in tmp_path.rglob("*.*")} == {".ckpt", ".json"}


class Counted:
    """A split that notes the keys that it is given."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[Key] = []

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, keys: list[Key]) -> Batch | DataError:
        self.asked += keys
        return torch.zeros(len(keys), 1, 2, 2), torch.zeros(len(keys), 2, 2, dtype=torch.int64)


@pytest.mark.parametrize("skip", [0, 1, 3, 4])
def test_skipped_batches(skip: int) -> None:
    """Batches that were trained on are not decoded again, the others are the same ones.

    The next epoch has all batches.
    """
    whole, rest = Counted(9), Counted(9)
    assert len(list(Batches(whole, 2, 5, 0, torch.device("cpu")).epoch(3))) == 4
    batches = Batches(rest, 2, 5, 0, torch.device("cpu"))
    assert len(list(batches.epoch(3, skip))) == 4 - skip
    assert rest.asked == whole.asked[2 * skip :]
    assert len(list(batches.epoch(4))) == 4
