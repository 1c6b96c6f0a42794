"""The one base of every model that a person may write by hand: frozen, strict about keys, helpful when wrong."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from spaces.errors import nearest


class Frozen(BaseModel):
    """An immutable record that refuses unknown keys and names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        unknown = (
            [key for key in given if key not in cls.model_fields] if isinstance(given, dict) else []
        )
        if unknown:
            context = {
                "key": str(unknown[0]),
                "allowed": ", ".join(cls.model_fields),
                "near": nearest(unknown[0], cls.model_fields),
            }
            raise PydanticCustomError("unknown_key", "unknown key '{key}'{near}", context)
        return given
