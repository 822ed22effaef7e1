"""Which practice examples are kept. Small models write much that would teach them harm.

`reject` gives the first reason against an example, or None. What it lets through satisfies the
tools' schemas, and each value is stated in the example's own request or is one of the values
that were knowingly left as the draft has them (`kept`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from rapidfuzz import fuzz

from quickstudy import toolcalls
from quickstudy.grounding import temporal
from quickstudy.grounding.ground import (
    Ground,
    Status,
    ground,
    ground_all,
    numbers,
    surfaces,
    whole,
)
from quickstudy.grounding.phrases import Schema, items_of, schema_of
from quickstudy.types import Example, Request, Tool, ToolCall

REFUSAL = re.compile(
    r"\b(?:i'?m sorry|i am sorry|i can(?:no|')t|i am unable|i'm unable|as an ai|language model)\b",
    re.IGNORECASE,
)
NEAR = 92  # rapidfuzz ratio, 0 to 100
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
    if plain(text) == plain(request.user_text):
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
        if example.source in WRITTEN and fuzz.ratio(text, other.user_text) >= NEAR:
            return "it is nearly another example"
    return None


def _ungrounded(
    call: ToolCall, tool: Tool, text: str, asked: str, exempt: Collection[str]
) -> str | None:
    for name, value in call.arguments.items():
        schema = schema_of(tool.properties, name)
        found = ground(value, schema, text)
        if name in exempt:
            if _stated(value, schema, asked) and not _stated(value, schema, text):
                return f"{name} = {value!r} is kept and its words have gone"
            continue
        if found.status in (Status.INVENTED, Status.UNCLEAR):
            return f"its request does not state {name} = {value!r}"
        wrong = _misspelt(name, value, schema, found)
        if wrong is not None:
            return wrong
    return None


def _misspelt(name: str, value: Any, schema: Schema, found: Ground) -> str | None:
    """What is wrong with the form of a value that its request does state."""
    if found.parts:
        inner = schema if found.joint else items_of(schema)
        items = value.split(found.joint) if found.joint else value
        wrong = (_misspelt(name, i, inner, p) for i, p in zip(items, found.parts, strict=True))
        return next((reason for reason in wrong if reason), None)
    phrase, kind = found.phrase, found.kind
    # `ground` also finds what a draft wrote wrongly
    if phrase is not None and kind is not None and found.format is not None:
        if not kind.says(value, found.format, phrase):
            return f"{name} = {value!r} is not {phrase.surface!r} in the format wanted"
    elif found.status is Status.STATED and isinstance(value, str) and "enum" not in schema:
        number = schema.get("type") in ("number", "integer")
        if found.surface != value and not number:
            return f"{name}: {value!r} is spelt {found.surface!r} in its request"
    return None


def _stated(value: Any, schema: Schema, text: str) -> bool:
    return ground(value, schema, text).status is Status.STATED


def _too_near(example: Example, request: Request) -> str | None:
    if fuzz.ratio(plain(example.user_text), plain(request.messages[-1].content)) >= NEAR:
        return "it nearly copies the user's request"
    for call in example.tool_calls:
        tool = request.tool(call.name)
        for name, value in call.arguments.items():
            schema = schema_of(tool.properties if tool else {}, name)
            if "enum" in schema or isinstance(value, bool):
                continue
            found = ground(value, schema, request.user_text)
            if found.there and not _misspelt(name, value, schema, found):
                return f"{name} = {value!r} is the user's own value"
    return None


def _says_more(example: Example, request: Request) -> str | None:
    """A request that states what its call leaves out would teach leaving stated things out."""
    values = str([list(call.arguments.values()) for call in example.tool_calls])
    told = {value for _, value in numbers(values)}
    left = example.user_text
    for call in example.tool_calls:
        tool = request.tool(call.name)
        found = ground_all(call.arguments, tool.properties if tool else {}, example.user_text)
        for surface in sorted(surfaces(found.values()), key=len, reverse=True):
            left = re.sub(whole(surface), " … ", left)  # `an hour and 15 minutes` for 75
    dated = any(phrase for phrase in temporal.find(values))
    for surface, value in numbers(left):
        if value not in told and not dated:
            return f"its request states {surface!r} and its call does not"
    for call in example.tool_calls:
        tool = request.tool(call.name)
        for name in tool.properties if tool else ():
            stated = re.search(rf"\b{re.escape(name.replace('_', ' '))}\b", example.user_text)
            if name not in call.arguments and stated and " " in name.replace("_", " "):
                return f"its request speaks of {name} and its call leaves it out"
    return None


def plain(text: str) -> str:
    """The words alone, without case and punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))
