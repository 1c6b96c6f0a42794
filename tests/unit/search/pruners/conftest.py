"""Series of epoch records for the tests of the signals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from spaces.records import EpochRecord, Evidence

NAN = math.nan
INF = math.inf
Series = Callable[..., list[EpochRecord]]

RISING = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75]
FALLING = [0.5, 0.49, 0.45, 0.4, 0.35, 0.3]
DECOUPLED_LOSS = (0.8, 0.7, 0.65, 0.6, 0.57, 0.55, 0.52, 0.5, 0.49)


@pytest.fixture
def series(make_record: Callable[..., EpochRecord]) -> Series:
    """Makes records of the epochs 1, 2, …; a list has a value per epoch, anything else is for all.

    `loss` is the training loss and both of its parts, so that CE/Dice weights do not change it;
    `classes` is the class metric.
    """

    def make(*, loss: Any = None, classes: Any = None, **changes: Any) -> list[EpochRecord]:
        aliases = {"train_loss": loss, "ce_loss": loss, "dice_loss": loss, "class_metric": classes}
        given = {name: column for name, column in (aliases | changes).items() if column is not None}
        (length,) = {len(column) for column in given.values() if isinstance(column, list)}
        rows = [
            {
                name: column[index] if isinstance(column, list) else column
                for name, column in given.items()
            }
            for index in range(length)
        ]
        return [make_record(epoch, **row) for epoch, row in enumerate(rows, 1)]

    return make


def signal(evidence: Evidence | None) -> str | None:
    """The name of the signal that fired."""
    return None if evidence is None else evidence.signal
