"""Courses of trials, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from spaces.records import EpochRecord

Series = Callable[..., list[EpochRecord]]


@pytest.fixture
def series(make_record: Callable[..., EpochRecord]) -> Series:
    """Records of the epochs 1, 2, …: a sequence gives one value an epoch, anything else holds for all of them.

    `loss` is the training loss, and both of its parts, so that no split changes it; `classes` is the class metric.
    """

    def make(*, loss: Sequence[float] = (), metric: Sequence[float] = (), val_loss: Sequence[float] = (), classes: Any = None, **changes: Any) -> list[EpochRecord]:
        columns: dict[str, Any] = {"train_loss": loss, "ce_loss": loss, "dice_loss": loss, "metric": metric, "val_loss": val_loss, "class_metric": classes, **changes}
        given = {name: column for name, column in columns.items() if isinstance(column, list)}
        lengths = {len(column) for column in given.values()}
        assert len(lengths) == 1, "columns of one length"
        fixed = {name: value for name, value in changes.items() if name not in given}
        return [make_record(index + 1, **fixed, **{name: column[index] for name, column in given.items()}) for index in range(lengths.pop())]

    return make
