"""How each call format is written. `write` is exactly what constrained decoding would produce."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from quickstudy.types import Tool, ToolCall

CallFormat = Literal["tagged", "fenced", "json", "llama", "python", "mistral", "mistral-args"]
COMMON_FORMATS: tuple[CallFormat, ...] = ("tagged", "fenced", "json")  # offered to every model

_PLAIN_NAME = re.compile(r"[^\W\d][\w.-]*")


def write(calls: Sequence[ToolCall], call_format: CallFormat, tools: Sequence[Tool]) -> str:
    """Writes calls exactly as constrained decoding makes the model write them.

    Arguments come in the schema's order, separators are `", "` and `": "`.
    """
    listed = {tool.name: tool for tool in tools}
    ordered = [
        (call.name, _ordered(dict(call.arguments), tool.parameters if tool else {}))
        for call in calls
        for tool in [listed.get(call.name)]
    ]
    if call_format == "python":
        return f"[{', '.join(_python_call(name, arguments) for name, arguments in ordered)}]"
    if call_format == "mistral-args":
        return "".join(f"{marked(name)}{_dump(arguments)}" for name, arguments in ordered)
    key = "parameters" if call_format == "llama" else "arguments"
    texts = [_dump({"name": name, key: arguments}) for name, arguments in ordered]
    if call_format == "tagged":
        return "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in texts)
    if call_format == "fenced":
        body = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        return f"```json\n{body}\n```"
    if call_format == "llama":
        return "; ".join(texts)
    body = f"[{', '.join(texts)}]"
    return f"[TOOL_CALLS] {body}" if call_format == "mistral" else body


def opening(name: str, call_format: CallFormat) -> str:
    """How an answer that calls `name` begins, up to the end of the name."""
    if call_format == "python":
        return f"[{bare(name)}("
    if call_format == "mistral-args":
        return marked(name)
    start = {
        "tagged": "<tool_call>\n",
        "fenced": "```json\n",
        "json": "[",
        "llama": "",
        "mistral": "[TOOL_CALLS] [",
    }[call_format]
    return f'{start}{{"name": {_dump(name)},'


def bare(name: str) -> str:
    """A name as it stands in code; in JSON quotes where it would not be read as one name."""
    return name if _PLAIN_NAME.fullmatch(name) else _dump(name)


def marked(name: str) -> str:
    return f"[TOOL_CALLS]{bare(name)}[ARGS]"


def python_literal(value: Any) -> str:
    """A JSON value as a Python literal; strings are quoted and escaped as in JSON."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(python_literal, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_dump(k)}: {python_literal(v)}' for k, v in value.items())}}}"
    return _dump(value)


def _python_call(name: str, arguments: Mapping[str, Any]) -> str:
    told = ", ".join(f"{bare(key)}={python_literal(value)}" for key, value in arguments.items())
    return f"{bare(name)}({told})"


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _ordered(value: Any, schema: object) -> Any:
    """The value with the keys of its objects in the schema's order."""
    schema = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, list):
        return [_ordered(item, schema.get("items")) for item in value]
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        keys = [key for key in inner if key in value] + [key for key in value if key not in inner]
        return {key: _ordered(value[key], inner.get(key)) for key in keys}
    return value
