"""Texts with their classes, as every source of them hands them on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spaces.records import ClassCounts


@dataclass(frozen=True)
class Labelled:
    """Texts, and the index of each one's class."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Texts:
    """A whole data set."""

    class_names: tuple[str, ...]
    train: Labelled
    val: Labelled
    test: Labelled | None

    def counts(self) -> ClassCounts:
        """Training texts of every class."""
        counts = np.bincount(self.train.labels, minlength=len(self.class_names))
        return ClassCounts(self.class_names, tuple(int(count) for count in counts))
