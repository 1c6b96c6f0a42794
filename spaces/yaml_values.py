"""Format values as they are written in YAML, for messages and for command lines."""

from __future__ import annotations

from typing import Any

import yaml

WORDS = {"None": "null", "True": "true", "False": "false"}
"""Python's words → YAML's."""


def format_found(value: Any, characters: int) -> str:
    """Format a value that an error is about, cut to a number of characters."""
    text = repr(value)
    return WORDS.get(text, text)[:characters]


def format_assignment(path: str, value: Any) -> str:
    """Format a change as `--set` takes it: `epochs=8`, `space.loss.kind.choices=[ce, focal]`."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000).partition("\n")[0]
    return f"{path}={text}"
