"""What a tracker is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from objectives.segmentation.config import SegmentationConfig
from search.worker.tracker import NoTracker, figures, make_tracker
from spaces.records import EpochRecord, TestScore

NAMES = ("road", "sky", "pedestrian")
Make = Callable[..., EpochRecord]


class TestFigures:
    def test_flat(self, make_record: Make) -> None:
        """Every recorded figure by its own name, metrics and classes under theirs, and the class that the split does not hold left out."""
        told = figures(make_record(3), NAMES)
        assert told["epoch"] == 3
        assert (
            told["train_loss"],
            told["val_loss"],
            told["lr"],
            told["grad_norm_max"],
            told["clipped_share"],
        ) == (0.8, 0.85, 1e-5, 9.0, 0.25)
        assert (told["metrics/miou"], told["class/road"], told["class/pedestrian"]) == (
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
            & told.keys()
        )
        assert all(isinstance(value, int | float) for value in told.values())

    def test_shares(self, make_record: Make) -> None:
        """Who pulls at the logits, part by part and class by class, where it was measured."""
        told = figures(
            make_record(
                3, grad_shares={"ce": 0.25, "dice": 0.75}, class_grad_shares=(0.5, None, 0.5)
            ),
            NAMES,
        )
        assert (told["grad_share/ce"], told["grad_share/dice"]) == (0.25, 0.75)
        assert {
            key: value for key, value in told.items() if key.startswith("class_grad_share/")
        } == {
            "class_grad_share/road": 0.5,
            "class_grad_share/pedestrian": 0.5,
        }
        assert all(isinstance(value, int | float) for value in told.values())

    def test_test_score(self, make_record: Make) -> None:
        """The test score, where there is one, and the broken step."""
        told = figures(make_record(3, test=TestScore(0.4, (0.8, None, 0.1)), broken_step=7), NAMES)
        assert (told["test/metric"], told["broken_step"]) == (0.4, 7)

    def test_no_dice(self, make_record: Make) -> None:
        """What an epoch does not have is not told."""
        assert "dice_loss" not in figures(make_record(3, dice_loss=None), NAMES)

    def test_names_missing(self, make_record: Make) -> None:
        """Names that do not fit the classes are a mistake of ours."""
        with pytest.raises(ValueError, match="argument 2 is longer"):
            figures(make_record(3), NAMES[:2])


class TestMakeTracker:
    def test_off(self, make_record: Make, tmp_path: Path) -> None:
        """Switched off, nothing is told and nothing written."""
        tracker = make_tracker("off", "demo", tmp_path)
        assert isinstance(tracker, NoTracker)
        tracker.start(0, SegmentationConfig(), "safe")
        tracker.epoch(make_record(1), NAMES)
        tracker.finish("complete", "")
        tracker.close()
        assert list(tmp_path.iterdir()) == []
