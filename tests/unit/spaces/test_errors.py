"""The words of errors."""

from __future__ import annotations

import pytest

from spaces.errors import nearest


class TestNearest:
    @pytest.mark.parametrize(
        ("word", "allowed", "found"),
        [
            ("gama", ("alpha", "gamma"), " (did you mean 'gamma'?)"),
            ("resnet35", ("resnet50", "resnet34", "resnet18"), " (did you mean 'resnet34'?)"),
            ("inverse", ("sqrt_inv_freq", "inverse_freq"), " (did you mean 'inverse_freq'?)"),
            ("xyz", ("alpha", "gamma"), ""),
            ("gamma", (), ""),
        ],
    )
    def test_each(self, word: str, allowed: tuple[str, ...], found: str) -> None:
        """The closest word is proposed, of several the one that begins alike for longest, and none where none is close."""
        assert nearest(word, allowed) == found
