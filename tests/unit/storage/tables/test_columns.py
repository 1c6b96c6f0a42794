"""JSON encoding of NaN and the infinities."""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.tables.columns import dumps, loads

keys = st.text() | st.sampled_from(["$float", "$$float", "$$$float", "float"])
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["nan", "inf", '$float"'])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


class TestDumps:
    @given(value=values)
    def test_round_trip(self, value: Any) -> None:
        """Any value with NaN and infinity is decoded as it was, even one like our marker."""
        assert repr(loads(dumps(value))) == repr(value)

    @given(value=values)
    def test_strict_json(self, value: Any) -> None:
        """The text is standard JSON, without a bare NaN."""

        def refuse(word: str) -> None:
            raise AssertionError(f"a bare {word}")

        json.loads(dumps(value), parse_constant=refuse)

    def test_spelling(self) -> None:
        """NaN is encoded as a marker, in lists and mappings of any kind; tuples become lists."""
        assert (
            dumps(MappingProxyType({"a": (math.nan, -math.inf)}))
            == '{"a":[{"$float":"nan"},{"$float":"-inf"}]}'
        )
        assert dumps({"a": MappingProxyType({"b": 1})}) == '{"a":{"b":1}}'

    def test_not_json(self) -> None:
        """A value that JSON cannot represent is named in the error."""
        with pytest.raises(TypeError, match="complex is not a JSON value: 1j"):
            dumps({"z": 1j})
