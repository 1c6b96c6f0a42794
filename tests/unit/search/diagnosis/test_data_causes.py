"""Causes in images and labels: what the figures of the data show, and what distinguishes them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from search.diagnosis.causes import CAUSES
from search.diagnosis.data_facts import DataFacts
from search.diagnosis.facts import Facts
from spaces.records import ClassCounts, InputFigures
from tests.unit.search.diagnosis.trials import COUNTS, Course, diagnosed, facts_of, patches

USUAL = InputFigures((0.4,), (1.2,), (0.001,), (0.02,), 0.0)
FREQUENCIES = (0.88, 0.09, 0.025, 0.005)
MEASURED: dict[str, Any] = {
    "inputs": USUAL,
    "val_inputs": USUAL,
    "target_shares": FREQUENCIES,
    "batch_norm_samples": 8,
}
"""Figures of data in which nothing is wrong."""

NEW = ("input without information", "validation unlike training", "class missing in training")
UNMATCHED = {"class_metric": (0.85, 0.09, 0.02, 0.0), "ce_loss": 1.3, "val_ce": 1.2, "metric": 0.24}
"""Every epoch of a training on masks of other images."""


class TestInputs:
    @pytest.mark.parametrize(
        ("figures", "text"),
        [
            (replace(USUAL, deviation=(0.0,), constant=1.0), "100% of the images"),
            (replace(USUAL, constant=0.4), "40% of the images"),
            (replace(USUAL, at_maximum=(0.6,)), "60% of the pixels"),
            (
                InputFigures((0.4, -1.7), (1.2, 0.0), (0.0, 1.0), (0.0, 1.0), 0.0),
                "1 of 2 channels never",
            ),
        ],
    )
    def test_found(self, course: Course, figures: InputFigures, text: str) -> None:
        """Constant and saturated images and a channel that never varies are found, to look at."""
        found = diagnosed(course(**UNMATCHED | MEASURED | {"inputs": figures}))
        assert found.cause == "input without information"
        assert text in found.because[0]
        assert patches(found) == [{}]

    def test_most_channels_empty(self, course: Course) -> None:
        """Most channels empty is the cause although the rest suffices to recognize classes."""
        empty = InputFigures((0.4, -1.7, -1.7), (1.2, 0.0, 0.0), (0.0,) * 3, (0.0,) * 3, 0.0)
        found = diagnosed(course(**MEASURED | {"inputs": empty, "val_inputs": empty}))
        assert found.cause == "input without information"
        assert found.is_clear

    def test_unused_channel(self, course: Course) -> None:
        """One unused channel of four, such as alpha, is no cause while classes are recognized."""
        alpha = InputFigures((0.4,) * 4, (1.2, 1.2, 1.2, 0.0), (0.0,) * 4, (0.0,) * 4, 0.0)
        found = diagnosed(course(**MEASURED | {"inputs": alpha, "val_inputs": alpha}))
        assert not (found.is_clear and found.cause == "input without information")

    def test_dark_background(self, course: Course) -> None:
        """Images that are mostly black, as many are, are no fault while classes are learned."""
        dark = replace(USUAL, at_minimum=(0.8,))
        assert diagnosed(course(**MEASURED | {"inputs": dark})).cause != "input without information"


class TestValidation:
    def test_found(self, course: Course) -> None:
        """Validation images of another brightness, and a higher loss from the first epochs on."""
        darker = replace(USUAL, mean=(-0.8,), deviation=(0.4,))
        found = diagnosed(course(val_loss=2.5, val_ce=2.0, **MEASURED | {"val_inputs": darker}))
        assert found.cause == "validation unlike training"
        assert any("-1 standard deviations" in reason for reason in found.because)
        assert patches(found) == [{}]

    def test_not_diverged(self, course: Course) -> None:
        """Its large validation cross entropy is not taken for a high learning rate."""
        inverted = replace(USUAL, mean=(2.4,))
        records = course(val_loss=9.0, val_ce=12.0, **MEASURED | {"val_inputs": inverted})
        found = diagnosed(records, "class_collapse")
        assert found.cause == "validation unlike training"

    def test_memorized(self, course: Course) -> None:
        """A gap that grows only later is memorization."""
        rising = {epoch: {"val_loss": 0.8 + 0.05 * epoch} for epoch in range(4, 13)}
        found = diagnosed(course(rising, **MEASURED | {"steps": 1}), "overfitting")
        assert found.cause == "too little regularization"


class TestLabels:
    def test_unmatched(self, course: Course) -> None:
        """No class is recognized, although images, rate and weights are usual."""
        found = diagnosed(course(**UNMATCHED | MEASURED), "class_collapse")
        assert found.cause == "labels do not match the images"
        assert patches(found) == [{}]

    def test_few_images(self, course: Course) -> None:
        """Where an epoch has a handful of images, that no class is recognized is their fault."""
        scores = {"class_metric": UNMATCHED["class_metric"], "metric": 0.24, "steps": 1}
        rising = {6: {"val_loss": 0.84}, 7: {"val_loss": 0.88}}
        found = diagnosed(course(rising, 7, **MEASURED | scores), "not_learning")
        assert found.cause == "too little regularization"

    def test_recognized(self, course: Course) -> None:
        """A class counts as recognized beyond what predicting it everywhere would give it."""
        chance = facts_of(course(**UNMATCHED | MEASURED | {"class_metric": (0.88, 0.14, 0.0, 0.0)}))
        assert chance.recognized_classes(0.1) == ()
        learned = facts_of(course(**UNMATCHED | MEASURED | {"class_metric": (0.85, 0.3, 0.0, 0.0)}))
        assert learned.recognized_classes(0.1) == (1,)

    def test_missing(self, course: Course) -> None:
        """A class that training never had is named."""
        shares = {"target_shares": (0.9, 0.0, 0.08, 0.02), "class_metric": (0.9, 0.0, 0.3, 0.2)}
        found = diagnosed(course(**MEASURED | shares), "class_collapse")
        assert found.cause == "class missing in training"
        assert "in 12 epochs no training target was of class car" in found.because[0]
        assert "car" in found.remedies[0].title

    def test_not_in_validation(self, course: Course) -> None:
        """A class that validation lacks, too, is no fault."""
        shares = {"target_shares": (0.9, 0.0, 0.08, 0.02), "class_metric": (0.9, None, 0.3, 0.2)}
        facts = facts_of(course(**MEASURED | shares))
        assert facts.data.missing_classes == ()

    def test_corrected_twice(self, course: Course) -> None:
        """Rare classes that are sampled more often and weighted by their frequency."""
        often = {"target_shares": (0.8, 0.13, 0.05, 0.02), "weight_ratio": 176.0}
        found = diagnosed(
            course(**MEASURED | often), weights__method="inverse_freq", weights__clip_ratio=None
        )
        assert found.cause == "rare classes corrected twice"
        assert "rider was 4 times as frequent among the training targets" in found.because[0]
        assert patches(found)[0]["weights.method"] == "uniform"

    def test_sampled_often(self, course: Course) -> None:
        """Sampling alone, without weights, corrects once."""
        often = {"target_shares": (0.8, 0.13, 0.05, 0.02), "weight_ratio": 1.0}
        found = diagnosed(
            course(**MEASURED | often), weights__method="uniform", weights__clip_ratio=None
        )
        assert found.cause != "rare classes corrected twice"


class TestUnknown:
    def test_own_objective(self, course: Course) -> None:
        """Where batch size, steps and rate are not known, nothing is concluded from defaults."""
        facts = Facts(course(steps=0, **UNMATCHED), {"momentum": 0.5})
        assert facts.samples_per_epoch == 0
        assert not facts.has_few_samples
        assert facts.rate_text == "no multiple of a base rate is configured"


class TestDataFacts:
    def test_by_hand(self, course: Course) -> None:
        """Shift in deviations of training, contrast as their ratio, shares over frequencies."""
        val = InputFigures((0.4 - 2.4,), (0.6,), (0.0,), (0.0,), 0.0)
        shares = (0.85, 0.09, 0.05, 0.01)
        records = course(**MEASURED | {"val_inputs": val, "target_shares": shares})
        data = DataFacts(records, COUNTS)
        assert data.val_shift == pytest.approx(-2)
        assert data.val_contrast == pytest.approx(0.5)
        assert data.oversampled_classes == {2: pytest.approx(2), 3: pytest.approx(2)}

    def test_not_recorded(self, course: Course) -> None:
        """Records of older versions have none of it, and no cause is found by it."""
        data = DataFacts(course(), ClassCounts(("a", "b"), (1, 1)))
        assert math.isnan(data.val_shift)
        assert math.isnan(data.at_maximum)
        assert data.carries_information is None
        assert (data.missing_classes, data.oversampled_classes) == ((), {})
        assert (data.skipped_share, data.batch_norm_samples) == (0, None)

    @pytest.mark.parametrize("cause", NEW)
    def test_old_records(self, course: Course, cause: str) -> None:
        """What was not recorded speaks for none of the causes that need it."""
        assert sum(each.weight for each in CAUSES[cause](facts_of(course()))) < -1
