"""Calls written as Python: `[f(a=1, b="x"), g()]`. Nothing is ever run.

Values are read by `ast.literal_eval`; around them a scanner of our own reads what Python's
parser refuses and models write all the same: `from="Oslo"`, tool names with dashes, `true`.
Positional arguments are mapped by the order of the schema's properties.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

from quickstudy.types import MAX_NESTING, Tool, ToolCall, nesting

LIST = re.compile(r'\[\s*(?:print\s*\(\s*)?(?:[^\W\d][\w.-]*|"(?:[^"\\\n]|\\.)*")\s*\(')
_NAME = re.compile(r'[^\W\d][\w.-]*|"(?:[^"\\\n]|\\.)*"')
_KEY = re.compile(r'\s*([^\W\d][\w.-]*|"(?:[^"\\\n]|\\.)*")\s*=(?!=)')
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"""|\'\'\'(?:[^\\]|\\.)*?\'\'\'|"(?:[^"\\\n]|\\.)*"'
                     r"|'(?:[^'\\\n]|\\.)*'", re.DOTALL)  # fmt: skip
_GAP = re.compile(r"[\s;,]*(?:#[^\n]*\n[\s;,]*)*")
_SPACE = re.compile(r"\s*")
_JSON_WORDS = {"true": True, "false": False, "null": None}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class _UnreadableError(ValueError):
    pass


def read_list(text: str, start: int, tools: Sequence[Tool]) -> tuple[list[ToolCall], int] | None:
    """The calls of a list that opens at `start`, and where it ends; None if it is none.

    Of a tool that is not listed a call counts only with keywords alone.
    """
    try:
        return _list(text, start, {tool.name: tool for tool in tools})
    except (ValueError, RecursionError):
        return None


def read_code(code: str, tools: Sequence[Tool]) -> list[ToolCall] | None:
    """The calls of a piece of code that is nothing but calls of listed tools, else None."""
    listed = {tool.name: tool for tool in tools}
    calls: list[ToolCall] = []
    position = _skip(_GAP, code, 0)
    try:
        while position < len(code):
            if code[position] == "[":
                some, position = _list(code, position, listed)
            else:
                one, position = _call(code, position, listed)
                some = [one]
            calls += some
            position = _skip(_GAP, code, position)
    except (ValueError, RecursionError):
        return None
    return calls if calls and all(call.name in listed for call in calls) else None


def _list(text: str, start: int, listed: dict[str, Tool]) -> tuple[list[ToolCall], int]:
    """A list that is cut off after a comma has the calls before it."""
    calls: list[ToolCall] = []
    position = start + 1
    while True:
        try:
            call, end = _call(text, _skip(_SPACE, text, position), listed)
        except ValueError:
            if not calls:
                raise
            return calls, position
        calls.append(call)
        position = _skip(_SPACE, text, end)
        if text[position : position + 1] == ",":
            position = _skip(_SPACE, text, position + 1)
        elif text[position : position + 1] not in ("]", ""):
            raise _UnreadableError("neither a comma nor the end")
        if text[position : position + 1] in ("]", ""):
            return calls, min(position + 1, len(text))


def _call(text: str, start: int, listed: dict[str, Tool]) -> tuple[ToolCall, int]:
    match = _NAME.match(text, start)
    if not match:
        raise _UnreadableError("no name")
    name = json.loads(match[0]) if match[0].startswith('"') else match[0]
    opened = _skip(_SPACE, text, match.end())
    if text[opened : opened + 1] != "(":
        raise _UnreadableError("no call")
    if name == "print" and name not in listed:
        call, end = _call(text, _skip(_SPACE, text, opened + 1), listed)
        end = _skip(_SPACE, text, end)
        if text[end : end + 1] != ")":
            raise _UnreadableError("print of more than a call")
        return call, end + 1
    parts, end = _parts(text, opened)
    name = _listed_name(name, listed)
    return ToolCall(name, _arguments(parts, listed.get(name))), end


def _listed_name(name: str, listed: dict[str, Tool]) -> str:
    """`default_api.f` and `f.call` are f, where f is listed and they are not."""
    if name in listed:
        return name
    short = name.removesuffix(".call")
    return next((n for n in (short, short.rpartition(".")[2]) if n in listed), name)


def _parts(text: str, opened: int) -> tuple[list[str], int]:
    """The texts between the commas of a bracket, and where the bracket ends."""
    parts: list[str] = []
    begin, position, expected = opened + 1, opened, [""]
    while position < len(text):
        letter = text[position]
        if letter in "\"'":
            string = _STRING.match(text, position)
            if not string:
                break
            position = string.end()
            continue
        position += 1
        if letter in _CLOSING:
            expected.append(_CLOSING[letter])
            if len(expected) > MAX_NESTING + 3:  # seen at once, not at the end of a long text
                break
        elif letter in ")]}":
            if expected.pop() != letter:
                break
            if len(expected) == 1:
                return [p for p in (*parts, text[begin : position - 1]) if p.strip()], position
        elif letter == "," and len(expected) == 2:
            parts.append(text[begin : position - 1])
            begin = position
    raise _UnreadableError("the bracket does not end")


def _arguments(parts: list[str], tool: Tool | None) -> dict[str, Any]:
    order = list(tool.properties) if tool else []
    arguments: dict[str, Any] = {}
    for index, part in enumerate(parts):
        key = _KEY.match(part)
        if key:
            name = json.loads(key[1]) if key[1].startswith('"') else key[1]
        elif index < len(order):
            name = order[index]
        else:
            raise _UnreadableError("an argument without a name")
        if name in arguments:
            raise _UnreadableError("an argument twice")
        arguments[name] = literal(part[key.end() if key else 0 :])
    if nesting(arguments) > MAX_NESTING:
        raise _UnreadableError("nested too deep")
    return arguments


def literal(text: str) -> Any:
    """A value written in Python or JSON, as a JSON value.

    Raises:
        ValueError: if it is neither; RecursionError if it is nested too deep for Python.
    """
    text = text.strip()
    if text in _JSON_WORDS:
        return _JSON_WORDS[text]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" is an escape that Python warns of
            return _json(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError):
        try:
            return _json(json.loads(text, parse_constant=_refuse))
        except ValueError as error:
            raise _UnreadableError(f"no literal: {text[:40]!r}") from error


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _json(value: Any) -> Any:
    """A Python literal as a JSON value."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise _UnreadableError("a key that is no text")
        return {_json(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, str):  # half a surrogate pair becomes "?", as in JSON
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise _UnreadableError(f"{type(value).__name__} is no JSON")


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position
