"""Classes that gained and lost since the best epoch: only beyond their own noise."""

from __future__ import annotations

import random

import pytest

from search.diagnosis.class_changes import describe_changes, estimate_noise
from tests.unit.search.diagnosis.trials import Course, facts_of


def test_noise_by_hand() -> None:
    """Differences 1, −1, 2 and their median 1: deviations 0, 2, 1, of which 1.48 · 1."""
    assert estimate_noise([0, 1, 0, 2]) == pytest.approx(1.4826)
    assert estimate_noise([0, 1]) == 0
    assert estimate_noise([1, 2, 3, 4]) == 0


def test_noise_is_no_change(course: Course) -> None:
    """A class that fluctuates neither gained nor lost; one that fell beyond its noise did."""
    rng = random.Random(0)
    noisy = {
        epoch: {
            "class_metric": (0.9, 0.5 if epoch < 7 else 0.2, 0.3 + rng.gauss(0, 0.05), 0.2),
            "metric": 0.5 if epoch == 5 else 0.3,
        }
        for epoch in range(1, 13)
    }
    assert describe_changes(facts_of(course(noisy))) == (
        "since epoch 5, the best one: lost car -0.300"
    )


def test_best_is_last(course: Course) -> None:
    """A best epoch that is the last one has no changes since."""
    assert describe_changes(facts_of(course())) == ""


def test_nothing_changed(course: Course) -> None:
    """Changes below any noise are not listed."""
    assert describe_changes(facts_of(course({3: {"metric": 0.9}}))) == ""
