"""What kind of token each choice of a draft is, told from the draft's text alone.

A model can be sure of the form of its answer and unsure of a fact in it, so margins are only
compared with margins of the same kind. Knows nothing about models.

| kind             | in `{"name": "dim", "arguments": {"room": "attic", "levels": [1, 2]}}`   |
|------------------|---------------------------------------------------------------------------|
| `structure`      | brackets, colons, commas, `"name"`, `"arguments"`; fences and tags around |
| `tool_name`      | `"dim"`                                                                   |
| `argument_name`  | `"room"`, `"levels"`                                                      |
| `argument_value` | `"attic"`, `[1, 2]`: all of a value, however deep                         |
| `words`          | everything that is no call                                                |

A string's quotes belong to it: the closing one decides where it ends. Calls that are cut off or
malformed are read as far as they go. Calls written otherwise than in JSON are found by looking
for their names and values in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from quickstudy.decoding import Choice, Generation
from quickstudy.types import ToolCall

Kind = Literal["structure", "tool_name", "argument_name", "argument_value", "words"]

_START = re.compile(r'[\[{]\s*(?:\{\s*)?"')
_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\]:,]|[^\s"{}\[\]:,]+|\s+', re.DOTALL)
_MARKUP = re.compile(r"<[^<>\s]{1,40}>|```\w*|\[[A-Z_]{1,40}\]|[\s\[\],;]+")
_NAMES = frozenset({"name", "function", "tool"})
_ARGUMENTS = frozenset({"arguments", "parameters"})
_KEYS = _NAMES | _ARGUMENTS | {"type", "id"}


def choice_kinds(
    decode: Callable[[Sequence[int]], str], draft: Generation, calls: Sequence[ToolCall] = ()
) -> list[Kind]:
    """The kind of each of the draft's choices: that of its token's first visible character.

    The choice to stop is words after words, and structure after a call.

    Args:
        decode: tokens to text.
        calls: what was read from the draft.
    """
    text = decode(draft.ids)
    marks = character_kinds(text, calls)
    found: list[Kind] = []
    for choice in draft.choices:
        if choice.index >= len(draft.ids) or not marks:
            found.append("words" if not marks or marks[-1] == "words" else "structure")
            continue
        start, end = choice_span(decode, draft, choice)
        start = min(start, len(marks) - 1)
        visible = (place for place in range(start, min(end, len(marks))) if text[place].strip())
        found.append(marks[next(visible, start)])
    return found


def choice_span(
    decode: Callable[[Sequence[int]], str], draft: Generation, choice: Choice
) -> tuple[int, int]:
    """Where the characters of a choice's token begin and end in the draft's text."""
    return len(decode(draft.ids[: choice.index])), len(decode(draft.ids[: choice.index + 1]))


def character_kinds(text: str, calls: Sequence[ToolCall] = ()) -> list[Kind]:
    """The kind of each character. Never raises."""
    marks: list[Kind] = ["words"] * len(text)
    position, end = 0, 0
    while match := _START.search(text, position):
        region, position = _region(text, match.start())
        if region is None:  # JSON, but no call
            continue
        _mark_markup(text, end, match.start(), marks)
        marks[match.start() : position] = region
        end = position
    if end:
        _mark_markup(text, end, len(text), marks)
    elif calls:
        _search(text, calls, marks)
    return marks


def value_span(text: str, call: ToolCall, name: str) -> tuple[int, int] | None:
    """Where the value of an argument stands in the text of its call, without a string's quotes.

    None where that cannot be told: the text writes values that the call does not have.
    """
    runs = groupby(enumerate(character_kinds(text, [call])), key=lambda at_kind: at_kind[1])
    values = [[at for at, _ in run] for kind, run in runs if kind == "argument_value"]
    if len(values) != len(call.arguments):
        return None
    places = values[list(call.arguments).index(name)]  # in the order of the arguments
    start, end = places[0], places[-1] + 1
    quoted = end - start > 1 and text[start] == text[end - 1] and text[start] in "\"'"
    return (start + 1, end - 1) if quoted else (start, end)


@dataclass
class _Frame:
    """An open bracket, and what the object or list is."""

    role: Literal["call", "arguments", "value"]
    is_object: bool
    key: str | None = None  # the last one; None where a key comes next

    def inner(self) -> _Frame:
        """What opens inside this one."""
        if self.role != "call":
            return _Frame("value", True)
        return _Frame("arguments" if self.key in _ARGUMENTS else "call", True)


def _region(text: str, start: int) -> tuple[list[Kind] | None, int]:
    """The kinds of a JSON value, which may be cut off, and where it ends; None if it is no call."""
    marks: list[Kind] = []
    frames: list[_Frame] = []
    first_key: str | None = None
    position = start
    while match := _LEXEME.match(text, position):
        lexeme, position = match.group(), match.end()
        frame = frames[-1] if frames else _Frame("call", False)
        kind: Kind = "argument_value" if frame.role == "value" else "structure"
        if lexeme in ("{", "["):
            inner = frame.inner()
            inner.is_object = lexeme == "{"
            frames.append(inner)
            kind = "argument_value" if inner.role == "value" else "structure"
        elif lexeme in ("}", "]"):
            frames.pop()
        elif lexeme == ",":
            frame.key = None
        elif lexeme != ":" and not lexeme.isspace():
            if frame.is_object and frame.key is None:
                frame.key = lexeme.strip('"')
                first_key = frame.key if first_key is None else first_key
                kind = "argument_name" if frame.role == "arguments" else kind
            else:
                kind = _scalar(frame)
        marks += [kind] * len(lexeme)
        if not frames:
            break
    closed = text[start:position].count('"') > 1
    known = first_key in _KEYS if closed else _begins_key(first_key)
    return (marks if known else None), position


def _scalar(frame: _Frame) -> Kind:
    if frame.role != "call":
        return "argument_value"
    if frame.key in _NAMES:
        return "tool_name"
    # some models write the arguments as one string of JSON
    return "argument_value" if frame.key in _ARGUMENTS else "structure"


def _begins_key(start: str | None) -> bool:
    return any(key.startswith(start or "") for key in _KEYS)


def _mark_markup(text: str, start: int, end: int, marks: list[Kind]) -> None:
    for match in _MARKUP.finditer(text, start, end):
        marks[match.start() : match.end()] = ["structure"] * len(match.group())


def _search(text: str, calls: Sequence[ToolCall], marks: list[Kind]) -> None:
    """Marks calls written in another way: names and values in the order they come."""
    marks[:] = ["structure"] * len(text)
    position = 0
    for call in calls:
        wanted: list[tuple[Kind, list[str]]] = [("tool_name", [call.name])]
        for name, value in call.arguments.items():
            spellings = [json.dumps(value, ensure_ascii=False), str(value), repr(value)]
            wanted += [("argument_name", [name]), ("argument_value", spellings)]
        for kind, spellings in wanted:
            places = [(text.find(s, position), s) for s in spellings if s]
            found = [(place, -len(s), s) for place, s in places if place >= 0]
            if found:
                place, _, spelling = min(found)
                position = place + len(spelling)
                marks[place:position] = [kind] * len(spelling)
