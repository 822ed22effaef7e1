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
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from quickstudy.grounding.phrases import Phrase, Schema
from quickstudy.types import MAX_NESTING, nesting

FORMAT = "object"
LONGEST = 2_000  # characters of one that is not JSON
MOST = 32  # braces at which one may begin: a text of braces alone must not cost seconds
_OTHER_TEXTS = ("checked by hand", "under review", "seen before", "not yet known", "looks fine")
_DECODER = json.JSONDecoder()


def find(text: str) -> list[Phrase]:
    return list(_found(text))


@lru_cache(maxsize=256)
def _found(text: str) -> tuple[Phrase, ...]:
    found, end, tries = list[Phrase](), 0, 0
    for match in re.finditer(r"\{", text):
        if match.start() < end:
            continue
        tries += 1
        if tries > MOST:
            break
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
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            try:
                with warnings.catch_warnings(action="ignore"):  # of odd escapes
                    return ast.literal_eval(text[start:end]), end
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                break
    return None, start


def _json(value: Any, *, canonical: bool = False) -> str | None:
    """The value as JSON text, None if it is no JSON; equal values alike if `canonical`."""
    try:
        if nesting(value) > MAX_NESTING:
            return None
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=canonical)
        text.encode()
        return text
    except (TypeError, ValueError, RecursionError):  # bytes, a set, NaN, half a character: no JSON
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


def wraps(phrase: Phrase, value: dict[str, Any]) -> bool:
    """Whether a value is an object inside the phrase's, as it is.

    Parts at the top are a choice among what was told, and items of a list one of several.
    """
    inner = [part for part in json.loads(phrase.meaning).values() if isinstance(part, dict)]
    while inner:
        part = inner.pop()
        if part and _json(part, canonical=True) == _json(value, canonical=True):
            return True
        inner += [deeper for deeper in part.values() if isinstance(deeper, dict)]
    return False


def keys(phrase: Phrase) -> set[str]:
    """The outermost keys."""
    return set(json.loads(phrase.meaning))


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where the texts, numbers and truths of a JSON value stand: container and key."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            if isinstance(value[key], dict | list):
                yield from _spots(value[key])
            else:
                yield value, key
