"""The names of the signals."""

from __future__ import annotations

import pytest

from spaces.thresholds import (
    FORMER_SIGNALS,
    SIGNALS,
    ClassCollapse,
    SignalsConfig,
    rename_former_signals,
)


class TestSplit:
    def test_inherited(self) -> None:
        """Left out, `not_learning` has what `class_collapse` sets on dead classes."""
        found = SignalsConfig.model_validate(
            {"class_collapse": {"enabled": False, "level": 0.05, "lost_share": 0.5}}
        ).not_learning
        assert (found.enabled, found.level, found.share) == (False, 0.05, 0.55)

    def test_inherited_from_model(self) -> None:
        """The same holds where `class_collapse` is an object instead of a mapping."""
        found = SignalsConfig(class_collapse=ClassCollapse(enabled=False, level=0.05)).not_learning
        assert (found.enabled, found.level, found.share) == (False, 0.05, 0.55)

    def test_given(self) -> None:
        """Its own thresholds count, and defaults elsewhere."""
        found = SignalsConfig.model_validate(
            {"class_collapse": {"enabled": False}, "not_learning": {"epochs": 6}}
        ).not_learning
        assert (found.enabled, found.epochs) == (True, 6)


class TestFormerSignals:
    def test_current(self) -> None:
        """Every former name belongs to a signal, and is none itself."""
        assert set(FORMER_SIGNALS.values()) <= set(SIGNALS)
        assert not set(FORMER_SIGNALS) & set(SIGNALS)

    def test_read(self) -> None:
        """Thresholds under a former name are those of the signal."""
        found = SignalsConfig.model_validate({"loss_metric_divorce": {"drop": 0.5}})
        assert found.loss_metric_decoupling.drop == 0.5
        assert "loss_metric_divorce" not in found.model_dump()

    @pytest.mark.parametrize(
        ("text", "renamed"),
        [
            ("loss_metric_divorce", "loss_metric_decoupling"),
            ("loss_metric_divorce: the loss fell", "loss_metric_decoupling: the loss fell"),
            ("loss_rising: from 1 to 2", "loss_rising: from 1 to 2"),
            ("", ""),
        ],
    )
    def test_renamed(self, text: str, renamed: str) -> None:
        """A stored name or sentence reads with the name that the signal has now."""
        assert rename_former_signals(text) == renamed
