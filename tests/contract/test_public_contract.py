"""The contract that people point at objectives of their own, pointed at those that come with the program."""

from __future__ import annotations

from typing import ClassVar

from objectives.testing import ObjectiveContract
from tests.contract.training import SMALL


class TestSegmentation(ObjectiveContract):
    """With the smallest scenes."""

    objective = "segmentation"
    config = SMALL["segmentation"]
    sampled: ClassVar = {
        "loss.dice_weight": 0.25,
        "optimizer.lr_multiple": 3.0,
        "weights.clip_ratio": 10.0,
    }


class TestText(ObjectiveContract):
    """With few texts; other tokens are prepared again."""

    objective = "text_classification"
    config = SMALL["text_classification"]
    sampled: ClassVar = {"loss.label_smoothing": 0.25, "model.dropout": 0.3, "model.max_length": 12}
