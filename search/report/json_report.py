"""Reports as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any


class JsonReport:
    """Base class of the reports that can be written as JSON."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """A mapping of JSON values; NaN and infinity, which JSON does not have, are null."""
        payload: dict[str, Any] = _to_json(asdict(self))  # type: ignore[call-overload]
        return payload


def _to_json(value: Any) -> Any:
    if hasattr(value, "_asdict"):  # a named tuple
        value = value._asdict()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    return value
