"""JSON objects that a request spells out, for arguments that are objects.

`The comment is: {"type": "comment", "attributes": {"text": "clean"}}`: a small model often passes
on a part of it, `{"text": "clean"}`. A kind as in `phrases.py`; there is one format. The meaning of
a phrase is the object as JSON text.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from quickstudy.grounding.phrases import Phrase, Schema
from quickstudy.types import MAX_NESTING, nesting

FORMAT = "object"
LONGEST = 2_000  # characters of one that is not JSON
_OTHER_TEXTS = ("checked by hand", "under review", "seen before", "not yet known", "looks fine")
_DECODER = json.JSONDecoder()


def find(text: str) -> list[Phrase]:
    return list(_found(text))


@lru_cache(maxsize=256)
def _found(text: str) -> tuple[Phrase, ...]:
    found, end = list[Phrase](), 0
    for match in re.finditer(r"\{", text):
        if match.start() < end:
            continue
        value, end = _read(text, match.start())
        meaning = _json(value) if isinstance(value, dict) and value else None
        if meaning is not None:
            found.append(Phrase(text[match.start() : end], "object", meaning))
        else:
            end = match.start() + 1
    return tuple(found)


def _read(text: str, start: int) -> tuple[Any, int]:
    """The JSON value, or Python's way of writing one, that begins here; None if there is none."""
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        pass
    depth = 0
    for end, sign in enumerate(text[start : start + LONGEST], start + 1):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth == 0:
            try:
                return ast.literal_eval(text[start:end]), end
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                break
    return None, start


def _json(value: Any, *, canonical: bool = False) -> str | None:
    """The value as JSON text, None if it is no JSON; equal values alike if `canonical`."""
    try:
        if nesting(value) > MAX_NESTING:
            return None
        return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=canonical)
    except (TypeError, ValueError, RecursionError):  # bytes, a set, NaN: no JSON
        return None


def stated_format(schema: Schema) -> str | None:
    return FORMAT if schema.get("type") == "object" else None


def formats_of(value: Any, stated: str | None) -> list[str]:
    return [FORMAT] if isinstance(value, dict) else []


def says(value: Any, format: str, phrase: Phrase) -> bool:
    return _json(value, canonical=True) == _json(json.loads(phrase.meaning), canonical=True)


def write(phrase: Phrase, format: str) -> Any:
    return json.loads(phrase.meaning)


def fresh(phrase: Phrase, rng: random.Random) -> Phrase | None:
    """The object with another text in place of its longest, or else with another number."""
    value = json.loads(phrase.meaning)
    spots = list(_spots(value))
    texts = [(at, key) for at, key in spots if isinstance(at[key], str)]
    numbers = [(at, key) for at, key in spots if type(at[key]) in (int, float)]
    if texts:
        at, key = max(texts, key=lambda spot: len(spot[0][spot[1]]))
        other: str | int = rng.choice(_OTHER_TEXTS)
    elif numbers:
        at, key = numbers[-1]
        other = rng.randint(2, 99)
    else:
        return None
    if at[key] == other:
        return None
    at[key] = other
    words = json.dumps(value, ensure_ascii=False)
    return Phrase(words, "object", words)


def spoken(value: Any, format: str, like: Phrase | None) -> str | None:
    return json.dumps(value, ensure_ascii=False) if like is not None else None


def within(value: Any, phrase: Phrase) -> bool:
    """Whether all that an object says stands in the phrase, whatever the keys and the nesting."""
    said = {_json(at[key]) for at, key in _spots(value)}
    there = {_json(at[key]) for at, key in _spots(json.loads(phrase.meaning))}
    return bool(said) and said <= there


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where the texts, numbers and truths of a JSON value stand: container and key."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            if isinstance(value[key], dict | list):
                yield from _spots(value[key])
            else:
                yield value, key
