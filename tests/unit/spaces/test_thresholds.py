"""The names of the signals."""

from __future__ import annotations

import pytest

from spaces.thresholds import FORMER_SIGNALS, SIGNALS, SignalsConfig, rename_former_signals


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
