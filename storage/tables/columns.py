"""Column types that all databases keep alike: JSON with NaN and infinity, floats that may be NaN, and any text at all."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Dialect, Double, String, Text
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.types import TypeDecorator, TypeEngine

MYSQL = ("mysql", "mariadb")

KEY = Text().with_variant(String(255, collation="utf8mb4_bin"), *MYSQL)
"""Text in a key or an index: MySQL wants a length there, and takes 'a' for 'A' unless it is told not to."""

LONG = Text().with_variant(LONGTEXT(), *MYSQL)
"""Text of any length: MySQL's plain one ends at 64 KB."""

NUMBER: TypeEngine[Any] = Double().with_variant(String(32), *MYSQL)
"""A float that may be NaN or infinite: MySQL's floats are neither, so there it is the float's own spelling."""

_MARK = "$float"
_MARK_OR_ESCAPED = re.compile(r"\$+float")


def dumps(value: Any) -> str:
    """JSON text in which NaN and the infinities are spelled `{"$float": "nan"}`, for JSON itself has no word for them.

    Raises:
        TypeError: when something in `value` is no JSON value, such as a tensor.
    """
    try:
        text = _encode(value)
    except ValueError:
        return _encode(_marked(value))
    return _encode(_marked(value)) if f'{_MARK}"' in text else text


def loads(text: str) -> Any:
    """The inverse of `dumps`; tuples come back as lists."""
    return json.loads(text, object_hook=_unmarked if f'{_MARK}"' in text else None)


def _encode(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_as_dict)


def _as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value: {value!r:.80}")


def _marked(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: str(float(value))}
    if isinstance(value, Mapping):
        tree = {str(key): _marked(item) for key, item in value.items()}
        return {f"${key}": item for key, item in tree.items()} if _is_marker(tree) else tree
    if isinstance(value, (list, tuple)):
        return [_marked(item) for item in value]
    return value


def _unmarked(node: dict[str, Any]) -> Any:
    if not _is_marker(node):
        return node
    key, value = next(iter(node.items()))
    return float(value) if key == _MARK else {key[1:]: value}


def _is_marker(node: Mapping[str, Any]) -> bool:
    """Whether `node` is a marker, or a user's own mapping that looks like one and therefore wears one `$` more."""
    return len(node) == 1 and _MARK_OR_ESCAPED.fullmatch(next(iter(node))) is not None


class Json(TypeDecorator[Any]):
    """Any JSON value, with NaN and infinity. It is text, because PostgreSQL's own json types refuse both."""

    impl = LONG
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """To the database."""
        return None if value is None else dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """From the database."""
        return None if value is None else loads(value)


class Number(TypeDecorator[float]):
    """A float that may be NaN. SQLite turns NaN into NULL, so there it is the text 'nan', which a REAL column may hold."""

    impl = NUMBER
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """To the database. It takes the place of Double's own one, which would make a float of the text again."""
        if dialect.name in MYSQL:
            return _spelled
        return _nan_as_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    def process_result_value(self, value: Any, dialect: Dialect) -> float | None:
        """From the database."""
        return None if value is None else float(value)


def _spelled(value: float | None) -> str | None:
    return None if value is None else repr(float(value))


def _nan_as_text(value: float | None) -> float | str | None:
    return "nan" if value is not None and math.isnan(value) else value


class Words(TypeDecorator[str]):
    """Text from anywhere, such as a traceback: what the databases refuse (NUL, half a surrogate pair) is spelled out."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """To the database."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
