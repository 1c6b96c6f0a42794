"""What remedies did, in words."""

from __future__ import annotations

from typing import Any

import pytest

from search.console.remedy_tables import format_remedy_trial
from search.report.models import RemedyTrial


@pytest.mark.parametrize(
    ("before", "after", "verdict", "shown"),
    [
        (0.25, 0.5, "helped", ": 0.2500 → 0.5000, helped"),
        (0.25, 0.25, "same", ": 0.2500 → 0.2500, within noise"),
        (0.25, 0.5, None, ": 0.2500 → 0.5000, too short to judge"),
        (None, None, None, ""),
    ],
)
def test_verdict(before: float | None, after: float | None, verdict: Any, shown: str) -> None:
    """Two trials that are too short to judge show their scores; one that still runs shows none."""
    outcome = RemedyTrial(31, 7, "slower", "rate", before, after, None, verdict)
    assert format_remedy_trial(outcome) == f"trial 31 tries the remedy of 7 (slower){shown}"
