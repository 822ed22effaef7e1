"""Fresh values of the same kind as a given one, for practice that is not the user's own request.

Free sources first: the schema's enum and the alternatives that a description lists ("e.g.,
Instagram, Twitter"); numbers, identifiers and addresses by shape; long texts from a short list.
Only what is left is asked of the model (`needs_model`).
"""

from __future__ import annotations

import math
import random
import re
import string
from collections.abc import Mapping
from typing import Any

_SENTENCES = (
    "The meeting moved to the small room",
    "Please bring the blue folder along",
    "Dinner is ready, come downstairs",
    "The parcel is waiting at the front desk",
    "We reached the summit before sunrise",
    "Remember to water the plants",
    "The train is late again",
    "Thanks for all your help last week",
)
_IP = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}", re.ASCII)
_ARTICLE = re.compile(r"(?:the|an?|my|your)\b", re.IGNORECASE)
_LISTED = re.compile(r"(?:e\.g\.?|for example|such as|i\.e\.?)[,:]?\s*([^)]*)", re.IGNORECASE)


def listed(schema: Mapping[str, Any]) -> list[str]:
    """The example values that a parameter's enum or description lists."""
    if isinstance(schema.get("enum"), list):
        return [value for value in schema["enum"] if isinstance(value, str)]
    found = _LISTED.search(str(schema.get("description", "")))
    if not found:
        return []
    parts = re.split(r",\s*(?:or |and )?|\s+or\s+|;", found.group(1))
    return [p for part in parts if (p := part.strip(" .'\"")) and p.lower() not in ("etc", "...")]


def fresh_number(value: float, schema: Mapping[str, Any], rng: random.Random) -> int | float:
    """Another number of about the same size, within the schema's limits."""
    size = min(max(abs(value), 5), 1e15)
    low = _limit(schema.get("minimum"), 1 if value >= 1 else 0 if value >= 0 else -2 * size)
    high = _limit(schema.get("maximum"), low + 2 * size)
    if isinstance(value, int) or value.is_integer():
        first, last = math.ceil(low), math.floor(min(high, low + 10_000))
        choices = [n for n in range(first, last + 1) if n != value]
        return rng.choice(choices) if choices else int(value)
    digits = len(repr(value).rpartition(".")[2])
    return round(rng.uniform(low, high), digits)


def _limit(raw: object, otherwise: float) -> float:
    """A schema's limit, unless it is none, or no number to count from."""
    good = isinstance(raw, int | float) and not isinstance(raw, bool) and abs(raw) <= 1e15
    return float(raw) if good and isinstance(raw, int | float) else float(otherwise)


def by_shape(value: str, rng: random.Random) -> str | None:
    """Another identifier, address, code or long text of the same shape; None for plain words."""
    if len(value.split()) >= 5:
        return rng.choice(_SENTENCES)
    if _IP.fullmatch(value):  # digit by digit it could be no address
        return ".".join(str(rng.randint(1, 254)) for _ in range(4))
    mixed = re.search(r"[a-z][A-Z]", value) and " " not in value
    if not (mixed or any(c.isdigit() for c in value) or "@" in value):
        return None
    kept = {"http", "https", "www", "com", "org", "net", "example", "html"}

    def shaped(match: re.Match[str]) -> str:
        return (
            match.group() if match.group().lower() in kept else "".join(map(letter, match.group()))
        )

    def letter(c: str) -> str:
        if c.isdigit():
            return rng.choice(string.digits[1:])
        return rng.choice(string.ascii_uppercase if c.isupper() else string.ascii_lowercase)

    # a code such as JFK123 keeps its letters' shape; a name with a number keeps its words
    if " " in value:
        return re.sub(r"\d", lambda m: letter(m.group()), value)
    ending = re.search(r"\.[a-z][a-z0-9]{1,4}$", value)  # of a file or a host: it stays
    cut = ending.start() if ending else len(value)
    return re.sub(r"[A-Za-z0-9]+", shaped, value[:cut]) + value[cut:]


def fresh_text(
    value: str,
    schema: Mapping[str, Any],
    written: list[str],
    taken: set[str],
    rng: random.Random,
) -> str | None:
    """Another text for this argument that is not in `taken` (compared without case).

    Args:
        written: alternatives the model wrote, used after the free sources.
    """
    if "enum" in schema:
        options = [other for other in listed(schema) if isinstance(other, str)]
    elif (shaped := by_shape(value, rng)) is not None:
        options = [shaped]
    else:
        free = [other for other in listed(schema) if _alike(other, value)]
        options = rng.sample(free, len(free)) + [o for o in written if _alike(o, value)]
    return next((o for o in options if o.lower() not in taken and o != value), None)


def needs_model(value: str, schema: Mapping[str, Any], wanted: int) -> bool:
    """Whether the free sources cannot give `wanted` fresh values."""
    if "enum" in schema or by_shape(value, random.Random(0)) is not None:
        return False
    return len([other for other in listed(schema) if _alike(other, value)]) < wanted


def _alike(other: str, value: str) -> bool:
    """Whether another text can stand where this one does: what is listed or written varies.

    About as long, both or neither a number or with an article, and not the value with more words.
    """
    return (
        len(other.split()) <= max(2, 2 * len(value.split()))
        and other[:1].isdigit() == value[:1].isdigit()
        and bool(_ARTICLE.match(other)) == bool(_ARTICLE.match(value))
        and value.lower() not in other.lower()
        and other.lower() not in value.lower()
    )
