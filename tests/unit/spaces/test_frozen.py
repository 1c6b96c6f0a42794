"""Models that people write by hand: former names of keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError

from spaces.frozen import Frozen


class _Rule(Frozen):
    former_keys: ClassVar[Mapping[str, str]] = {"width": "window"}

    window: int = 5


class _Rules(Frozen):
    former_keys: ClassVar[Mapping[str, str]] = {"old": "new"}

    new: _Rule = _Rule()
    free: dict[str, Any] = Field(default={})


class TestFormerKeys:
    def test_read(self) -> None:
        """A former name sets the key that has another name now, which alone is written."""
        rules = _Rules.model_validate({"old": {"width": 3}})
        assert rules == _Rules(new=_Rule(window=3))
        assert rules.model_dump() == {"new": {"window": 3}, "free": {}}

    def test_both(self) -> None:
        """A key that is given under both names is refused."""
        with pytest.raises(ValidationError, match="'width' is the former name of 'window'"):
            _Rules.model_validate({"new": {"width": 3, "window": 4}})

    def test_renamed(self) -> None:
        """Only keys of models are renamed, at every depth, and what is given is not changed."""
        given = {"old": {"width": 3}, "free": {"old": 1, "width": 2}, "other": 4}
        assert _Rules.rename_former_keys(given) == {
            "new": {"window": 3},
            "free": {"old": 1, "width": 2},
            "other": 4,
        }
        assert list(given) == ["old", "free", "other"]

    def test_clash_is_left(self) -> None:
        """Where both names are given both stay, for the validation to refuse."""
        assert _Rule.rename_former_keys({"width": 1, "window": 2}) == {"width": 1, "window": 2}

    def test_schema(self) -> None:
        """The schema has the former name, marked as deprecated."""
        properties = _Rule.model_json_schema()["properties"]
        assert properties["width"] == {**properties["window"], "deprecated": True}
