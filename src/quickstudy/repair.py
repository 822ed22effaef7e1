"""The verifier's rules applied to an answer: what can be put right without learning anything.

`repair`: unknown arguments go; arguments that the schema does not mark as required go if their
value is clearly invented (`ground.Status.INVENTED`) and nobody else in the conversation stated it;
a part of an object that the request spells out becomes the whole of it; values are brought to the
schema's type. It is free, so it is also what learning has to beat.
`keep_stated` holds a practised answer against the draft. No model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from quickstudy import toolcalls
from quickstudy.augmentation.substitution import droppable
from quickstudy.grounding import literals
from quickstudy.grounding.ground import Ground, Status, ground_all, ground_call, stands, surfaces
from quickstudy.grounding.phrases import schema_of
from quickstudy.types import MAX_NESTING, Reply, Request, Tool, ToolCall, nesting

_COMPOSED = ("$ref", "allOf", "anyOf", "oneOf")  # may name arguments elsewhere
_NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?(e[+-]?\d{1,3})?", re.A | re.I)


def repair(reply: Reply, request: Request) -> tuple[Reply, tuple[str, ...]]:
    """The reply under the rules, and each change as one sentence.

    A call that was valid stays valid: it is left alone if the changes would make it invalid. So
    are calls of tools that are not listed. Never raises on what a model wrote.
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


def keep_stated(practised: Reply, draft: Reply, request: Request) -> tuple[Reply, tuple[str, ...]]:
    """The practised reply with what the draft had taken from the request and practice has lost.

    Practice teaches with other values, and now and then one of them gets into the answer, or an
    argument goes missing. Where both replies make the same calls, an argument that the draft took
    from the request's words, as they are or in another form, comes back if the practised one is
    absent or says nothing of the request, unless another argument has those words now. Each change
    is told as one sentence.
    """
    names = [[call.name for call in reply.tool_calls] for reply in (practised, draft)]
    if names[0] != names[1]:
        return practised, ()
    calls: list[ToolCall] = []
    changes: list[str] = []
    for call, drafted in zip(practised.tool_calls, draft.tool_calls, strict=True):
        tool = request.tool(call.name)
        kept, told = _kept(call, drafted, tool, request) if tool else (call, [])
        if told and toolcalls.problem(kept, request.tools) is not None:
            kept, told = call, []
        calls.append(kept)
        changes += told
    return replace(practised, tool_calls=tuple(calls)), tuple(changes)


def _kept(
    call: ToolCall, drafted: ToolCall, tool: Tool, request: Request
) -> tuple[ToolCall, list[str]]:
    text, arguments, changes = request.user_text, dict(call.arguments), list[str]()
    before = ground_all(drafted.arguments, tool.properties, text)
    after = ground_all(call.arguments, tool.properties, text)
    for name, value in drafted.arguments.items():
        if not _stands(before[name]) or (name in after and _stands(after[name])):
            continue
        if surfaces([before[name]]) & surfaces(of for at, of in after.items() if at != name):
            continue
        spot = f"{call.name}: {name} = {json.dumps(value, ensure_ascii=False)}"
        lost = json.dumps(arguments[name], ensure_ascii=False) if name in arguments else "nothing"
        changes.append(f"{spot} of the draft kept, practice had made {lost} of it")
        arguments[name] = value
    return ToolCall(call.name, arguments), changes


def _stands(found: Ground) -> bool:
    return found.there and not found.guess


def _mend(call: ToolCall, tool: Tool, request: Request) -> tuple[ToolCall, list[str]]:
    grounds = ground_call(call, tool, request)
    others = request.others_text  # a home town stated there is not the model's invention
    arguments: dict[str, Any] = {}
    changes: list[str] = []
    for name, value in call.arguments.items():
        spot = f"{call.name}: {name} = {json.dumps(value, ensure_ascii=False)}"
        raw = tool.properties.get(name)
        invented = grounds[name].status is Status.INVENTED and droppable(name, tool)
        if _unknown(name, tool):
            changes.append(f"{spot} taken out, the tool knows no such argument")
        elif invented and not stands(value, schema_of(tool.properties, name), others):
            changes.append(f"{spot} taken out, the request does not state it")
        elif (spelt := _spelt_out(grounds[name])) is not None:
            arguments[name] = spelt
            written = json.dumps(spelt, ensure_ascii=False)
            changes.append(f"{spot} written as {written}, the object that the request spells out")
        else:
            arguments[name] = coerced(value, raw)
            if json.dumps(arguments[name]) != json.dumps(value):  # 1 == True == 1.0 in Python
                written = json.dumps(arguments[name], ensure_ascii=False)
                changes.append(f"{spot} written as {written}, the schema's type")
    return ToolCall(call.name, arguments), changes


def _spelt_out(found: Ground) -> Any:
    """The object of the request that a value is a part of; None where it is none, or all of it."""
    if found.kind is not literals or not found.guess or found.phrase is None:
        return None
    return literals.write(found.phrase, literals.FORMAT)


def _unknown(name: str, tool: Tool) -> bool:
    """Whether the schema surely has no such argument."""
    schema = tool.parameters
    if name in tool.properties or {"patternProperties", *_COMPOSED} & schema.keys():
        return False
    return schema.get("additionalProperties", False) is False


def coerced(value: Any, schema: object) -> Any:
    """The value in the schema's type where it can be read as one, else as it is."""
    if not isinstance(schema, Mapping):
        return value
    options = schema.get("enum")
    if isinstance(options, list) and isinstance(value, str) and value not in options:
        alike = [o for o in options if isinstance(o, str) and _plain(o) == _plain(value)]
        if len(alike) == 1:
            return alike[0]
    kind = toolcalls.type_of(schema)
    if kind == "array":
        items = value if isinstance(value, list) else _listed(value)
        return value if items is None else [coerced(item, schema.get("items")) for item in items]
    if kind == "object" and isinstance(value, dict):
        inner = schema.get("properties", {})
        return {name: coerced(part, inner.get(name)) for name, part in value.items()}
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if kind == "string":
            return str(value)
        whole = kind == "integer" and isinstance(value, float) and value.is_integer()
        return int(value) if whole else value
    if not isinstance(value, str):
        return value
    if kind in ("integer", "number"):
        return _number(value, whole=kind == "integer")
    if kind == "boolean" and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return value


def _number(text: str, *, whole: bool) -> int | float | str:
    """The number a text spells, or the text. A decimal comma is not told from a thousands one."""
    if not _NUMBER.fullmatch(text.strip()):
        return text
    digits = text.strip().replace(",", "")
    with suppress(ValueError):  # also: more digits than Python reads
        return int(digits)
    number = float(digits)
    if not math.isfinite(number) or (whole and not number.is_integer()):
        return text
    return int(number) if whole else number


def _listed(value: Any) -> list[Any] | None:
    """A value that should be a list: JSON text of one, else a list of the one value."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            read = json.loads(value)
            # NaN, half a surrogate pair: what could not be written as JSON again is no list
            json.dumps(read, ensure_ascii=False, allow_nan=False).encode()
            if isinstance(read, list) and nesting(read) <= MAX_NESTING:
                return read
    return None if value is None or isinstance(value, dict) else [value]


def _plain(text: str) -> str:
    """An option's name without the accidents of writing; `C` and `C++` stay two options."""
    return re.sub(r"[\s_-]+", " ", text.strip()).casefold()
