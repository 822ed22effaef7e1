"""Text to tool calls and back; schema checks; equality. No torch, no model.

A *call format* is how one model family writes calls. Small models speak one natively and are
wrecked by practice in another, so the format of the draft is read here (`read`), and practice
examples are written in it (`write`). Model output is data: `read` never raises.

| format   | looks like                                                      | spoken by       |
|----------|-----------------------------------------------------------------|-----------------|
| `fenced` | a Markdown block ```` ```json ```` holding an object, or a list | Qwen2.5-Coder   |
| `tagged` | `<tool_call>` JSON object `</tool_call>`, once a call           | Qwen2.5, Hermes |
| `json`   | a bare JSON list of objects                                     | our own prompt  |

(transformers' own `tokenizer.parse_response` needs a response template in the tokenizer; files
converted from GGUF have none, and it knows no fenced blocks, so reading is done here.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from quickstudy.types import Reply, Tool, ToolCall

CallFormat = Literal["fenced", "tagged", "json"]
_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_FENCED = re.compile(r"```[a-zA-Z]*\n?(.*?)(?:```|$)", re.DOTALL)


def read(text: str, tools: Sequence[Tool]) -> tuple[Reply, CallFormat | None]:
    """Splits model output into plain words and calls.

    Returns the reply and the format its calls were written in, None without calls. JSON that
    is no call of the shape `{"name": str, "arguments": object}` stays in the words. Never raises.
    """
    if not tools:
        return Reply(text.strip()), None
    formats: tuple[tuple[CallFormat, re.Pattern[str] | None], ...] = (
        ("tagged", _TAGGED),
        ("fenced", _FENCED),
        ("json", None),
    )
    for name, pattern in formats:
        if pattern is None:
            calls, words = _scan(text)
        else:
            calls = [c for match in pattern.finditer(text) for c in _scan(match.group(1))[0]]
            words = pattern.sub("", text)
        if calls:
            return Reply(words.strip(), tuple(calls)), name
    return Reply(text.strip()), None


def write(calls: Sequence[ToolCall], call_format: CallFormat, tools: Sequence[Tool]) -> str:
    """Writes calls exactly as constrained decoding makes the model write them.

    Arguments come in the schema's order, separators are `", "` and `": "`.
    """
    listed = {tool.name: tool for tool in tools}
    texts = [_dump(call, listed.get(call.name)) for call in calls]
    if call_format == "tagged":
        return "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in texts)
    if call_format == "fenced":
        body = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        return f"```json\n{body}\n```"
    return f"[{', '.join(texts)}]"


def opening(name: str, call_format: CallFormat) -> str:
    """How an answer that calls `name` begins, up to the end of the name."""
    start = {"tagged": "<tool_call>\n", "fenced": "```json\n", "json": "["}[call_format]
    return f'{start}{{"name": {json.dumps(name, ensure_ascii=False)},'


def problem(call: ToolCall, tools: Sequence[Tool]) -> str | None:
    """None if the call is valid under the listed tools, else what is wrong with it."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        return f"no tool is called {call.name!r}"
    unknown = [name for name in call.arguments if name not in tool.properties]
    if unknown and tool.parameters.get("additionalProperties") is not True:
        return f"{call.name} has no argument {unknown[0]!r}"
    try:
        error = best_match(
            _validator(_canonical(tool.parameters)).iter_errors(dict(call.arguments))
        )
    except Exception as failure:  # a schema with broken references: a fact about it, not a crash
        return f"the schema of {call.name} cannot be applied: {failure}"
    return None if error is None else f"{call.name}: {error.message}"


def equal(left: Sequence[ToolCall], right: Sequence[ToolCall], tools: Sequence[Tool] = ()) -> bool:
    """The same set of calls: order-free, counts equal, defaults filled, values by schema type."""
    return sorted(_key(call, tools) for call in left) == sorted(_key(c, tools) for c in right)


@dataclass(frozen=True)
class Grammar:
    """A Lark grammar in llguidance's dialect (see its docs/syntax.md)."""

    lark: str


def grammar(
    tools: Sequence[Tool],
    special: Mapping[str, int],
    only: CallFormat | None = None,
    max_calls: int = 8,
) -> Grammar:
    """Every reply the tools allow: up to `max_calls` calls that satisfy the schemas, or words.

    `special` maps texts that are single tokens of the tokenizer to their ids (`<tool_call>` is
    one in Qwen2.5 and must then be produced as that token). `only` limits calls to one format;
    by default the model opens in the one it speaks.
    """
    options = {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
        "lenient": True,  # keywords the grammar cannot express are left to the verifier
    }
    schema = {"anyOf": [_call_schema(tool) for tool in tools], "x-guidance": options}
    start, end = (_literal(tag, special) for tag in ("<tool_call>", "</tool_call>"))
    more = f"{{0,{max_calls - 1}}}"  # small models repeat themselves without end
    rules = {
        "tagged": f'{start} "\\n" call "\\n" {end} ("\\n" {start} "\\n" call "\\n" {end}){more}',
        "fenced": '"```json\\n" (call | json) "\\n```"',
        "json": f'"[" call (", " call){more} "]"',
    }
    formats = [only] if only else list(rules)
    lines = [f"start: {' | '.join([*formats, 'PLAIN'])}"]
    lines += [f"{name}: {rule}" for name, rule in rules.items()]
    lines += [f"call: %json {json.dumps(schema)}", r"PLAIN: /[^<\[{`\s](.|\n)*/"]
    return Grammar("\n".join(lines))


def value_grammar(schema: Mapping[str, Any]) -> Grammar:
    """One JSON value under a schema, written as `write` writes it."""
    options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    full = {**schema, "x-guidance": {**options, "lenient": True}}
    return Grammar(f"start: %json {json.dumps(full)}")


def _call_schema(tool: Tool) -> dict[str, Any]:
    arguments = {"additionalProperties": False, "type": "object", **tool.parameters}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _literal(text: str, special: Mapping[str, int]) -> str:
    return f"<[{special[text]}]>" if text in special else json.dumps(text)


def _scan(text: str) -> tuple[list[ToolCall], str]:
    """Finds every call in free text; returns them and the text without them."""
    calls: list[ToolCall] = []
    words: list[str] = []
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        start = min(
            (i for i in (text.find("{", position), text.find("[", position)) if i >= 0), default=-1
        )
        if start < 0:
            break
        words.append(text[position:start])
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            words.append(text[start])
            position = start + 1
            continue
        found = list(_calls_in(value))
        if found:
            calls += found
        else:
            words.append(text[start:position])
    words.append(text[position:])
    return calls, "".join(words)


def _calls_in(value: object) -> Iterator[ToolCall]:
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("function"), dict):
            item = item["function"]
        name = item.get("name")
        arguments = item.get("arguments", item.get("parameters"))
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                continue
        if isinstance(name, str) and isinstance(arguments, dict):
            yield ToolCall(name, arguments)


def _dump(call: ToolCall, tool: Tool | None) -> str:
    order = {name: i for i, name in enumerate(tool.properties if tool else ())}
    arguments = dict(sorted(call.arguments.items(), key=lambda kv: order.get(kv[0], len(order))))
    return json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)


def _key(call: ToolCall, tools: Sequence[Tool]) -> str:
    tool = next((tool for tool in tools if tool.name == call.name), None)
    properties = tool.properties if tool else {}
    arguments = {
        name: _normal(value, properties.get(name)) for name, value in call.arguments.items()
    }
    for name, schema in properties.items():
        if name not in arguments and isinstance(schema, Mapping) and "default" in schema:
            arguments[name] = _normal(schema["default"], schema)
    return json.dumps([call.name, arguments], sort_keys=True)


def _normal(value: Any, schema: object) -> Any:
    """The value as its schema type reads it: `"5"` is 5 for an integer, 5.0 is 5 for a number."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if isinstance(value, str):
        if kind in ("integer", "number"):
            try:
                return _number(float(value.replace(",", "")))
            except ValueError:
                return value.strip()
        if kind == "boolean" and value.lower() in ("true", "false"):
            return value.lower() == "true"
        return value.strip()
    if isinstance(value, bool) or value is None:
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


def _number(value: float) -> float:
    return int(value) if value == value and abs(value) < 2**53 and value == int(value) else value


def _canonical(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, sort_keys=True)


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema))
