"""Does an argument's value stand in the request? The judgement behind all verification.

Four answers, by kind of value:

* STATED: it stands there; `surface` is how (`21`, `twenty-one`, `Twitter`).
* REWORDED: it stands there in another form that one of the kinds (`kinds.py`) can compute, or
  the model wrote wrongly the only phrase of the request that the schema's format can mean.
* INVENTED: clearly not there: no word, number or date of the request could have led to it.
* UNCLEAR: neither; a paraphrase, a code or a boolean may be meant. It is left alone, as taking such
  values out taught the model to drop right ones, unless more is known of it (`unfounded`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any

from rapidfuzz import fuzz

from quickstudy.grounding import amounts, hints, kinds, literals, names, numerals, temporal
from quickstudy.grounding.phrases import Format, Kind, Phrase, Schema, items_of, schema_of
from quickstudy.grounding.spellings import spaced
from quickstudy.types import MAX_NESTING, Request, Tool, ToolCall, nesting

_LOOSE_NUMBERS = "half quarter dozen hundred thousand million billion percent once twice".split()
_CHOICES = ("enum", "const", "$ref", "allOf", "anyOf", "oneOf")  # or a list that stands elsewhere
_CODE = "[A-Z]{2,4}"
COMPOSED = 5  # words; a text of so many was written for the call, and is no datum
_STOP_WORDS = frozenset("the and for with from that this all any not are was has our your".split())


class Status(Enum):
    STATED = "stated"
    REWORDED = "reworded"
    INVENTED = "invented"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Ground:
    """Where a value stands.

    `phrase` is given where it can be rewritten: the kind's `write(phrase, format)` is the value
    that is wanted. `format` is None where the value copies the phrase. `parts`: one for each item
    of a list, or of a text that joins items by `joint`.
    """

    status: Status
    surface: str = ""
    phrase: Phrase | None = None
    kind: Kind | None = None
    format: Format | None = None
    parts: tuple[Ground, ...] = ()
    joint: str = ""
    guess: bool = False  # the value says something else, but only this phrase can be meant

    @property
    def there(self) -> bool:
        """Whether the value stands in the text, as it is or in another form."""
        return self.status in (Status.STATED, Status.REWORDED)


def ground(value: Any, schema: Schema, text: str) -> Ground:
    """Judges one argument value against the request's text."""
    if value is None or value in ([], {}) or (isinstance(value, str) and not value.strip()):
        return Ground(Status.INVENTED)  # an empty value states nothing
    if isinstance(value, bool):
        return Ground(Status.UNCLEAR)
    if isinstance(value, dict):
        return _ground_object(value, schema, text)
    if isinstance(value, list):
        return _ground_list(value, items_of(schema), text)
    if isinstance(value, int | float):
        return _ground_number(value, schema, text)
    if isinstance(value, str):
        number = _number_in(value) if schema.get("type") in ("number", "integer") else None
        found = _ground_number(number, schema, text) if number is not None else None
        return found or _ground_text(value, schema, text)
    return Ground(Status.UNCLEAR)


def ground_all(
    arguments: Mapping[str, Any], properties: Mapping[str, Any], text: str
) -> dict[str, Ground]:
    """Judges a call's arguments together.

    A number or date that stands for one argument cannot be what another was computed from: an
    unclear number, date or time is judged again by what the other arguments leave of the text.
    Nor can it be what another one means but says wrongly.
    """
    schemas = {name: schema_of(properties, name) for name in arguments}
    found = {name: ground(value, schemas[name], text) for name, value in arguments.items()}
    guesses = [name for name, of in found.items() if of.guess]
    taken = [n for n in guesses if _taken(found[n], [g for m, g in found.items() if m != n])]
    found |= {name: Ground(Status.UNCLEAR) for name in taken}
    left = text
    for surface in sorted(surfaces(found.values()), key=len, reverse=True):
        left = left.replace(surface, " … ")
    for name, value in arguments.items():
        if found[name].status is Status.UNCLEAR and _measured(value, schemas[name]):
            again = ground(value, schemas[name], left)
            if not (again.guess and name in taken):
                found[name] = again
    return found


def stands(value: Any, schema: Schema, text: str) -> bool:
    """Whether a value stands in a text, as it is or in another form."""
    return ground(value, schema, text).there


def ground_call(call: ToolCall, tool: Tool | None, request: Request) -> dict[str, Ground]:
    """Judges a call against what the user and the tools have said to the model.

    An object that a tool has returned is no object that the user asks to be passed on.
    """
    found = ground_all(call.arguments, tool.properties if tool else {}, request.user_text)
    own = "\n".join(m.content for m in request.messages if m.role == "user")
    return {
        name: Ground(Status.UNCLEAR)
        if of.kind is literals and of.guess and of.surface not in own
        else of
        for name, of in found.items()
    }


def lacking(call: ToolCall, request: Request) -> list[str]:
    """The required arguments whose values nobody in the conversation has stated.

    Not so one that says nothing or the default, nor a text of some length: that is composed, as it
    may be meant. What is left may still be inferred: Paris, of the Eiffel Tower.
    """
    tool = request.tool(call.name)
    if tool is None:
        return []
    found = ground_call(call, tool, request)
    missing = []
    for name in dict.fromkeys((*tool.properties, *sorted(tool.required))):
        if name in tool.required and name in found and found[name].status is Status.INVENTED:
            value, schema = call.arguments[name], schema_of(tool.properties, name)
            if not (_unsaid(value, schema) or stands(value, schema, request.others_text)):
                missing.append(name)
    return missing


def unfounded(name: str, value: Any, found: Ground, request: Request) -> bool:
    """Whether nothing that the user said speaks for an argument's value.

    That is more than invented: a truth value is unclear always, and a code in capitals may stand
    for a word. But where no word of the argument's name was said, and none that begins like the
    code, only what the model makes of it is left.
    """
    if found.status is not Status.UNCLEAR:
        return found.status is Status.INVENTED
    told = re.findall(r"[^\W_]{3,}", request.user_text.lower())
    if isinstance(value, bool):
        words = re.findall(r"[^\W_]{3,}", spaced(name).lower())
        return not any(_akin(word, other) for word in words for other in told)
    code = isinstance(value, str) and re.fullmatch(_CODE, value)
    return bool(code) and not any(other[0] == value[0].lower() for other in told)


def _unsaid(value: Any, schema: Schema) -> bool:
    """Whether a value is none, the default, or composed: nothing that somebody had to state."""
    if value in (None, "", [], {}) or ("default" in schema and schema["default"] == value):
        return True
    text = str(value)
    return len(text.split()) >= COMPOSED or (not text.isascii() and len(text) >= 3 * COMPOSED)


def surfaces(found: Iterable[Ground]) -> set[str]:
    """The words in which values stand, also those of lists' items."""
    every = [part for g in found for part in (g, *g.parts)]
    return {g.surface for g in every if g.surface}


def _taken(guess: Ground, others: Sequence[Ground]) -> bool:
    """Whether the words of a guess, or the number in an amount, stand for another argument."""
    words = surfaces(others)
    inside = guess.kind is amounts and any(w in guess.surface for w in words)
    return inside or guess.surface in words


def _measured(value: Any, schema: Schema) -> bool:
    if isinstance(value, str):
        stated = temporal.stated_format(schema)
        return bool(stated or temporal.formats_of(value, None) or temporal.find(value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers(text: str) -> list[tuple[str, float]]:
    """Every number in a text, as it stands and as a value."""
    return [(found.surface, _as_float(found.value)) for found in numerals.find(text)]


def _number_in(value: str) -> int | float | None:
    """A number written as text, where the schema wants a number."""
    digits = re.fullmatch(numerals.DIGITS, value)
    return numerals.as_json(numerals.read(value)) if digits else None


def _as_float(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def whole(surface: str) -> str:
    """A pattern for these words uncut: `art` is not in `party`, nor `3` in `3:30` or `3,100`."""
    if surface in names.SIGNS:
        return re.escape(surface)  # `$` in `$20`
    left = r"(?<!\w)(?<!\d[.,:/])" if surface[:1].isdigit() else r"(?<!\w)"
    right = r"(?!\w)(?![.,:/]\d)" if surface[-1:].isdigit() else r"(?!\w)"
    if len(surface) == 1 and surface.isalpha():
        left, right = rf"{left}(?<!\w['’])", rf"{right}(?!['’]\w)"  # no `M` in `I'm`
    return f"{left}{re.escape(surface)}{right}"


def find_surface(value: str, text: str) -> str | None:
    """How a string stands in a text: its exact letters if they are there, else in any case."""
    pattern = whole(value)
    match = re.search(pattern, text) or re.search(pattern, text, re.IGNORECASE)
    return match.group() if match else None


def _ground_number(value: int | float, schema: Schema, text: str) -> Ground:
    stated = amounts.stated_format(schema)
    left = text
    if stated is not None:
        for phrase in amounts.find(text):
            wanted = amounts.write(phrase, stated)
            if wanted is not None and not amounts.says(value, stated, phrase):
                left = left.replace(phrase.surface, " … ")  # 30 is not 30 minutes in seconds
    for told in (_without_moments(left), left):  # 3 nights rather than the 03 of a date
        for numeral in numerals.find(told):
            if numeral.plain and numerals.same(value, numeral.value):
                return Ground(Status.STATED, numeral.surface)
    worded = _ground_phrase(value, schema, text, [amounts])
    unclear = _tells_numbers(text) or hints.number(value, text)
    return worded or Ground(Status.UNCLEAR if unclear else Status.INVENTED)


def _without_moments(text: str) -> str:
    for phrase in temporal.find(text):
        text = text.replace(phrase.surface, " … ")
    return text


def _tells_numbers(text: str) -> bool:
    """Whether some number is told from which another might be computed (`5kg`, `a dozen`)."""
    loose = any(word in text.lower() for word in _LOOSE_NUMBERS) or bool(amounts.find(text))
    return loose or bool(numbers(text)) or bool(re.search(r"(?<![\w^])\d+[A-Za-z]", text))


def _ground_object(value: dict[str, Any], schema: Schema, text: str) -> Ground:
    if nesting(value) > MAX_NESTING:
        return Ground(Status.UNCLEAR)
    phrases = literals.find(text)
    for phrase in phrases:
        if literals.says(value, literals.FORMAT, phrase):
            return Ground(Status.STATED, phrase.surface, phrase, literals, literals.FORMAT)
    known = schema.get("properties")
    meant = {
        phrase.surface: phrase
        for phrase in phrases
        if literals.wraps(phrase, value)
        and not (isinstance(known, Mapping) and known and not literals.keys(phrase) <= known.keys())
    }
    if len(meant) != 1:
        return Ground(Status.UNCLEAR)
    (outer,) = meant.values()
    return Ground(Status.REWORDED, outer.surface, outer, literals, literals.FORMAT, guess=True)


def _ground_list(items: list[Any], schema: Schema, text: str, joint: str = "") -> Ground:
    parts = tuple(ground(item, schema, text) for item in items)
    statuses = {part.status for part in parts}
    if statuses == {Status.STATED}:
        return Ground(Status.STATED, parts=parts, joint=joint)
    if statuses <= {Status.STATED, Status.REWORDED}:
        return Ground(Status.REWORDED, parts=parts, joint=joint)
    return Ground(Status.INVENTED if statuses == {Status.INVENTED} else Status.UNCLEAR)


def _ground_text(value: str, schema: Schema, text: str) -> Ground:
    stated = temporal.stated_format(schema)
    formats = temporal.formats_of(value, stated)
    if formats or stated:
        return _ground_moment(value, schema, text)
    surface = find_surface(value.strip(), text)
    exact = surface is not None and ("enum" not in schema or surface == value)
    if not exact or kinds.wanted(schema) is not None:
        worded = _ground_phrase(value, schema, text, kinds.of(schema))
        if worded is not None:
            return worded
    if surface is not None:
        return Ground(Status.STATED, surface)
    joined = _ground_joined(value, text)
    if joined is not None:
        return joined
    if not schema.keys().isdisjoint(_CHOICES):
        return Ground(Status.UNCLEAR)  # a choice among few: it may be meant in other words
    told = re.findall(r"[^\W_]+", text.lower())
    words = re.findall(r"[^\W_]+", spaced(value).lower())
    words = [w for w in words if len(w) > 2 and w not in _STOP_WORDS]
    if re.fullmatch(r"[\d\W]+", value):
        return Ground(Status.UNCLEAR if _tells_numbers(text) else Status.INVENTED)
    if not words or re.fullmatch(_CODE, value):
        return Ground(Status.UNCLEAR)  # a code: it may stand for a word of the request
    if hints.words(words, text) or hints.initials(value, text):
        return Ground(Status.UNCLEAR)
    if any(_akin(word, other) for word in words for other in told):
        return Ground(Status.UNCLEAR)
    if temporal.find(value):
        return Ground(Status.UNCLEAR if temporal.find(text) else Status.INVENTED)
    return Ground(Status.INVENTED)


def _ground_phrase(
    value: Any, schema: Schema, text: str, of_kinds: Sequence[Kind]
) -> Ground | None:
    """The phrase of the text that a value says in another form; None if no kind knows one."""
    for kind in of_kinds:
        stated = kind.stated_format(schema)
        formats = kind.formats_of(value, stated)
        if not formats and stated is None:
            continue
        phrases = kind.find(text)
        for phrase in phrases:
            for reading in phrase.readings():
                said = next((f for f in formats if kind.says(value, f, reading)), None)
                if said is None:
                    continue
                if stated is not None and kind.write(reading, stated) is not None:
                    said = stated  # whatever the draft wrote: that is the lesson
                same = phrase.surface == value
                right = same and (stated is None or kind.says(value, stated, reading))
                status = Status.STATED if right else Status.REWORDED
                copied = same and stated is None
                return Ground(status, phrase.surface, reading, kind, None if copied else said)
        if stated is not None:
            # wrongly written by the model, but only one phrase of the request can be meant
            meant = [phrase for phrase in phrases if kind.write(phrase, stated) is not None]
            if len({phrase.surface for phrase in meant}) == 1:
                only = meant[0]
                return Ground(Status.REWORDED, only.surface, only, kind, stated, guess=True)
    return None


def _ground_moment(value: str, schema: Schema, text: str) -> Ground:
    worded = _ground_phrase(value, schema, text, [temporal])
    if worded is not None:
        return worded
    phrases = temporal.find(text)
    surface = find_surface(value, text)
    if surface is not None and not any(surface in p.surface for p in phrases):
        return Ground(Status.STATED, surface)
    told = phrases or _tells_numbers(text)
    return Ground(Status.UNCLEAR if told else Status.INVENTED)


def _ground_joined(value: str, text: str) -> Ground | None:
    """A list that is wanted as one text: `apples, pears, plums`; each item must stand there."""
    joint = next((sign for sign in (", ", ",", "; ", ";", "|") if sign in value), None)
    items = value.split(joint) if joint else []
    if len(items) < 2 or any(item != item.strip() or len(item.split()) > 4 for item in items):
        return None
    found = _ground_list(items, {}, text, str(joint))
    return found if found.parts else None


def _akin(word: str, other: str) -> bool:
    """Same word up to its ending or spelling (`nurse`, `nurses`), or its abbreviation."""
    if len(word) < 4 or len(other) < 4:
        return word == other or (len(word) == 3 and other.startswith(word))
    return word[:5] == other[:5] or bool(fuzz.ratio(word, other) >= 80)
