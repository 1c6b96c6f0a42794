"""Configurations by dotted path: from sections and back, and laid over one another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.config_tree import ConfigTree
from spaces.errors import StudyError

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


class TestLeaves:
    @given(sections=trees)
    def test_round_trip(self, sections: dict[str, Any]) -> None:
        """The leaves make the same sections again, empty ones included."""
        tree = ConfigTree(sections)
        assert ConfigTree.from_paths(dict(tree)).nested == tree.nested == sections

    @given(sections=trees)
    def test_values(self, sections: dict[str, Any]) -> None:
        """Every path leads through the sections to its value."""
        tree = ConfigTree(sections)
        for path, value in tree.items():
            node: Any = sections
            for step in path.split("."):
                node = node[step]
            assert (node, tree[path], tree.get(path), path in tree) == (value, value, value, True)

    @pytest.mark.parametrize("path", ["c", "a", "a.c", "a.b.c"])
    def test_absent(self, path: str) -> None:
        """A path that leads to no leaf is absent."""
        tree = ConfigTree({"a": {"b": 1}})
        assert (path in tree, tree.get(path, "none")) == (False, "none")
        with pytest.raises(KeyError, match=path):
            tree[path]

    def test_dotted_key(self) -> None:
        """A dot in a key of a section, as in the name of a class, makes no section."""
        sections = {"loss": {"class_alpha": {"No. 1": 2.0}}}
        tree = ConfigTree(sections)
        assert dict(tree) == {"loss.class_alpha.No. 1": 2.0}
        assert tree.overlay(ConfigTree({"epochs": 3})).nested == {**sections, "epochs": 3}

    def test_equal(self) -> None:
        """Trees with the same leaves are equal, and equal to a mapping of them."""
        assert ConfigTree({"a": {"b": 1}}) == ConfigTree.from_paths({"a.b": 1}) == {"a.b": 1}
        assert ConfigTree({"a": {"b": 1}}) != ConfigTree({"a": {"b": 2}})
        assert len(ConfigTree()) == 0


class TestFromPaths:
    def test_mixture(self) -> None:
        """Dotted and nested keys may be mixed."""
        given = {
            "loss": {"gamma": 1},
            "loss.smooth": 5,
            "optimizer.sgd": {"momentum": 0.9},
            "optimizer": {"sgd.lr": 1},
        }
        assert ConfigTree.from_paths(given).nested == {
            "loss": {"gamma": 1, "smooth": 5},
            "optimizer": {"sgd": {"momentum": 0.9, "lr": 1}},
        }

    @given(sections=trees)
    def test_nested(self, sections: dict[str, Any]) -> None:
        """Nested sections are copied as they are."""
        before = repr(sections)
        made = ConfigTree.from_paths(sections).nested
        assert made == sections
        assert made is not sections
        assert repr(sections) == before

    def test_through_a_value(self) -> None:
        """A path that leads through a value is refused, with its place."""
        with pytest.raises(
            StudyError, match="'loss' is given as a value and as a section"
        ) as caught:
            ConfigTree.from_paths({"loss": 1, "loss.gamma": 2})
        assert caught.value.place == ("loss", "gamma")


class TestOverlay:
    @given(below=trees, above=trees)
    def test_above_wins(self, below: dict[str, Any], above: dict[str, Any]) -> None:
        """Every leaf of the upper tree is in the result; neither tree is changed."""
        before = repr((below, above))
        merged = ConfigTree(below).overlay(ConfigTree(above))
        leaves = {path: value for path, value in ConfigTree(above).items() if value != {}}
        assert {path: merged[path] for path in leaves} == leaves
        assert repr((below, above)) == before

    @given(sections=trees)
    def test_nothing_over(self, sections: dict[str, Any]) -> None:
        """An empty tree, or the same tree, changes nothing."""
        tree, empty = ConfigTree(sections), ConfigTree()
        for merged in (tree.overlay(empty), empty.overlay(tree), tree.overlay(tree)):
            assert merged.nested == sections

    def test_siblings_stay(self) -> None:
        """Other leaves stay; a section replaces a value, and a value a section."""
        below = ConfigTree({"a": {"b": 1, "c": 2}, "d": {"e": 3}, "f": 4})
        above = ConfigTree({"a": {"b": 9}, "d": 5, "f": {"g": 6}})
        assert below.overlay(above).nested == {"a": {"b": 9, "c": 2}, "d": 5, "f": {"g": 6}}
