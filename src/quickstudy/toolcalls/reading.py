"""Finds calls in whatever a model writes. Never raises."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from quickstudy.toolcalls import pythonic, reasoning
from quickstudy.toolcalls.formats import CallFormat
from quickstudy.types import MAX_NESTING, Reply, Tool, ToolCall, nesting

_TAGGED = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)", re.DOTALL)
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_CODE = re.compile(r"```(?:tool_code|python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_LINE = re.compile(r"^[ \t]*(?:<\|python_tag\|>)?(?=[^\W\d][\w.-]*[ \t]*\()(.*)$", re.MULTILINE)
_BEFORE = re.compile(r"<\|python_(?:tag|start)\|>\s*\Z")
_AFTER = re.compile(r"\s*<\|python_end\|>")
_BETWEEN = re.compile(r"[\s;,]*")


@dataclass(frozen=True)
class _Found:
    """Where calls stand in the text, and what kind of writing they are."""

    start: int
    end: int
    calls: tuple[ToolCall, ...]
    kind: Literal["json", "llama", "python", "mistral", "mistral-args"]


def read(text: str, tools: Sequence[Tool]) -> tuple[Reply, CallFormat | None]:
    """Splits model output into reasoning, plain words and calls.

    Returns the reply and the format its calls were written in, None without calls. JSON that
    is no call stays in the words. Never raises.
    """
    thought, text = reasoning.split(text)
    if not tools:
        return Reply(text.strip(), reasoning=thought), None
    found, blanked = _scan(text, tools)
    for call_format, hits in _places(text, found, blanked, tools):
        if hits:
            calls = tuple(call for hit in hits for call in hit.calls)
            return Reply(_words(text, hits), calls, thought), call_format
    return Reply(text.strip(), reasoning=thought), None


def _places(
    text: str, found: list[_Found], blanked: str, tools: Sequence[Tool]
) -> Iterator[tuple[CallFormat, list[_Found]]]:
    """Where calls may stand, what is marked most clearly first."""
    for kind in ("mistral", "mistral-args"):
        yield kind, [hit for hit in found if hit.kind == kind]
    objects = [hit for hit in found if hit.kind in ("json", "llama")]
    yield "tagged", _inside(_TAGGED, blanked, objects)
    yield "fenced", _inside(_FENCED, blanked, objects)
    yield ("llama" if objects and objects[0].kind == "llama" else "json"), objects
    lists = [hit for hit in found if hit.kind == "python"]
    code = [
        _Found(match.start(), match.end(), tuple(calls), "python")
        for match in _CODE.finditer(blanked)
        if (calls := pythonic.read_code(text[slice(*match.span(1))], tools))
    ]
    yield "python", code or _inside(_FENCED, blanked, lists) or lists
    lines = [
        _Found(match.start(), match.end(), tuple(calls), "python")
        for match in _LINE.finditer(blanked)
        if (calls := pythonic.read_code(text[slice(*match.span(1))], tools))
    ]
    yield "python", lines


def _inside(markup: re.Pattern[str], blanked: str, hits: list[_Found]) -> list[_Found]:
    """The marked spans that hold calls."""
    spans = []
    for match in markup.finditer(blanked):
        inner = [hit for hit in hits if match.start() <= hit.start and hit.end <= match.end()]
        if inner:
            calls = tuple(call for hit in inner for call in hit.calls)
            spans.append(_Found(match.start(), match.end(), calls, inner[0].kind))
    return spans


def _words(text: str, hits: list[_Found]) -> str:
    """What is left of the text without the calls and the separators between them."""
    words: list[str] = []
    end = 0
    for hit in hits:
        between = text[end : hit.start]
        if not (words and _BETWEEN.fullmatch(between)):
            words.append(_BEFORE.sub("", between))
        after = _AFTER.match(text, hit.end)
        end = after.end() if after else hit.end
    return "".join([*words, text[end:]]).strip()


def _scan(text: str, tools: Sequence[Tool]) -> tuple[list[_Found], str]:
    """Finds calls in free text, and blanks every JSON value and list of calls in a copy of it.

    What a string inside a call holds (a fence, a tag) is no markup; the copy does not show it.
    """
    found: list[_Found] = []
    blanked: list[str] = []
    listed = frozenset(tool.name for tool in tools)
    position = 0
    while match := _OPENING.search(text, position):
        start = match.start()
        blanked.append(text[position:start])
        if _DEEP.match(text, start):  # no call, and a model that repeats itself writes thousands
            blanked.append(text[start])
            position = start + 1
            continue
        hit = _marked_calls(text, start, listed) or _python_list(text, start, tools)
        if hit:
            found.append(hit)
            position = hit.end
        else:
            try:
                value, position = _DECODER.raw_decode(text, start)
            except (ValueError, RecursionError):
                blanked.append(text[start])
                position = start + 1
                continue
            # the value of a key belongs to an object that is cut off or broken
            inner = _KEY.search(text, max(0, start - 80), start)
            calls = () if inner else tuple(_calls_in(value, listed))
            if calls:
                found.append(_object(text, start, position, calls, value, found))
        blanked.append("\0" * (position - start))
    blanked.append(text[position:])
    return found, "".join(blanked)


def _object(
    text: str, start: int, end: int, calls: tuple[ToolCall, ...], value: Any, before: list[_Found]
) -> _Found:
    """What kind of writing a JSON value with calls is; a marked list may be cut off."""
    mark = _CUT_MARK.search(text, 0, start)
    if mark:
        return _Found(mark.start(), end, calls, "mistral")
    if before and before[-1].kind == "mistral" and _BETWEEN.fullmatch(text, before[-1].end, start):
        return _Found(start, end, calls, "mistral")
    llama = isinstance(value, dict) and {"name", "parameters"} <= value.keys()
    return _Found(start, end, calls, "llama" if llama else "json")


def _marked_calls(text: str, start: int, listed: frozenset[str]) -> _Found | None:
    """`[TOOL_CALLS] [{...}]`, or `[TOOL_CALLS]name[ARGS]{...}`, where it stands at `start`."""
    match = _MARK.match(text, start)
    if not match:
        return None
    try:
        if match["name"] is None:
            value, end = _DECODER.raw_decode(text, match.end())
            calls = tuple(_calls_in(value, listed))
            return _Found(start, end, calls, "mistral") if calls else None
        value, end = _DECODER.raw_decode(text, match.end())
        name = json.loads(match["name"]) if match["name"].startswith('"') else match["name"]
        calls = tuple(_calls_in({"name": name, "arguments": value}, listed))
    except (ValueError, RecursionError):
        return None
    return _Found(start, end, calls, "mistral-args") if calls else None


def _python_list(text: str, start: int, tools: Sequence[Tool]) -> _Found | None:
    if not pythonic.LIST.match(text, start):
        return None
    read_calls = pythonic.read_list(text, start, tools)
    return read_calls and _Found(start, read_calls[1], tuple(read_calls[0]), "python")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


_OPENING = re.compile(r"[{\[]")
_DEEP = re.compile(rf'(?:\[\s*|\{{\s*(?:"[^"\\]{{0,64}}"\s*:\s*)?){{{MAX_NESTING + 3}}}')
_KEY = re.compile(r'"\s*:\s*\Z')
_MARK = re.compile(
    r'\[TOOL_CALLS\]\s*(?:(?P<name>[^\W\d][\w.-]*|"(?:[^"\\\n]|\\.)*")\s*'
    r"(?:\[CALL_ID\]\s*\w*\s*)?\[ARGS\]\s*(?=\{)|(?=\[))"
)
_CUT_MARK = re.compile(r"\[TOOL_CALLS\][\s\[]*\Z")
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)

_NAME_KEYS = ("name", "tool", "function", "tool_name")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")


def _calls_in(value: object, listed: frozenset[str]) -> Iterator[ToolCall]:
    """The calls of a JSON value: an object, a list of them, or `{"tool_calls": [...]}`."""
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("function"), dict):
            item = item["function"]
        name, arguments = _first(item, _NAME_KEYS), _first(item, _ARGUMENT_KEYS)
        if isinstance(arguments, str):
            try:
                arguments = _DECODER.decode(arguments)
            except (ValueError, RecursionError):
                continue
        if not isinstance(name, str) or not isinstance(arguments, dict):
            continue
        # under other keys it may be any object: then only a listed tool's name makes it a call
        usual = "name" in item and ("arguments" in item or "parameters" in item)
        if (usual or name in listed) and nesting(arguments) <= MAX_NESTING:
            # half a surrogate pair, which JSON can spell and UTF-8 cannot, becomes "?"
            text = json.dumps([name, arguments], ensure_ascii=False).encode("utf-8", "replace")
            yield ToolCall(*json.loads(text))


def _first(item: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if key in item), None)
