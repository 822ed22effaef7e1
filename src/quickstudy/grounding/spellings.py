"""A choice of an enum, said in other letters: "in progress" for `in_progress`, "high" for `HIGH`.

A kind as in `phrases.py`, made for one schema. A phrase's meaning is the member; the only format
is the member itself, so nothing is ever written that the schema does not list.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from quickstudy.grounding.phrases import Phrase, Schema

_FORMAT = "member"


class Choices:
    """The members of one enum."""

    def __init__(self, members: Sequence[str]) -> None:
        self._words: dict[str, str] = {}
        for member in members:
            words = spaced(member).lower()
            # two members of the same words cannot be told apart
            self._words[words] = "" if words in self._words else member

    def find(self, text: str) -> list[Phrase]:
        found: list[tuple[tuple[int, int], Phrase]] = []
        for words, member in sorted(self._words.items(), key=lambda item: -len(item[0])):
            if not words or not member:
                continue
            pattern = r"[\s_-]+".join(map(re.escape, words.split()))
            for match in re.finditer(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE):
                inside = any(s <= match.start() and match.end() <= e for (s, e), _ in found)
                if not inside:
                    found.append((match.span(), Phrase(match.group(), "choice", member)))
        return [phrase for _, phrase in sorted(found, key=lambda pair: pair[0])]

    def stated_format(self, schema: Schema) -> None:
        """None: the words for another member may stand in a request for other reasons."""
        return

    def formats_of(self, value: Any, stated: None) -> list[str]:
        return [_FORMAT] if isinstance(value, str) and value in self._words.values() else []

    def says(self, value: Any, format: str, phrase: Phrase) -> bool:
        return bool(phrase.meaning == value)

    def write(self, phrase: Phrase, format: str) -> Any:
        return phrase.meaning

    def fresh(self, phrase: Phrase, rng: random.Random) -> Phrase | None:
        others = [(w, m) for w, m in self._words.items() if m and w and m != phrase.meaning]
        if not others:
            return None
        words, member = rng.choice(others)
        said = member if phrase.surface == phrase.meaning else _in_case(words, phrase.surface)
        return Phrase(said, "choice", member)

    def spoken(self, value: Any, format: str, like: Phrase | None) -> str | None:
        if not isinstance(value, str) or (like is not None and like.surface == like.meaning):
            return None
        words = spaced(value)
        lower = words.lower() if "_" in value or value.isupper() else words
        return None if lower == value else lower


def spaced(text: str) -> str:
    """The words of an identifier: `in_progress`, `inProgress`, `IN-PROGRESS`."""
    return " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", text).split())


def _in_case(words: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return words.upper()
    return words.capitalize() if like[:1].isupper() else words
