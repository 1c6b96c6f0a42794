"""The sampler's settings: what is refused because it would have no effect."""

from __future__ import annotations

import pytest

from spaces.errors import StudyError
from spaces.loader import load_study


class TestUse:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"sampler.name": "QMCSampler"}, "name has no effect with kind auto"),
            (
                {"sampler.kind": "tpe", "sampler.options": {"a": 1}},
                "options has no effect with kind tpe",
            ),
            (
                {"sampler.kind": "random", "sampler.learn_from": ["old"]},
                "learn_from has no effect with kind random; it belongs to auto and gp",
            ),
        ],
    )
    def test_ignored(self, changes: dict[str, object], message: str) -> None:
        """A setting that the kind of sampler would ignore is refused."""
        with pytest.raises(StudyError, match=message):
            load_study("focal_gamma", changes)

    @pytest.mark.parametrize("gain", [0, -1, 1, 5])
    def test_share(self, gain: float) -> None:
        """The gain at which a study is settled is a share of the score."""
        with pytest.raises(StudyError):
            load_study("focal_gamma", {"settled_gain": gain})

    def test_default(self) -> None:
        """A study without a sampler pauses its trials."""
        assert load_study("focal_gamma").sampler.kind == "auto"
