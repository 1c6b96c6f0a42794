"""Courses of trials of which nothing is wrong but what a test changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spaces.records import EpochRecord
from tests.unit.search.diagnosis.trials import HEALTHY


@pytest.fixture
def course(make_record: Callable[..., EpochRecord]) -> Callable[..., list[EpochRecord]]:
    """Twelve healthy epochs, with the same changes in each, and further ones by epoch."""

    def make(
        by_epoch: dict[int, dict[str, Any]] | None = None, epochs: int = 12, **changes: Any
    ) -> list[EpochRecord]:
        made = []
        for epoch in range(1, epochs + 1):
            falling = {
                "ce_loss": 1.4 * 0.9**epoch,
                "train_loss": 1.2 * 0.9**epoch,
                "val_ce": 0.9 * 0.97**epoch,
                "metric": 0.2 + 0.01 * epoch,
            }
            made.append(
                make_record(
                    epoch, **(HEALTHY | falling | changes | (by_epoch or {}).get(epoch, {}))
                )
            )
        return made

    return make
