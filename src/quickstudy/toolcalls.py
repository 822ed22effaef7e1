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
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema_specifications import REGISTRY

from quickstudy.types import MAX_NESTING, Reply, Tool, ToolCall, nesting

CallFormat = Literal["fenced", "tagged", "json"]
_TAGGED = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)", re.DOTALL)
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_Span = tuple[int, int]


def read(text: str, tools: Sequence[Tool]) -> tuple[Reply, CallFormat | None]:
    """Splits model output into plain words and calls.

    Returns the reply and the format its calls were written in, None without calls. JSON that
    is no call of the shape `{"name": str, "arguments": object}` stays in the words. Never raises.
    """
    if not tools:
        return Reply(text.strip()), None
    found, blanked = _scan(text)
    places: tuple[tuple[CallFormat, list[_Span]], ...] = (
        ("tagged", [match.span() for match in _TAGGED.finditer(blanked)]),
        ("fenced", [match.span() for match in _FENCED.finditer(blanked)]),
        ("json", [span for span, _ in found]),
    )
    for name, spans in places:
        calls: list[ToolCall] = []
        words: list[str] = []
        end = 0
        for start, stop in spans:
            inside = [c for (s, e), some in found if start <= s and e <= stop for c in some]
            if inside:
                calls += inside
                words.append(text[end:start])
                end = stop
        if calls:
            return Reply("".join([*words, text[end:]]).strip(), tuple(calls)), name
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
    if unknown and not {"additionalProperties", "patternProperties"} & tool.parameters.keys():
        return f"{call.name} has no argument {unknown[0]!r}"
    try:
        error = best_match(_validator(_canonical(_closed(tool))).iter_errors(dict(call.arguments)))
    except (KeyboardInterrupt, SystemExit):
        raise
    # A schema with broken references is a fact about it, not a crash. Where a loop of references
    # ends the stack, Rust code under `referencing` may panic, and that is no Exception.
    except BaseException as failure:
        return f"the schema of {call.name} cannot be applied: {failure}"
    return None if error is None else f"{call.name}: {error.message}"


def equal(left: Sequence[ToolCall], right: Sequence[ToolCall], tools: Sequence[Tool] = ()) -> bool:
    """The same set of calls: order-free, counts equal, defaults filled, values by schema type."""
    return canonical(left, tools) == canonical(right, tools)


def canonical(calls: Sequence[ToolCall], tools: Sequence[Tool] = ()) -> str:
    """One text for all that `equal` holds equal."""
    return "\n".join(sorted(_key(call, tools) for call in calls))


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
    calls = [_call_schema(tool, f"tool:///{i}") for i, tool in enumerate(tools)]
    schema = {"anyOf": calls, "x-guidance": options}
    start, end = (_literal(tag, special) for tag in ("<tool_call>", "</tool_call>"))
    tagged = f'{start} "\\n" call "\\n" {end}'
    rules = {
        "tagged": tagged + _again(f'"\\n" {tagged}', max_calls - 1),
        "fenced": '"```json\\n" (call | json) "\\n```"',
        "json": '"[" call' + _again('", " call', max_calls - 1) + ' "]"',
    }
    formats = [only] if only else list(rules)
    lines = [f"start: {' | '.join([*formats, 'PLAIN'])}"]
    lines += [f"{name}: {rule}" for name, rule in rules.items()]
    lines += [f"call: %json {json.dumps(schema)}", r"PLAIN: /[^<\[{`\s](.|\n)*/"]
    return Grammar("\n".join(lines))


def _again(rule: str, most: int) -> str:
    """Up to `most` repetitions (llguidance knows no `{0,0}`)."""
    return f" ({rule}){{0,{most}}}" if most else ""


def value_grammar(schema: Mapping[str, Any]) -> Grammar:
    """One JSON value under a schema, written as `write` writes it."""
    options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    full = {**schema, "x-guidance": {**options, "lenient": True}}
    return Grammar(f"start: %json {json.dumps(full)}")


def _closed(tool: Tool) -> dict[str, Any]:
    """The tool's schema; it knows no other arguments unless it says so."""
    return {"additionalProperties": False, "type": "object", **tool.parameters}


def _call_schema(tool: Tool, identity: str) -> dict[str, Any]:
    arguments = {**_closed(tool), "$id": identity}  # so that "#/$defs/..." is looked up in there
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _literal(text: str, special: Mapping[str, int]) -> str:
    return f"<[{special[text]}]>" if text in special else json.dumps(text)


def _scan(text: str) -> tuple[list[tuple[_Span, list[ToolCall]]], str]:
    """Finds where calls stand in free text, and blanks every JSON value in a copy of it.

    What a string inside JSON holds (a fence, a tag) is no markup; the copy does not show it.
    """
    found: list[tuple[_Span, list[ToolCall]]] = []
    blanked: list[str] = []
    position = 0
    while match := _OPENING.search(text, position):
        start = match.start()
        blanked.append(text[position:start])
        try:
            value, position = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            blanked.append(text[start])
            position = start + 1
            continue
        blanked.append("\0" * (position - start))
        # the value of a key belongs to an object that is cut off or broken
        calls = [] if _KEY.search(text, max(0, start - 80), start) else list(_calls_in(value))
        if calls:
            found.append(((start, position), calls))
    blanked.append(text[position:])
    return found, "".join(blanked)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


_OPENING = re.compile(r"[{\[]")
_KEY = re.compile(r'"\s*:\s*\Z')
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


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
                arguments = _DECODER.decode(arguments)
            except (ValueError, RecursionError):
                continue
        if not isinstance(name, str) or not isinstance(arguments, dict):
            continue
        if nesting(arguments) <= MAX_NESTING:
            # half a surrogate pair, which JSON can spell and UTF-8 cannot, becomes "?"
            text = json.dumps([name, arguments], ensure_ascii=False).encode("utf-8", "replace")
            yield ToolCall(*json.loads(text))


def _dump(call: ToolCall, tool: Tool | None) -> str:
    arguments = _ordered(dict(call.arguments), tool.parameters if tool else {})
    return json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)


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
    kind = type_of(schema)
    if isinstance(value, str):
        if kind in ("integer", "number"):
            for read_number in (int, float):  # int first: floats round long numbers
                with suppress(ValueError):
                    return _number(read_number(value.replace(",", "")))
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


def _canonical(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, sort_keys=True)


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    # the default registry would fetch remote references, file:// among them
    return Draft202012Validator(json.loads(schema), registry=REGISTRY)
