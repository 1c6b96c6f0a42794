"""Dotted paths into nested mappings: `loss.gamma` is `{"loss": {"gamma": …}}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from spaces.errors import StudyError

Tree = Mapping[str, Any]


def flatten(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of `tree` with its dotted path; empty mappings count as leaves."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def lookup(tree: Tree, path: str) -> Any:
    """The value at `path`.

    Raises:
        KeyError: when a step of the path is absent.
    """
    node: Any = tree
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            raise KeyError(path)
        node = node[key]
    return node


def nested(leaves: Tree) -> dict[str, Any]:
    """A nested mapping from dotted paths, or from a mixture of dotted and nested keys.

    Raises:
        StudyError: when a path leads through a value.
    """
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *parents, last = str(key).split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise StudyError(
                    f"{parent!r} is given as a value and as a section",
                    where=str(key),
                    found=repr(node),
                    next_step="keep one of the two",
                )
        held = node.get(last)
        branch = nested(value) if isinstance(value, Mapping) else value
        node[last] = (
            overlay(held, branch)
            if isinstance(held, Mapping) and isinstance(branch, Mapping)
            else branch
        )
    return tree


def overlay(below: Tree, above: Tree) -> dict[str, Any]:
    """`below` with every leaf of `above` laid over it; neither is changed."""
    merged = dict(below)
    for key, value in above.items():
        held = merged.get(key)
        merged[key] = (
            overlay(held, value)
            if isinstance(held, Mapping) and isinstance(value, Mapping)
            else value
        )
    return merged
