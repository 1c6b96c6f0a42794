"""Diagnoses of custom objectives, which may have neither class weights, Dice nor our settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from search.diagnosis.causes import APPLIES, CAUSES
from search.diagnosis.facts import Facts
from search.diagnosis.health import describe_health
from search.diagnosis.rank_causes import diagnose, sum_weights
from search.diagnosis.remedies import find_remedies
from spaces.config_tree import ConfigTree
from spaces.record_json import make_record
from spaces.records import Diagnosis, EpochRecord, Evidence

CONFIG: Mapping[str, Any] = {"objective": "mine:train", "epochs": 12, "seed": 1, "rate": 0.1}
FOREIGN = ("Dice", "class weight", "clip", "alpha", "cross entropy", "base rate")
"""Words about settings that the objective does not have."""

SIGNALS = ("", "loss_rising", "metric_falling", "overfitting", "class_collapse", "not_learning")


def falling(epoch: int) -> dict[str, Any]:
    """An epoch of a training that learns."""
    return {"loss": 2.0 * 0.8**epoch, "metric": 0.02 * epoch, "val_loss": 2.0}


def jumping(epoch: int) -> dict[str, Any]:
    """An epoch of a training whose loss jumps half-way, and whose classes are never recognized."""
    loss = 0.9**epoch if epoch < 7 else 3 * 0.7**epoch * 10
    return {"loss": loss, "metric": 0.1, "val_loss": loss, "class_metric": [0.4, 0.0, 0.0]}


def exploding(epoch: int) -> dict[str, Any]:
    """An epoch of a training whose gradient norm grows."""
    return {"loss": 0.1 * epoch, "metric": 0.3 / epoch, "grad_norm_max": 10.0**epoch, "steps": 5}


COURSES = (falling, jumping, exploding)
Course = Callable[[int], dict[str, Any]]


def records_of(course: Course) -> list[EpochRecord]:
    """Twelve records as a custom objective yields them."""
    return [make_record({"epoch": epoch, **course(epoch)}) for epoch in range(1, 13)]


def diagnosed(course: Course, signal: str) -> Diagnosis:
    """The diagnosis of such a trial."""
    evidence = Evidence(signal, 12, None, "", {}, 1.0) if signal else None
    return diagnose(evidence, records_of(course), CONFIG)


class TestPhrases:
    @pytest.mark.parametrize("signal", SIGNALS)
    @pytest.mark.parametrize("course", COURSES)
    def test_foreign(self, course: Course, signal: str) -> None:
        """No observation and no cause is about a setting that the objective does not have."""
        found = diagnosed(course, signal)
        shown = [found.cause, *dict(found.others), *found.because, *found.against]
        assert not [text for text in shown if any(word in text for word in FOREIGN)]

    def test_health(self) -> None:
        """The signs of health do not mention parts that the loss does not have."""
        lines = describe_health(records_of(falling), "maximize")
        assert any("every part of the loss falls (one part, " in line for line in lines)
        assert not [line for line in lines if "Dice" in line or "cross entropy" in line]


class TestApplies:
    def test_left_out(self) -> None:
        """Causes about what is missing are not ranked; all others are."""
        ranked = set(sum_weights(None, records_of(falling), CONFIG))
        assert ranked == set(CAUSES) - set(APPLIES)

    def test_own_class_weights(self) -> None:
        """An objective that records class weights can have extreme ones."""
        records = [make_record({"epoch": 1, "weight_ratio": 900.0, **falling(1)})]
        ranked = sum_weights(None, records, CONFIG)
        assert "extreme class weights" in ranked
        assert "Dice too late" not in ranked


class TestRemedies:
    @pytest.mark.parametrize("cause", CAUSES)
    def test_missing_setting(self, cause: str) -> None:
        """A remedy that changes a setting which the objective does not have is not offered."""
        facts = Facts(records_of(falling), ConfigTree(CONFIG))
        assert not any(remedy.patch for remedy in find_remedies(cause, facts))

    def test_own_section(self) -> None:
        """Nor where the objective has that section without the setting."""
        own = {**CONFIG, "optimizer": {"lr_multiple": 0.01, "momentum": 0.5}}
        facts = Facts(records_of(falling), ConfigTree(own))
        patches = [remedy.patch for remedy in find_remedies("learning rate too high", facts)]
        assert patches
        assert all(set(patch) == {"optimizer.lr_multiple"} for patch in patches)
