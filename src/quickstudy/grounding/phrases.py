"""What every kind of phrase shares: dates, amounts, names with codes, addresses, choices.

A *phrase* is some words of a text with one meaning (`half past nine`, `two kilos`, `Japan`). A
*format* is one way to write such a meaning as an argument (`%H:%M`, grams as a number, alpha-2).
A *kind* finds phrases and knows their formats; it is a module, or an object with the same
functions. Formats are each kind's own and opaque to others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

Schema = Mapping[str, Any]
Format = Any  # hashable


@dataclass(frozen=True)
class Phrase:
    """Words of a text and what they mean.

    `meaning` is None where it cannot be told ("tomorrow" depends on today). `also` is a second
    meaning the words may have: `half past nine` is 9:30 or 21:30.
    """

    surface: str
    kind: str
    meaning: Any
    also: Any = None

    def readings(self) -> Iterator[Phrase]:
        """The phrase with each meaning that it may have."""
        yield self
        if self.also is not None:
            yield replace(self, meaning=self.also, also=self.meaning)


class Kind(Protocol):
    """What each kind can do. Nothing here raises, whatever the text, value or schema."""

    def find(self, text: str) -> list[Phrase]:
        """The phrases in a text, left to right."""
        ...

    def stated_format(self, schema: Schema) -> Format | None:
        """The format that a parameter's schema asks for; None if it does not clearly say one."""
        ...

    def formats_of(self, value: Any, stated: Format | None) -> list[Format]:
        """The formats a call's value can be read in; only the stated one where it fits."""
        ...

    def says(self, value: Any, format: Format, phrase: Phrase) -> bool:
        """Whether the value, read in this format, means what the phrase means."""
        ...

    def write(self, phrase: Phrase, format: Format) -> Any:
        """The phrase's meaning in this format; None where the phrase does not tell enough."""
        ...

    def fresh(self, phrase: Phrase, rng: random.Random) -> Phrase | None:
        """A phrase of another meaning in the same style; None if none can be made."""
        ...

    def spoken(self, value: Any, format: Format, like: Phrase | None) -> str | None:
        """Words for a value, in the style of `like`; None if the kind has none for it."""
        ...


def described(schema: Schema) -> str:
    """What a schema says about its parameter: its name (kept as `title`) and description."""
    name = str(schema.get("title", "")).replace("_", " ")
    return f"{name}. {schema.get('description', '')}"


def schema_of(properties: Mapping[str, Any], name: str) -> Schema:
    """A parameter's schema with its name as `title`, since `weight_kg` says as much as a text.

    What may also be null, as pydantic writes `int | None`, is told as what it else is.
    """
    raw = properties.get(name)
    return {**_of_one_type(raw), "title": name} if isinstance(raw, Mapping) else {"title": name}


def _of_one_type(schema: Schema) -> Schema:
    for either in ("anyOf", "oneOf"):
        others = [part for part in schema.get(either, ()) if part != {"type": "null"}]
        if len(others) == 1 and isinstance(others[0], Mapping):
            return {**{key: schema[key] for key in schema if key != either}, **others[0]}
    kinds = schema.get("type")
    others = [kind for kind in kinds if kind != "null"] if isinstance(kinds, list) else []
    return {**schema, "type": others[0]} if len(others) == 1 else schema


def items_of(schema: Schema) -> Schema:
    """The schema of a list's items, with what the list's own schema says about them."""
    items = schema.get("items")
    said = {key: schema[key] for key in ("title", "description") if key in schema}
    return {**said, **items} if isinstance(items, Mapping) else said
