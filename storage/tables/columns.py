"""Column types that every database stores alike: JSON and floats with NaN, and any text."""

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
"""Text in a key or an index: MySQL needs a length, and a collation that distinguishes case."""

LONG = Text().with_variant(LONGTEXT(), *MYSQL)
"""Text of any length: MySQL's TEXT is limited to 64 KB."""

NUMBER: TypeEngine[Any] = Double().with_variant(String(32), *MYSQL)
"""A float that may be NaN or infinite: MySQL's floats cannot, so there it is stored as text."""

_MARK = "$float"
_MARK_OR_ESCAPED = re.compile(r"\$+float")


def dumps(value: Any) -> str:
    """Encode a value as JSON, with NaN and the infinities as `{"$float": "nan"}`.

    Raises:
        TypeError: when something in `value` is not a JSON value, such as a tensor.
    """
    try:
        text = _encode_json(value)
    except ValueError:
        return _encode_json(_mark_floats(value))
    return _encode_json(_mark_floats(value)) if f'{_MARK}"' in text else text


def loads(text: str) -> Any:
    """Decode what `dumps` encoded. Tuples come back as lists."""
    return json.loads(text, object_hook=_restore_floats if f'{_MARK}"' in text else None)


def _encode_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_as_dict)


def _as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value: {value!r:.80}")


def _mark_floats(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: str(float(value))}
    if isinstance(value, Mapping):
        tree = {str(key): _mark_floats(item) for key, item in value.items()}
        return {f"${key}": item for key, item in tree.items()} if _is_marker(tree) else tree
    if isinstance(value, (list, tuple)):
        return [_mark_floats(item) for item in value]
    return value


def _restore_floats(node: dict[str, Any]) -> Any:
    if not _is_marker(node):
        return node
    key, value = next(iter(node.items()))
    return float(value) if key == _MARK else {key[1:]: value}


def _is_marker(node: Mapping[str, Any]) -> bool:
    """Whether `node` is a marker, or a user's mapping that looks like one and has one more `$`."""
    return len(node) == 1 and _MARK_OR_ESCAPED.fullmatch(next(iter(node))) is not None


class Json(TypeDecorator[Any]):
    """Any JSON value, with NaN and infinity, which the JSON types of PostgreSQL refuse."""

    impl = LONG
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encode a value for the database."""
        return None if value is None else dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Decode a value from the database."""
        return None if value is None else loads(value)


class Number(TypeDecorator[float]):
    """A float that may be NaN. SQLite turns NaN into NULL, so there it is the text 'nan'."""

    impl = NUMBER
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Encode a value, in place of Double's own processor, which would make the text a float."""
        if dialect.name in MYSQL:
            return _float_as_text
        return _nan_as_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    def process_result_value(self, value: Any, dialect: Dialect) -> float | None:
        """Decode a value from the database."""
        return None if value is None else float(value)


def _float_as_text(value: float | None) -> str | None:
    return None if value is None else repr(float(value))


def _nan_as_text(value: float | None) -> float | str | None:
    return "nan" if value is not None and math.isnan(value) else value


class Words(TypeDecorator[str]):
    """Any text, such as a traceback; what databases refuse (NUL, lone surrogates) is escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Encode a value for the database."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
