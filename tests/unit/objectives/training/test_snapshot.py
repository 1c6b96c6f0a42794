"""Snapshots of a training: what their files contain, and which tensors they share with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives.segmentation import train
from objectives.segmentation.config import SegmentationConfig
from objectives.training.loop import Training
from objectives.training.snapshot import EpochProgress, RandomState, TrainingSnapshot

KEYS = {
    "record",
    "midway",
    "model",
    "optimizer",
    "scaler",
    "criterion",
    "averaged",
    "guard",
    "torch_rng",
    "cuda_rng",
    "best_weights",
    "best_metric",
    "best_val_loss",
    "epochs_without_gain",
    "finished",
}
"""Part of the file format: a newer program resumes trials of an older one."""

KEYS_WITHIN = {"means", "guard", "seconds", "averaged", "labels"}
"""The same for the part that a file has if it was written within an epoch."""

TINY: dict[str, Any] = {
    "epochs": 2,
    "data": {"train_scenes": 8, "val_scenes": 8, "test_scenes": 8, "size": 32},
    "schedule": {"swa_from_epoch": 1},
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of our own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def training(one_thread: None) -> Training:
    """A small training that averages its weights from the first epoch on."""
    config = SegmentationConfig.model_validate(TINY)
    data = train.prepare(config, "cpu")
    return train.Run(config, data, train.count_classes(config), torch.device("cpu"))


class TestFile:
    def test_between_epochs(self, training: Training, tmp_path: Path) -> None:
        """A file that was written between two epochs has these keys, and the last record."""
        record = training.next_epoch()
        TrainingSnapshot.capture(training).save(tmp_path / "state")
        state = torch.load(tmp_path / "state", weights_only=True)
        assert set(state) == KEYS
        assert state["midway"] is None
        assert state["record"]["epoch"] == record.epoch == 1

    def test_within_epoch(self, training: Training, tmp_path: Path) -> None:
        """A file that was written within an epoch also has what was done of the epoch."""
        progress = EpochProgress.start(training.device)
        TrainingSnapshot.capture(training, progress).save(tmp_path / "state")
        state = torch.load(tmp_path / "state", weights_only=True)
        assert set(state["midway"]) == KEYS_WITHIN
        assert (state["record"], state["midway"]["averaged"]) == (None, False)

    def test_earlier_version(self, training: Training, tmp_path: Path) -> None:
        """A file of an earlier version, which lacks four of the keys, is restored, too."""
        training.next_epoch()
        state = TrainingSnapshot.capture(training).state
        later = {"criterion", "averaged", "guard", "midway"}
        old = {key: value for key, value in state.items() if key not in later}
        torch.save(old, tmp_path / "state")
        restored = train.Run(
            training.config,  # type: ignore[arg-type]
            training.data,  # type: ignore[arg-type]
            training_counts(training),
            torch.device("cpu"),
        )
        TrainingSnapshot.load(tmp_path / "state").restore(restored)
        assert (restored.epoch, restored.interrupted) == (1, None)
        assert restored.best.metric == training.best.metric


class TestSharing:
    def test_shared(self, training: Training) -> None:
        """A snapshot copies no weights by itself: it costs no memory."""
        snapshot = TrainingSnapshot.capture(training)
        weights = training.model.state_dict()
        assert all(
            tensor.data_ptr() == weights[name].data_ptr()
            for name, tensor in snapshot.state["model"].items()
        )

    def test_copied_average(self, training: Training) -> None:
        """With a copied average the snapshot keeps the mean of before the epoch."""
        snapshot = TrainingSnapshot.capture(training).with_copied_average()
        training.next_epoch()
        assert snapshot.state["averaged"]["n_averaged"] == 0
        assert TrainingSnapshot.capture(training).state["averaged"]["n_averaged"] == 1

    @pytest.mark.parametrize("averaged", [True, False])
    def test_weights(self, training: Training, averaged: bool) -> None:
        """Copies take the place of the model's own tensors or of the average's, and of no others."""
        copied = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
        before = TrainingSnapshot.capture(training)
        after = before.with_weights(copied, averaged=averaged)
        changed = "averaged" if averaged else "model"
        prefix = "module." if averaged else ""
        assert set(after.state[changed]) == set(before.state[changed])
        assert all(
            after.state[changed][f"{prefix}{name}"] is tensor for name, tensor in copied.items()
        )
        assert {key for key in KEYS if after.state[key] is not before.state[key]} == {changed}


class TestRandomState:
    def test_applied(self) -> None:
        """The generator draws the same numbers again."""
        state = RandomState.capture(torch.device("cpu"))
        first = torch.rand(3)
        state.set_generators(torch.device("cpu"))
        assert torch.equal(torch.rand(3), first)


def training_counts(training: Training) -> Any:
    """The class counts of the training's data."""
    config = training.config
    assert isinstance(config, SegmentationConfig)
    return train.count_classes(config)
