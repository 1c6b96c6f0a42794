"""Trainings that end before anything is learned: rate, clipping, epochs, skipped steps."""

from __future__ import annotations

import math
from typing import Any

import pytest

from search.diagnosis.remedies import find_remedies
from spaces.records import CLEAR_CONFIDENCE
from tests.unit.search.diagnosis.trials import Course, diagnosed, facts_of, patches

RISING = {epoch: {"metric": 0.1 + 0.001 * epoch} for epoch in range(1, 41)}
SLOW: dict[int, dict[str, Any]] = {
    epoch: {"ce_loss": 1.9 - 0.02 * epoch, "val_ce": 1.3 - 0.01 * epoch, **RISING[epoch]}
    for epoch in range(1, 41)
}
"""A loss that falls slowly and steadily, and a last epoch that is the best one."""


class TestRate:
    @pytest.mark.parametrize("signal", ["", "class_collapse", "loss_rising", "nonfinite_loss"])
    @pytest.mark.parametrize("rate", [0.01, 0.03, 0.3, 1.0])
    def test_never_too_high(self, course: Course, rate: float, signal: str) -> None:
        """A rate up to the base rate is not called too high unless something diverged."""
        found = diagnosed(course(SLOW), signal, optimizer__lr_multiple=rate)
        assert found.cause != "learning rate too high"

    @pytest.mark.parametrize("signal", ["", "class_collapse"])
    def test_too_low(self, course: Course, signal: str) -> None:
        """A low rate with a slowly falling loss: a higher rate, more epochs, never a lower rate."""
        records = course(SLOW, class_metric=(0.8, 0.05, 0.0, 0.0), clipped_share=0.0)
        found = diagnosed(records, signal, optimizer__lr_multiple=0.01)
        assert found.cause == "learning rate too low"
        assert any("the best one: it was still improving" in reason for reason in found.because)
        rates = [patch.get("optimizer.lr_multiple", 1.0) for patch in patches(found)]
        assert rates[0] == pytest.approx(0.3)
        assert min(rates) > 0.01
        assert "more epochs" in found.remedies[-1].title

    @pytest.mark.parametrize(
        ("rate", "factor"), [(0.1, 3), (0.07, 3), (0.02, 10), (0.01, 30), (3e-4, 30), (1e-6, 30)]
    )
    def test_first_factor(self, course: Course, rate: float, factor: int) -> None:
        """The first remedy raises a rate to near that of the presets, by 30 times at most."""
        facts = facts_of(course(), optimizer__lr_multiple=rate)
        first, *others = find_remedies("learning rate too low", facts)
        assert first.title == f"learning rate × {factor}"
        assert first.patch == {"optimizer.lr_multiple": pytest.approx(rate * factor)}
        raised = [each.patch.get("optimizer.lr_multiple", math.inf) for each in others]
        assert min(raised) > first.patch["optimizer.lr_multiple"]

    def test_one_number(self, course: Course) -> None:
        """The rate in a sentence is the configured one, not that of a schedule at the end."""
        falling = {epoch: {"lr": 3.0 * 0.5**epoch, "val_ce": 300.0} for epoch in range(1, 13)}
        found = diagnosed(course(falling), optimizer__lr_multiple=30.0)
        assert "the learning rate was 3, 30 times the base rate" in found.because


class TestClipping:
    def test_larger_bound(self, course: Course) -> None:
        """Clipping that removes nearly all of a gradient: a larger bound, then none."""
        found = diagnosed(course(SLOW, clipped_share=1.0), optimizer__grad_clip_norm=0.001)
        assert found.cause == "gradient clipped away"
        assert patches(found)[:2] == [
            {"optimizer.grad_clip_norm": 1.0},
            {"optimizer.grad_clip_norm": None},
        ]


class TestEpochs:
    def test_too_few(self, course: Course) -> None:
        """Four epochs at a usual rate that are still improving: more epochs."""
        found = diagnosed(course(SLOW, 4), epochs=4)
        assert found.cause == "too few epochs"
        assert [remedy.title for remedy in found.remedies] == [
            "more epochs per trial: 8 instead of 4"
        ]

    def test_stopped(self, course: Course) -> None:
        """A trial that a signal stopped did not have too few epochs."""
        assert diagnosed(course(SLOW, 4), "class_collapse", epochs=4).cause != "too few epochs"


class TestSteps:
    def test_overflow(self, course: Course) -> None:
        """Steps that the loss scaler skipped point to float16."""
        found = diagnosed(course(SLOW, steps=5, skipped_steps=19))
        assert found.cause == "mixed precision overflow"
        assert "the loss scaler skipped 79% of the steps" in found.because[0]
        assert patches(found)[0] == {"precision": "float32"}

    def test_usual_skips(self, course: Course) -> None:
        """A few skipped steps are how a scaler finds its scale."""
        records = course({1: {"skipped_steps": 2}}, steps=24)
        assert diagnosed(records).cause != "mixed precision overflow"

    @pytest.mark.parametrize(("samples", "is_cause"), [(1, True), (2, True), (8, False)])
    def test_batch_norm(self, course: Course, samples: int, is_cause: bool) -> None:
        """Batch norm over one or two samples is named, also where batches are accumulated."""
        found = diagnosed(
            course(batch_norm_samples=samples), batch_size=samples, optimizer__accumulate=8
        )
        assert (found.cause == "batch norm with tiny batches") == is_cause
        if is_cause:
            assert patches(found)[0]["batch_size"] == 8


class TestUnclear:
    def test_harmless(self, course: Course) -> None:
        """Without a clear cause nothing that changes the configuration is suggested."""
        found = diagnosed(course())
        assert found.confidence < CLEAR_CONFIDENCE
        assert not found.is_clear
        assert all(patch == {} for patch in patches(found))


@pytest.mark.parametrize("signal", ["nonfinite_loss", "gradient_explosion", "loss_rising"])
def test_grown_loss(course: Course, signal: str) -> None:
    """Where loss or gradients grew, no short steps are blamed, however low the rate is."""
    rising = {epoch: {"ce_loss": 1.0 + 0.05 * epoch} for epoch in range(1, 7)}
    found = diagnosed(course(rising, epochs=6), signal, optimizer__lr_multiple=0.001)
    assert "learning rate too low" not in [found.cause, *dict(found.others)]
    assert not any("fell by -" in text for text in (*found.because, *found.against))
