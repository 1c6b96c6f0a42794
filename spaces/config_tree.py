"""Configurations that are read by dotted path: `loss.gamma` is `gamma` in the section `loss`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from spaces.errors import StudyError

Sections = Mapping[str, Any]
"""Nested mappings; whatever is no mapping is a leaf, and so is an empty mapping."""


@dataclass(frozen=True, eq=False)
class ConfigTree(Mapping[str, Any]):
    """An immutable mapping from the dotted path of each leaf to its value, with its nested view.

    Args:
        nested: the sections. Dots within their keys, such as names of classes, have no meaning.

    >>> ConfigTree({"loss": {"gamma": 2.0}})["loss.gamma"]
    2.0
    """

    nested: Sections = field(default_factory=dict)

    @classmethod
    def from_paths(cls, values: Mapping[str, Any]) -> ConfigTree:
        """Make a tree of dotted paths, of nested sections, or of a mixture of both.

        Raises:
            StudyError: when a path leads through a value.
        """
        return cls(_nest_paths(values))

    def overlay(self, above: ConfigTree) -> ConfigTree:
        """Return this tree with every leaf of `above` laid over it; neither is changed."""
        return ConfigTree(_merge_sections(self.nested, above.nested))

    @cached_property
    def _leaves(self) -> dict[str, Any]:
        return dict(_flatten_sections(self.nested, ""))

    def __getitem__(self, path: str) -> Any:
        return self._leaves[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)


def _flatten_sections(sections: Sections, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in sections.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flatten_sections(value, f"{path}.")
        else:
            yield path, value


def _nest_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = str(key).split(".")
        section = root
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise StudyError(
                    f"{parent!r} is given as a value and as a section",
                    where=str(key),
                    place=tuple(str(key).split(".")),
                    found=repr(section),
                    next_step="keep one of the two",
                )
        branch = _nest_paths(value) if isinstance(value, Mapping) else value
        section[last] = _merged_value(section.get(last), branch)
    return root


def _merge_sections(below: Sections, above: Sections) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _merged_value(merged.get(key), value)
    return merged


def _merged_value(below: Any, above: Any) -> Any:
    """Merge two sections; anything else is replaced by what is above."""
    both = isinstance(below, Mapping) and isinstance(above, Mapping)
    return _merge_sections(below, above) if both else above
