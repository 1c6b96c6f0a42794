"""The base class of models that people write by hand: frozen, and strict about keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from spaces.errors import nearest


class Frozen(BaseModel):
    """An immutable record that refuses unknown keys and names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    former_keys: ClassVar[Mapping[str, str]] = {}
    """Former name of a key → its name now. Both are read; only the name now is written."""

    @classmethod
    def rename_former_keys(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Replace former names of keys by the names now, in sections that are models as well.

        A former name is kept where the name now is given, too: validation then refuses the two.
        """
        renamed: dict[str, Any] = {}
        for key, value in given.items():
            name = cls.former_keys.get(key, key)
            name = key if name in given else name
            field = cls.model_fields.get(name)
            section = None if field is None else field.annotation
            if isinstance(value, Mapping) and isinstance(section, type):
                value = section.rename_former_keys(value) if issubclass(section, Frozen) else value
            renamed[name] = value
        return renamed

    @model_validator(mode="before")
    @classmethod
    def _read_keys(cls, given: Any) -> Any:
        if isinstance(given, (str, bool, int, float, list)) or given is None:
            context = {"allowed": ", ".join(cls.model_fields)}
            raise PydanticCustomError(
                "not_a_section", "has keys of its own, so it cannot be a single value", context
            )
        if not isinstance(given, dict):
            return given
        renamed = cls.rename_former_keys(given)
        for key in renamed:
            if key in cls.former_keys:
                raise PydanticCustomError(
                    "key_given_twice",
                    "'{former}' is the former name of '{key}', which is given as well; "
                    "keep one of the two",
                    {"former": key, "key": cls.former_keys[key]},
                )
            if key not in cls.model_fields:
                context = {
                    "key": str(key),
                    "allowed": ", ".join(cls.model_fields),
                    "near": nearest(key, cls.model_fields),
                }
                raise PydanticCustomError("unknown_key", "unknown key '{key}'{near}", context)
        return renamed

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the former names of keys, marked as deprecated."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for former, name in cls.former_keys.items():
            properties[former] = {**properties[name], "deprecated": True}
        return schema
