"""The verifier's rules applied to an answer: what can be put right without learning anything.

Unknown arguments go; arguments that the schema does not mark as required go if their value is
clearly invented (`grounding.Status.INVENTED`); values are brought to the schema's type. It is
free, so it is also what learning has to beat. No model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from quickstudy import toolcalls
from quickstudy.augmentation.grounding import Status, ground_all
from quickstudy.augmentation.substitution import droppable
from quickstudy.types import Reply, Request, Tool, ToolCall


def repair(reply: Reply, request: Request) -> tuple[Reply, tuple[str, ...]]:
    """The reply under the rules, and each change as one sentence.

    A call that was valid stays valid: a change that would make it invalid is not made. Calls of
    tools that are not listed are left alone. Never raises on what a model wrote.
    """
    calls: list[ToolCall] = []
    changes: list[str] = []
    for call in reply.tool_calls:
        tool = request.tool(call.name)
        mended, told = _mend(call, tool, request) if tool else (call, [])
        valid = toolcalls.problem(call, request.tools) is None
        if told and valid and toolcalls.problem(mended, request.tools) is not None:
            mended, told = call, []
        calls.append(mended)
        changes += told
    return replace(reply, tool_calls=tuple(calls)), tuple(changes)


def _mend(call: ToolCall, tool: Tool, request: Request) -> tuple[ToolCall, list[str]]:
    grounds = ground_all(call.arguments, tool.properties, request.user_text)
    open_ended = {"additionalProperties", "patternProperties"} & tool.parameters.keys()
    arguments: dict[str, Any] = {}
    changes: list[str] = []
    for name, value in call.arguments.items():
        spot = f"{call.name}: {name} = {json.dumps(value, ensure_ascii=False)}"
        if name not in tool.properties and not open_ended:
            changes.append(f"{spot} taken out, the tool knows no such argument")
        elif grounds[name].status is Status.INVENTED and droppable(name, tool):
            changes.append(f"{spot} taken out, the request does not state it")
        else:
            arguments[name] = coerced(value, tool.properties.get(name))
            if json.dumps(arguments[name]) != json.dumps(value):  # 1 == True == 1.0 in Python
                written = json.dumps(arguments[name], ensure_ascii=False)
                changes.append(f"{spot} written as {written}, the schema's type")
    return ToolCall(call.name, arguments), changes


def coerced(value: Any, schema: object) -> Any:
    """The value in the schema's type where it can be read as one, else as it is."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(schema.get("enum"), list) and isinstance(value, str):
        alike = [o for o in schema["enum"] if isinstance(o, str) and _plain(o) == _plain(value)]
        return alike[0] if len(alike) == 1 and value not in schema["enum"] else value
    kind = toolcalls.type_of(schema)
    if kind == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if kind == "array":
        items = value if isinstance(value, list) else _listed(value)
        return value if items is None else [coerced(item, schema.get("items")) for item in items]
    if not isinstance(value, str):
        whole = kind == "integer" and isinstance(value, float) and value.is_integer()
        return int(value) if whole else value
    text = value.strip().replace(",", "")
    if kind in ("integer", "number"):
        with suppress(ValueError):
            return int(text)
        with suppress(ValueError, OverflowError):
            number = float(text)
            if number - number == 0 and (kind == "number" or number.is_integer()):  # it is finite
                return number if kind == "number" else int(number)
    if kind == "boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return value


def _listed(value: Any) -> list[Any] | None:
    """A value that should be a list: JSON text of one, else a list of the one value."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            read = json.loads(value)
            if isinstance(read, list):
                return read
    return None if value is None or isinstance(value, dict) else [value]


def _plain(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
