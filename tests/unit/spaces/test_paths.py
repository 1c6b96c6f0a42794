"""Dotted paths: there and back, and laid over one another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import StudyError
from spaces.paths import flatten, lookup, nested, overlay

keys = st.text("abcde_", min_size=1, max_size=3)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)
trees = st.recursive(
    st.dictionaries(keys, leaves, max_size=4),
    lambda inner: st.dictionaries(keys, leaves | inner, max_size=4),
    max_leaves=15,
)


class TestFlatten:
    @given(tree=trees)
    def test_round_trip(self, tree: dict[str, Any]) -> None:
        """`nested` undoes `flatten`, empty sections included."""
        assert nested(dict(flatten(tree))) == tree

    @given(tree=trees)
    def test_lookup(self, tree: dict[str, Any]) -> None:
        """Every path leads to its value."""
        assert all(lookup(tree, path) == value for path, value in flatten(tree))

    @pytest.mark.parametrize("path", ["c", "a.c", "a.b.c"])
    def test_absent(self, path: str) -> None:
        """A path that leads nowhere says so."""
        with pytest.raises(KeyError, match=path):
            lookup({"a": {"b": 1}}, path)


class TestNested:
    def test_mixture(self) -> None:
        """Dotted and nested keys may stand side by side."""
        given = {
            "loss": {"gamma": 1},
            "loss.smooth": 5,
            "optimizer.sgd": {"momentum": 0.9},
            "optimizer": {"sgd.lr": 1},
        }
        assert nested(given) == {
            "loss": {"gamma": 1, "smooth": 5},
            "optimizer": {"sgd": {"momentum": 0.9, "lr": 1}},
        }

    @given(tree=trees)
    def test_already(self, tree: dict[str, Any]) -> None:
        """What is nested stays as it is, and is copied."""
        before = repr(tree)
        nested(tree).clear()
        assert nested(tree) == tree
        assert repr(tree) == before

    def test_through_a_value(self) -> None:
        """A path cannot lead through a value."""
        with pytest.raises(StudyError, match="'loss' is given as a value and as a section"):
            nested({"loss": 1, "loss.gamma": 2})


class TestOverlay:
    @given(below=trees, above=trees)
    def test_above_wins(self, below: dict[str, Any], above: dict[str, Any]) -> None:
        """Every value that is laid over stands in the result; neither tree is changed."""
        before = repr((below, above))
        merged = overlay(below, above)
        assert all(lookup(merged, path) == value for path, value in flatten(above) if value != {})
        assert repr((below, above)) == before

    @given(tree=trees)
    def test_nothing_over(self, tree: dict[str, Any]) -> None:
        """Nothing, or the same once more, changes nothing."""
        assert overlay(tree, {}) == overlay({}, tree) == overlay(tree, tree) == tree

    def test_siblings_stay(self) -> None:
        """What the upper one does not name stays; a section replaces a value and a value a section."""
        assert overlay(
            {"a": {"b": 1, "c": 2}, "d": {"e": 3}, "f": 4}, {"a": {"b": 9}, "d": 5, "f": {"g": 6}}
        ) == {
            "a": {"b": 9, "c": 2},
            "d": 5,
            "f": {"g": 6},
        }
