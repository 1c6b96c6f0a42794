"""Diagnoses as the store has them."""

from __future__ import annotations

from typing import Any

import pytest

from spaces.records import Remedy
from storage.repositories.findings import _make_remedy


class TestRemedy:
    @pytest.mark.parametrize(
        ("stored", "remedy"),
        [
            ({"title": "clip: at 1", "patch": {"a.b": 1}}, Remedy("clip: at 1", {"a.b": 1})),
            (
                {"text": "clip: at 1: a.b none → 1, a.c 2 → 3", "patch": {"a.b": 1, "a.c": 3}},
                Remedy("clip: at 1", {"a.b": 1, "a.c": 3}),
            ),
            (
                {"text": "check the masks: all of them", "patch": {}},
                Remedy("check the masks: all of them", {}),
            ),
        ],
    )
    def test_versions(self, stored: dict[str, Any], remedy: Remedy) -> None:
        """A stored remedy has a title; the text of version 0.1.0 ends with the patch, left out."""
        assert _make_remedy(stored) == remedy
