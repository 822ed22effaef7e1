"""Which practice examples are kept. Small models write much that would teach them harm.

`reject` gives the first reason against an example, or None. What it lets through satisfies the
tools' schemas, and each value is stated in the example's own request or is one of the values
that were knowingly left as the draft has them (`kept`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rapidfuzz import fuzz

from quickstudy import toolcalls
from quickstudy.augmentation import temporal
from quickstudy.augmentation.grounding import Status, ground, numbers
from quickstudy.types import Example, Request, Tool, ToolCall

REFUSAL = re.compile(
    r"\b(?:i'?m sorry|i am sorry|i can(?:no|')t|i am unable|i'm unable|as an ai|language model)\b",
    re.IGNORECASE,
)
_NEAR = 92  # rapidfuzz ratio, 0 to 100
WRITTEN = ("call-first", "question-answer")  # sources whose requests a model wrote


def reject(
    example: Example,
    request: Request,
    accepted: Sequence[Example],
    kept: Sequence[Collection[str]] = (),
) -> str | None:
    """The first reason not to practise this example; None to keep it.

    Args:
        accepted: examples kept before it.
        kept: for each call, the names of arguments left as the draft has them or confirmed by
            a round trip; they need not be stated.
    """
    text = example.user_text
    if not example.tool_calls or not text.strip():
        return "it asks nothing or calls nothing"
    if example.source != "substitution":  # the user's own words need no such judgement
        if REFUSAL.search(text):
            return "it is a refusal"
        if text.lstrip()[:1] in "{[<`" or '"arguments"' in text:
            return "its request is code, not a sentence"
    if _plain(text) == _plain(request.user_text):
        return "it copies the user's request"
    for number, call in enumerate(example.tool_calls):
        wrong = toolcalls.problem(call, request.tools)
        if wrong is not None:
            return f"its call is not valid: {wrong}"
        tool = request.tool(call.name)
        assert tool is not None  # `problem` has just found it
        exempt = kept[number] if number < len(kept) else ()
        wrong = _ungrounded(call, tool, text, request.user_text, exempt)
        if wrong is not None:
            return wrong
    if example.source in WRITTEN:
        wrong = _too_near(example, request) or _says_more(example, request)
        if wrong is not None:
            return wrong
    for other in accepted:
        if toolcalls.equal(example.tool_calls, other.tool_calls, request.tools):
            return "its call is that of another example"
        if example.source in WRITTEN and fuzz.ratio(text, other.user_text) >= _NEAR:
            return "it is nearly another example"
    return None


def _ungrounded(
    call: ToolCall, tool: Tool, text: str, asked: str, exempt: Collection[str]
) -> str | None:
    for name, value in call.arguments.items():
        schema = _mapping(tool.properties.get(name))
        found = ground(value, schema, text)
        if name in exempt:
            if _stated(value, schema, asked) and not _stated(value, schema, text):
                return f"{name} = {value!r} is kept and its words have gone"
            continue
        if found.status in (Status.INVENTED, Status.UNCLEAR):
            return f"its request does not state {name} = {value!r}"
        if found.phrase is not None and not _says(value, schema, found.phrase):
            return f"{name} = {value!r} is not {found.phrase.surface!r} in the format wanted"
        exact = found.status is Status.STATED and isinstance(value, str)
        if exact and "enum" not in schema and found.surface != value:
            return f"{name}: {value!r} is spelt {found.surface!r} in its request"
    return None


def _stated(value: Any, schema: Mapping[str, Any], text: str) -> bool:
    return ground(value, schema, text).status is Status.STATED


def _says(value: Any, schema: Mapping[str, Any], phrase: temporal.Phrase) -> bool:
    """Whether the value is the phrase's moment; `ground` also finds what a draft wrote wrongly."""
    stated = temporal.stated_format(schema)
    if value == phrase.surface and stated is None:
        return True
    return any(
        temporal.says(value, f, phrase)
        for f in temporal.formats_of(value, stated)
        if stated in (None, f)
    )


def _too_near(example: Example, request: Request) -> str | None:
    if fuzz.ratio(_plain(example.user_text), _plain(request.messages[-1].content)) >= _NEAR:
        return "it nearly copies the user's request"
    for call in example.tool_calls:
        tool = request.tool(call.name)
        for name, value in call.arguments.items():
            schema = _mapping(tool.properties.get(name) if tool else None)
            free = "enum" not in schema and not isinstance(value, bool)
            if free and ground(value, schema, request.user_text).status is Status.STATED:
                return f"{name} = {value!r} is the user's own value"
    return None


def _says_more(example: Example, request: Request) -> str | None:
    """A request that states what its call leaves out would teach leaving stated things out."""
    values = str([list(call.arguments.values()) for call in example.tool_calls])
    told = {value for _, value in numbers(values)}
    dated = any(phrase for phrase in temporal.find(values))
    for surface, value in numbers(example.user_text):
        if value not in told and not dated:
            return f"its request states {surface!r} and its call does not"
    for call in example.tool_calls:
        tool = request.tool(call.name)
        for name in tool.properties if tool else ():
            stated = re.search(rf"\b{re.escape(name.replace('_', ' '))}\b", example.user_text)
            if name not in call.arguments and stated and " " in name.replace("_", " "):
                return f"its request speaks of {name} and its call leaves it out"
    return None


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
