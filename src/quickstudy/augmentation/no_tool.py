"""One practice example whose right answer calls nothing, so that practice teaches no calling.

The tool list is part of the shared prefix and cannot be changed for an example. So the request
is changed: an everyday one (`data/everyday.jsonl`) that clearly none of the listed tools serves,
as no tool has a word in common with what it is about.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any

from rapidfuzz import fuzz
from rapidfuzz.distance import Prefix

from quickstudy.augmentation.verify import REFUSAL
from quickstudy.types import Example, Message, Reply, Request, Tool

SOURCE = "no-tool"
NONE_FITS = "None of the available tools can do this."
_ALIKE = 85  # rapidfuzz ratio of two words, 0 to 100
_STEM = 4  # letters that two forms of a word share at least
_LONGEST = 160  # characters of an answer in the model's own words
_CALLING = ("[", "{", "<", "`")  # what calls begin with
_AFTER = re.compile(r"(?:\S[ \t]*\n|[.!?]\s)\s*(\S)")  # what follows a first sentence
_SENTENCE = re.compile(r"[^\n]+?[.!?](?=\s|$)")
# a tool with such a word in its name or description may serve any request
_BROAD = frozenset(
    "anything assistant browser chatbot google internet llm python shell web wikipedia".split()
)
_SEARCH = frozenset("answer ask find general get info information question query search".split())
_DECLINES = re.compile(
    r"\b(?:none of|no (?:tool|function)|not (?:able|possible|available|supported|designed)"
    r"|(?:do|does|did) ?n[o']t (?:have|support|include|provide)|outside)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Entry:
    """A request of the bank; `about` are words of what would serve it. Small talk has an answer."""

    request: str
    about: tuple[str, ...]
    answer: str


def no_tool_example(request: Request, rng: random.Random) -> Example | None:
    """An everyday request outside the tool list, answered by `NONE_FITS` or as small talk is.

    None where the list is so broad that no request of the bank is clearly outside it.
    """
    if not request.tools or any(map(_serves_anything, request.tools)):
        return None
    known = {word for tool in request.tools for word in _words(_texts(tool))}
    known |= _words([request.user_text])  # nor may it be what the user asks
    outside = [entry for entry in _bank() if not _overlap(entry.about, known)]
    if not outside:
        return None
    system = tuple(message for message in request.messages if message.role == "system")
    chosen = rng.choice(outside)
    return Example((*system, Message("user", chosen.request)), (), SOURCE, chosen.answer)


def begins_call(text: str) -> bool:
    """Whether a reply begins with a call, or goes on to one after its first sentence."""
    text = text.lstrip()
    after = _AFTER.search(text)
    return text[:1] in _CALLING or (after is not None and after[1] in _CALLING)


def says_enough(text: str) -> bool:
    """Whether the first words of a reply are all that `begins_call` and `in_own_words` look at."""
    text = text.lstrip()
    return begins_call(text) or _AFTER.search(text) is not None or len(text) > _LONGEST


def in_own_words(example: Example, reply: Reply) -> Example:
    """The example with the model's own answer to it, where that is a right one.

    Right is any answer to small talk; of other requests one that declines, as claiming to have
    done them would be a lie. A call, or a first sentence that does not end, is never right.

    Args:
        reply: what the model, asked the example's request under the same tools, says.
    """
    first = _SENTENCE.match(reply.content.strip())
    if reply.tool_calls or first is None or len(first.group()) > _LONGEST:
        return example
    words = first.group()
    declines = bool(REFUSAL.search(words) or _DECLINES.search(words))
    if declines or example.content != NONE_FITS:
        return replace(example, content=words)
    return example


def _serves_anything(tool: Tool) -> bool:
    named = set(_split(tool.name))
    return bool(_BROAD & (named | set(_split(tool.description)))) or named <= _SEARCH


def _overlap(about: Iterable[str], known: Iterable[str]) -> bool:
    return any(_related(word, other) for word in about for other in known)


def _related(one: str, other: str) -> bool:
    stem = Prefix.similarity(one, other)  # purchas-e, purchas-ing
    forms = stem >= max(_STEM, min(len(one), len(other)) - 1)
    return forms or fuzz.ratio(one, other) >= _ALIKE


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _split(text) if len(word) > 2}


def _split(text: str) -> list[str]:
    """The words of a text or an identifier: `getUserName`, `get_user_name`."""
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).lower())


def _texts(tool: Tool) -> Iterator[str]:
    yield tool.name
    yield tool.description
    yield from _texts_in(tool.parameters)


def _texts_in(schema: Any) -> Iterator[str]:
    """The argument names, descriptions and allowed values of a schema, at any depth."""
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        yield from properties if isinstance(properties, Mapping) else ()
        texts = [schema.get("description"), schema.get("title"), *_list(schema.get("enum"))]
        yield from (text for text in texts if isinstance(text, str))
        for inner in schema.values():
            yield from _texts_in(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _texts_in(inner)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


@lru_cache
def _bank() -> tuple[_Entry, ...]:
    file = resources.files("quickstudy").joinpath("data/everyday.jsonl")
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return tuple(
        _Entry(row["request"], tuple(row["about"].split()), row.get("answer", NONE_FITS))
        for row in rows
    )
