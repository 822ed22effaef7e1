"""What constrained decoding allows: Lark grammars in llguidance's dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quickstudy.toolcalls import reasoning
from quickstudy.toolcalls.formats import COMMON_FORMATS, CallFormat, marked
from quickstudy.toolcalls.python_grammar import python_rules
from quickstudy.toolcalls.reasoning import ReasoningStart
from quickstudy.toolcalls.schema import closed
from quickstudy.types import Tool

_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,  # keywords the grammar cannot express are left to the verifier
}

_WORDS = r"[^<\[{`\s](.|\n)*"
_LAYOUT = r"[ \n\t]{1,40}"  # between the parts of pretty-printed JSON; bounded, for models repeat
_NAMED = r'\{[ \n\t]{0,40}"name"[ \n\t]{0,40}:'  # how an object begins that is a call
_FENCE = r"``` ?[a-zA-Z_]{0,12}\n[ \n\t]{0,40}"


@dataclass(frozen=True)
class Grammar:
    """A Lark grammar in llguidance's dialect (see its docs/syntax.md)."""

    lark: str


def grammar(
    tools: Sequence[Tool],
    special: Mapping[str, int],
    only: CallFormat | None = None,
    max_calls: int = 8,
    formats: Sequence[CallFormat] = COMMON_FORMATS,
    reasoning_start: ReasoningStart = "none",
    must_call: bool = False,
) -> Grammar:
    """Every reply the tools allow: up to `max_calls` calls that satisfy the schemas, or words,
    or words that end in calls.

    `special` maps texts that are single tokens of the tokenizer to their ids (`<tool_call>` is
    one in Qwen2.5 and must then be produced as that token). `only` limits calls to one format;
    by default the model opens in the one it speaks, among `formats`. With `must_call` words alone
    are no reply.
    """
    offered = [only] if only else list(formats)
    after_words = [] if must_call else [name for name in offered if _follows_words(name, special)]
    words = [] if must_call else ["PLAIN", *(f"words_{_rule_name(name)}" for name in after_words)]
    start = f"start: {' | '.join([*map(_rule_name, offered), *words])}"
    lines = [start]
    for name in dict.fromkeys([*COMMON_FORMATS, *offered]):
        lines.append(f"{_rule_name(name)}: {_rule(name, special, max_calls, len(tools))}")
    lines.append(f"call: %json {json.dumps(_any_call(tools, 'arguments'))}")
    if "llama" in offered:
        lines.append(f"llama_call: %json {json.dumps(_any_call(tools, 'parameters'))}")
    if "mistral-args" in offered:
        for i, tool in enumerate(tools):
            arguments = {**closed(tool), "$id": f"tool:///{i}", "x-guidance": _OPTIONS}
            lines.append(f"arguments_{i}: %json {json.dumps(arguments)}")
            lines.append(f"marked_{i}: {_marked(tool.name, special)} arguments_{i}")
    if "python" in offered:
        lines += python_rules(tools, _OPTIONS)
    for name in after_words:
        if name == "fenced":
            lines += _fenced_after_words(tools, max_calls)
        else:
            lines.append(f"words_{_rule_name(name)}: PLAIN {_rule_name(name)}")
    lines.append(f"PLAIN: /{_WORDS}/")
    if reasoning_start != "none":
        lines[0] = start.replace("start:", "answer:")
        lines[:0] = _thinking(reasoning_start, special)
    return Grammar("\n".join(lines))


def _follows_words(name: CallFormat, special: Mapping[str, int]) -> bool:
    """May a call in this format stand after words? What marks it must not be read as words."""
    mark = {"tagged": "<tool_call>", "mistral": "[TOOL_CALLS]", "mistral-args": "[TOOL_CALLS]"}
    return name == "fenced" or mark.get(name) in special


def _fenced_after_words(tools: Sequence[Tool], most: int) -> list[str]:
    """Rules for words that come to fenced calls, in whatever layout the model writes JSON then.

    Other JSON in a fence stays words; an object that begins with a name, or a list that begins
    with one, is a call of a listed tool and ends the reply. The lazy lexeme wins over PLAIN.
    """
    further = _again(f'LAYOUT? "," LAYOUT? /{_NAMED}/ named', most - 1)
    lines = [
        r'words_fenced: begun named "\n```" | begun_list named' + further + r' LAYOUT? "]\n```"',
        f"begun[lazy]: /{_WORDS}{_FENCE}{_NAMED}/",
        rf"begun_list[lazy]: /{_WORDS}{_FENCE}\[[ \n\t]{{0,40}}{_NAMED}/",
        f'named: LAYOUT? ({" | ".join(f"rest_{i}" for i in range(len(tools)))}) LAYOUT? "}}"',
        f"LAYOUT: /{_LAYOUT}/",
    ]
    options = {
        **_OPTIONS,
        "whitespace_flexible": True,
        "whitespace_pattern": _LAYOUT,
        "item_separator": ",",
        "key_separator": ":",
    }
    for i, tool in enumerate(tools):
        arguments = {**closed(tool), "$id": f"tool:///{i}", "x-guidance": options}
        name = json.dumps(json.dumps(tool.name, ensure_ascii=False))
        key = r'LAYOUT? "," LAYOUT? "\"arguments\"" LAYOUT? ":" LAYOUT?'
        lines.append(f"rest_{i}: {name} {key} loose_{i}")
        lines.append(f"loose_{i}: %json {json.dumps(arguments)}")
    return lines


def value_grammar(schema: Mapping[str, Any]) -> Grammar:
    """One JSON value under a schema, written as `write` writes it."""
    return Grammar(f"start: %json {json.dumps({**schema, 'x-guidance': _OPTIONS})}")


def _rule_name(name: CallFormat) -> str:
    return name.replace("-", "_")


def _rule(name: CallFormat, special: Mapping[str, int], most: int, tools: int) -> str:
    call_list = '"[" call' + _again('", " call', most - 1) + ' "]"'
    if name == "tagged":
        start, end = (_literal(tag, special) for tag in ("<tool_call>", "</tool_call>"))
        tagged = f'{start} "\\n" call "\\n" {end}'
        return tagged + _again(f'"\\n" {tagged}', most - 1)
    if name == "fenced":
        return '"```json\\n" (call | json) "\\n```"'
    if name == "llama":
        tag = "<|python_tag|>"
        opened = f"{_literal(tag, special)}? " if tag in special else ""
        return f"{opened}llama_call" + _again('"; " llama_call', most - 1)
    if name == "python":
        return '"[" python_call' + _again('", " python_call', most - 1) + ' "]"'
    if name == "mistral":
        return f'{_literal("[TOOL_CALLS]", special)} " "? {call_list}'
    if name == "mistral-args":
        return f"({' | '.join(f'marked_{i}' for i in range(tools))}){{1,{most}}}"
    return call_list


def _again(rule: str, most: int) -> str:
    """Up to `most` repetitions (llguidance knows no `{0,0}`)."""
    return f" ({rule}){{0,{most}}}" if most else ""


def _any_call(tools: Sequence[Tool], key: str) -> dict[str, Any]:
    calls = [_call_schema(tool, key, f"tool:///{i}") for i, tool in enumerate(tools)]
    return {"anyOf": calls, "x-guidance": _OPTIONS}


def _call_schema(tool: Tool, key: str, identity: str) -> dict[str, Any]:
    arguments = {**closed(tool), "$id": identity}  # so that "#/$defs/..." is looked up in there
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, key: arguments},
        "required": ["name", key],
        "additionalProperties": False,
    }


def _marked(name: str, special: Mapping[str, int]) -> str:
    """The texts of `formats.marked`, its marks as tokens where they are tokens."""
    inner = marked(name).removeprefix("[TOOL_CALLS]").removesuffix("[ARGS]")
    parts = (_literal("[TOOL_CALLS]", special), json.dumps(inner), _literal("[ARGS]", special))
    return " ".join(parts)


def _thinking(start: ReasoningStart, special: Mapping[str, int]) -> list[str]:
    """Rules for a block of reasoning before the answer."""
    opened, ended = (_literal(tag, special) for tag in (reasoning.OPEN, reasoning.CLOSE))
    if reasoning.CLOSE in special:  # no text can hold that token, so the text ends before it
        block = [f"thought: THOUGHT? {ended} /\\n*/", r"THOUGHT: /(.|\n)+/"]
    else:
        block = [r"thought: until /\n*/", r"until[lazy]: /(.|\n)*<\/think>/"]
    first = "thought answer" if start == "opened" else f"({opened} thought)? answer"
    return [f"start: {first}", *block]


def _literal(text: str, special: Mapping[str, int]) -> str:
    return f"<[{special[text]}]>" if text in special else json.dumps(text)
