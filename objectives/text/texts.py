"""Texts with their classes, as all sources return them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spaces.records import ClassCounts


@dataclass(frozen=True)
class LabeledTexts:
    """Texts, and the index of the class of each."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Texts:
    """A data set."""

    class_names: tuple[str, ...]
    train: LabeledTexts
    val: LabeledTexts
    test: LabeledTexts | None

    def count_classes(self) -> ClassCounts:
        """Count the training texts of every class."""
        counts = np.bincount(self.train.labels, minlength=len(self.class_names))
        return ClassCounts(self.class_names, tuple(int(count) for count in counts))
