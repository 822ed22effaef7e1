"""Does an argument's value stand in the request? The judgement behind all verification.

Four answers, by kind of value:

* STATED: it stands there; `surface` is how (`21`, `twenty-one`, `Twitter`).
* REWORDED: it stands there in another form this module can compute (dates and times).
* INVENTED: clearly not there: no word, number or date of the request could have led to it.
* UNCLEAR: neither; a paraphrase, a code or a boolean may be meant. Nothing is done to it:
  taking such values out taught the model to drop right ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rapidfuzz import fuzz

from quickstudy.augmentation import temporal

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_WORDS = {word: n for n, word in enumerate(_UNITS)} | {
    word: 10 * n for n, word in enumerate(_TENS, 2)
}
for _tens in _TENS:
    for _unit in _UNITS[1:10]:
        NUMBER_WORDS[f"{_tens}-{_unit}"] = NUMBER_WORDS[_tens] + NUMBER_WORDS[_unit]
_LOOSE_NUMBERS = "half quarter dozen hundred thousand million billion percent once twice".split()
_NUMBER = re.compile(
    r"(?<![\w.^])-?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\w)|(?<![\w.^])-?\d+(?:\.\d+)?(?!\w)"
    rf"|\b(?:{'|'.join(sorted(NUMBER_WORDS, key=len, reverse=True))})\b",
    re.IGNORECASE,
)
_STOP_WORDS = frozenset("the and for with from that this all any not are was has our your".split())


class Status(Enum):
    STATED = "stated"
    REWORDED = "reworded"
    INVENTED = "invented"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Ground:
    """Where a value stands. `phrase` is given for dates and times that can be rewritten."""

    status: Status
    surface: str = ""
    phrase: temporal.Phrase | None = None


def ground(value: Any, schema: Mapping[str, Any], text: str) -> Ground:
    """Judges one argument value against the request's text."""
    if value is None or value in ([], {}) or (isinstance(value, str) and not value.strip()):
        return Ground(Status.INVENTED)  # an empty value states nothing
    if isinstance(value, bool | dict):
        return Ground(Status.UNCLEAR)
    if isinstance(value, list):
        return _ground_list(value, schema, text)
    if isinstance(value, int | float):
        return _ground_number(value, text)
    if isinstance(value, str):
        return _ground_text(value, schema, text)
    return Ground(Status.UNCLEAR)


def ground_all(
    arguments: Mapping[str, Any], properties: Mapping[str, Any], text: str
) -> dict[str, Ground]:
    """Judges a call's arguments together.

    A number or date that stands for one argument cannot be what another was computed from: an
    unclear number, date or time is judged again by what the other arguments leave of the text.
    """
    schemas = {name: _schema(properties.get(name)) for name in arguments}
    found = {name: ground(value, schemas[name], text) for name, value in arguments.items()}
    left = text
    for surface in sorted({f.surface for f in found.values()}, key=len, reverse=True):
        left = left.replace(surface, " … ") if surface else left
    for name, value in arguments.items():
        if found[name].status is Status.UNCLEAR and _measured(value, schemas[name]):
            found[name] = ground(value, schemas[name], left)
    return found


def _schema(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def _measured(value: Any, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, str):
        stated = temporal.stated_format(schema)
        return bool(stated or temporal.formats_of(value, None) or temporal.find(value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers(text: str) -> list[tuple[str, float]]:
    """Every number in a text, as it stands and as a value."""
    found = []
    for match in _NUMBER.finditer(text):
        surface = match.group()
        word = NUMBER_WORDS.get(surface.lower())
        found.append((surface, float(word if word is not None else surface.replace(",", ""))))
    return found


def whole(surface: str) -> str:
    """A pattern for these words uncut: `art` is not in `party`, nor `3` in `3:30` or `3,100`."""
    left = r"(?<!\w)(?<!\d[.,:/])" if surface[:1].isdigit() else r"(?<!\w)"
    right = r"(?!\w)(?![.,:/]\d)" if surface[-1:].isdigit() else r"(?!\w)"
    return f"{left}{re.escape(surface)}{right}"


def find_surface(value: str, text: str) -> str | None:
    """How a string stands in a text: its exact letters if they are there, else in any case."""
    pattern = whole(value)
    match = re.search(pattern, text) or re.search(pattern, text, re.IGNORECASE)
    return match.group() if match else None


def _ground_number(value: int | float, text: str) -> Ground:
    for surface, stated in numbers(text):
        if stated == value:
            return Ground(Status.STATED, surface)
    return Ground(Status.UNCLEAR if _tells_numbers(text) else Status.INVENTED)


def _tells_numbers(text: str) -> bool:
    """Whether some number is told from which another might be computed (`5kg`, `a dozen`)."""
    loose = any(word in text.lower() for word in _LOOSE_NUMBERS)
    return loose or bool(numbers(text)) or bool(re.search(r"(?<![\w^])\d+[A-Za-z]", text))


def _ground_list(value: list[Any], schema: Mapping[str, Any], text: str) -> Ground:
    items = schema.get("items")
    inner = items if isinstance(items, Mapping) else {}
    statuses = {ground(item, inner, text).status for item in value}
    if statuses == {Status.STATED}:
        return Ground(Status.STATED)
    return Ground(Status.INVENTED if statuses == {Status.INVENTED} else Status.UNCLEAR)


def _ground_text(value: str, schema: Mapping[str, Any], text: str) -> Ground:
    stated = temporal.stated_format(schema)
    formats = temporal.formats_of(value, stated)
    if formats or stated:
        return _ground_moment(value, formats, stated, text)
    surface = find_surface(value.strip(), text)
    if surface is not None:
        return Ground(Status.STATED, surface)
    if "enum" in schema:
        return Ground(Status.UNCLEAR)  # a choice among few: it may be meant in other words
    words = [w for w in re.findall(r"\w+", value.lower()) if len(w) > 2 and w not in _STOP_WORDS]
    if re.fullmatch(r"[\d\W]+", value):
        return Ground(Status.UNCLEAR if _tells_numbers(text) else Status.INVENTED)
    if not words or re.fullmatch(r"[A-Z]{2,4}", value):
        return Ground(Status.UNCLEAR)  # a code: it may stand for a word of the request
    told = re.findall(r"\w+", text.lower())
    if any(_akin(word, other) for word in words for other in told):
        return Ground(Status.UNCLEAR)
    if temporal.find(value):
        return Ground(Status.UNCLEAR if temporal.find(text) else Status.INVENTED)
    return Ground(Status.INVENTED)


def _ground_moment(value: str, formats: list[str], stated: str | None, text: str) -> Ground:
    phrases = temporal.find(text)
    for phrase in phrases:
        if any(temporal.says(value, format, phrase) for format in formats):
            same = phrase.surface == value
            return Ground(Status.STATED if same else Status.REWORDED, phrase.surface, phrase)
    surface = find_surface(value, text)
    if surface is not None and not any(surface in p.surface for p in phrases):
        return Ground(Status.STATED, surface)
    if stated:
        # wrongly written by the model, but only one phrase of the request can be meant
        meant = [phrase for phrase in phrases if temporal.tells(phrase, stated)]
        if len(meant) == 1:
            return Ground(Status.REWORDED, meant[0].surface, meant[0])
    told = phrases or _tells_numbers(text)
    return Ground(Status.UNCLEAR if told else Status.INVENTED)


def _akin(word: str, other: str) -> bool:
    """Same word up to its ending or spelling (`nurse`, `nurses`), or its abbreviation."""
    if len(word) < 4 or len(other) < 4:
        return word == other or (len(word) == 3 and other.startswith(word))
    return word[:5] == other[:5] or bool(fuzz.ratio(word, other) >= 80)
