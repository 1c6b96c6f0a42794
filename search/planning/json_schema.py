"""The JSON Schema of a study's YAML."""

from __future__ import annotations

import json
import re
from typing import Any

from search.planning.base_rate import AUTO
from spaces.study import StudySpec


def schema_text() -> str:
    """Return the JSON Schema of a study's YAML.

    The configuration's own schema is under `base`, its paths are under `space`.
    """
    from objectives.registry import OBJECTIVES
    from search.planning.plan import NOT_SEARCHED, named_factors, searchable_paths
    from spaces.presets import PRESETS

    schema = StudySpec.model_json_schema()
    dimension = schema["properties"]["space"].pop("additionalProperties")
    cases = []
    for name, kind in OBJECTIVES.items():
        inner = kind.config.model_json_schema()
        if kind.has_rate_probe:
            _allow_auto(inner["$defs"])
        schema["$defs"] |= inner.pop("$defs")
        by_name = set(named_factors(kind.config)) - NOT_SEARCHED
        paths = sorted(set(searchable_paths(kind.config)) - NOT_SEARCHED - by_name)
        base = {"properties": inner["properties"], "additionalProperties": False}
        factors = {f"^{re.escape(path)}[.].+$": dimension for path in sorted(by_name)}
        space = {
            "properties": dict.fromkeys(paths, dimension),
            "patternProperties": factors,
            "additionalProperties": False,
        }
        is_default = name == schema["properties"]["objective"]["default"]
        named = {} if is_default else {"required": ["objective"]}
        cases.append(
            {
                "if": {"properties": {"objective": {"const": name}}} | named,
                "then": {"properties": {"base": base, "space": space}},
            }
        )
    schema["allOf"] = cases
    schema["properties"]["presets"]["items"] = {"enum": list(PRESETS)}
    # a name with a colon is a custom objective, which no list has
    schema["properties"]["objective"] |= {
        "if": {"pattern": ":"},
        "else": {"enum": list(OBJECTIVES)},
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "A study of search"
    return json.dumps(schema, indent=2, ensure_ascii=False)


def _allow_auto(definitions: dict[str, Any]) -> None:
    """Let the base learning rate of a study be `auto`, which a trial's configuration never is."""
    for definition in definitions.values():
        rate = definition.get("properties", {}).get("base_lr")
        if rate is not None:
            bound = {"type": rate.pop("type"), "exclusiveMinimum": rate.pop("exclusiveMinimum")}
            rate["anyOf"] = [bound, {"const": AUTO}]
            rate["description"] += f"; {AUTO}: found by a probe before the first trial"
