"""The lines about the probe of the learning rate."""

from __future__ import annotations

import math
from typing import Any

import pytest

from search.console.rate_probe import print_rate_probe
from spaces.rate_probe import RateProbe

CURVE = tuple((10.0 ** (place / 4), 2.0 - place / 10) for place in range(-20, 5))


def printed(capsys: pytest.CaptureFixture[str], width: Any, probe: RateProbe) -> str:
    """Return what is printed on a wide screen."""
    width(300)
    print_rate_probe(probe)
    return capsys.readouterr().out


class TestLines:
    def test_bounded(self, capsys: pytest.CaptureFixture[str], width: Any) -> None:
        """They name the rate, the cost and the largest stable rate, and some points of the curve."""
        text = printed(capsys, width, RateProbe(0.13, 1.3, True, 2.0, CURVE))
        assert "base learning rate: 0.13, found by a probe of 2 epochs (stable up to 1.3)" in text
        assert "by learning rate: 1.0e-05: 4, 3.2e-05: 3.8, " in text
        assert text.rstrip().endswith("10: 1.6")

    def test_all_stable(self, capsys: pytest.CaptureFixture[str], width: Any) -> None:
        """Where no rate was unstable they say so; a broken loss is shown as it is."""
        curve = (*CURVE, (20.0, math.nan))
        text = printed(capsys, width, RateProbe(0.13, 10.0, False, 2.54, curve))
        assert "found by a probe of 2.5 epochs (stable at all rates, up to 10)" in text
        assert text.rstrip().endswith("20: nan")
