"""Which calls are the same: order-free, counts equal, values compared as their schema types.

Defaults are filled. Where the type does not allow `null`, `null` for an optional argument without
another default is the argument left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from quickstudy.toolcalls.pythonic import literal
from quickstudy.types import Tool, ToolCall


def equal(left: Sequence[ToolCall], right: Sequence[ToolCall], tools: Sequence[Tool] = ()) -> bool:
    """The same set of calls: order-free, counts equal, defaults filled, values by schema type."""
    return canonical(left, tools) == canonical(right, tools)


def canonical(calls: Sequence[ToolCall], tools: Sequence[Tool] = ()) -> str:
    """One text for all that `equal` holds equal."""
    return "\n".join(sorted(_key(call, tools) for call in calls))


def _key(call: ToolCall, tools: Sequence[Tool]) -> str:
    return json.dumps([call.name, filled(call, tools)], sort_keys=True)


def filled(call: ToolCall, tools: Sequence[Tool]) -> dict[str, Any]:
    """The call's arguments as `equal` compares them: by schema type, with defaults."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        return {name: _normal(value, None) for name, value in call.arguments.items()}
    arguments = {
        name: _normal(value, tool.properties.get(name)) for name, value in call.arguments.items()
    }
    for name, schema in tool.properties.items():
        if not isinstance(schema, Mapping):
            continue
        if "default" in schema:
            arguments.setdefault(name, _normal(schema["default"], schema))
        left_out = name not in tool.required and schema.get("default") is None
        if left_out and arguments.get(name, "") is None and isinstance(schema.get("type"), str):
            del arguments[name]
    return arguments


def _normal(value: Any, schema: object) -> Any:
    """The value as its schema type reads it: `"5"` is 5 for an integer, 5.0 is 5 for a number."""
    kind = type_of(schema)
    if isinstance(value, str):
        if kind in ("integer", "number"):
            for read_number in (int, float):  # int first: floats round long numbers
                with suppress(ValueError):
                    return _number(read_number(value.replace(",", "")))
            return value.strip()
        if kind == "boolean" and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind in ("array", "object"):  # "['a', 'b']", as some benchmarks and models spell a list
            with suppress(ValueError, RecursionError):
                read = literal(value)
                if isinstance(read, list if kind == "array" else dict):
                    return _normal(read, schema)
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower() if kind == "string" else value
    if isinstance(value, int | float):
        return str(_number(value)) if kind == "string" else _number(value)
    if isinstance(value, list):
        items = schema.get("items") if isinstance(schema, Mapping) else None
        return [_normal(item, items) for item in value]
    if isinstance(value, dict):
        inner = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
        return {key: _normal(item, inner.get(key)) for key, item in value.items()}
    return value


def _number(value: int | float) -> int | float:
    if isinstance(value, int):
        return value
    return int(value) if math.isfinite(value) and value == int(value) else value


def type_of(schema: object) -> object:
    """The schema's type; of `["integer", "null"]` and `anyOf` with null the other one."""
    if not isinstance(schema, Mapping):
        return None
    if isinstance(schema.get("type"), str):
        return schema["type"]
    parts = [part if isinstance(part, Mapping) else {} for part in schema.get("anyOf", ())]
    kinds = schema.get("type", [part.get("type") for part in parts])
    others = [kind for kind in kinds if kind != "null"]
    return others[0] if len(others) == 1 else None
