"""What a tracker logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from objectives.segmentation.config import SegmentationConfig
from search.worker.tracker import NoTracker, flatten_record, make_tracker
from spaces.records import EpochRecord, TestScore

NAMES = ("road", "sky", "pedestrian")
Make = Callable[..., EpochRecord]


class TestFlattenRecord:
    def test_flat(self, make_record: Make) -> None:
        """Every recorded figure by its own name, metrics and classes under theirs, without a class that the split does not contain."""
        flat = flatten_record(make_record(3), NAMES)
        assert flat["epoch"] == 3
        assert (
            flat["train_loss"],
            flat["val_loss"],
            flat["lr"],
            flat["grad_norm_max"],
            flat["clipped_share"],
        ) == (0.8, 0.85, 1e-5, 9.0, 0.25)
        assert (flat["metrics/miou"], flat["class/road"], flat["class/pedestrian"]) == (
            0.45,
            0.9,
            0.0,
        )
        assert (
            not {
                "class/sky",
                "metrics",
                "class_metric",
                "used",
                "test",
                "broken_step",
                "test/metric",
            }
            & flat.keys()
        )
        assert all(isinstance(value, int | float) for value in flat.values())

    def test_shares(self, make_record: Make) -> None:
        """The gradient shares of the loss parts and of the classes, where they were measured."""
        flat = flatten_record(
            make_record(
                3, grad_shares={"ce": 0.25, "dice": 0.75}, class_grad_shares=(0.5, None, 0.5)
            ),
            NAMES,
        )
        assert (flat["grad_share/ce"], flat["grad_share/dice"]) == (0.25, 0.75)
        assert {
            key: value for key, value in flat.items() if key.startswith("class_grad_share/")
        } == {
            "class_grad_share/road": 0.5,
            "class_grad_share/pedestrian": 0.5,
        }
        assert all(isinstance(value, int | float) for value in flat.values())

    def test_test_score(self, make_record: Make) -> None:
        """The test score, where there is one, and the broken step."""
        flat = flatten_record(
            make_record(3, test=TestScore(0.4, (0.8, None, 0.1)), broken_step=7), NAMES
        )
        assert (flat["test/metric"], flat["broken_step"]) == (0.4, 7)

    def test_no_dice(self, make_record: Make) -> None:
        """A value that an epoch does not have is left out."""
        assert "dice_loss" not in flatten_record(make_record(3, dice_loss=None), NAMES)

    def test_names_missing(self, make_record: Make) -> None:
        """Names that do not fit the classes are a mistake of ours."""
        with pytest.raises(ValueError, match="argument 2 is longer"):
            flatten_record(make_record(3), NAMES[:2])


class TestMakeTracker:
    def test_off(self, make_record: Make, tmp_path: Path) -> None:
        """Switched off, it logs nothing and writes no file."""
        tracker = make_tracker("off", "demo", tmp_path)
        assert isinstance(tracker, NoTracker)
        tracker.start_trial(0, SegmentationConfig(), "safe")
        tracker.log_epoch(make_record(1), NAMES)
        tracker.finish_trial("complete", "")
        tracker.close()
        assert list(tmp_path.iterdir()) == []
