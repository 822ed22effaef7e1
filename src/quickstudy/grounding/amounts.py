"""Amounts: a number with its unit, in words and as an argument wants it.

`two and a half kilos` is 2.5 where kilograms are wanted, 2500 where grams are and `2.5 kg` where
the call writes units; `an hour and a quarter` is 75 minutes; `20 percent` is 20 or 0.2; `half a
million` is 500000. Units are converted exactly, within one dimension. A kind as in `phrases.py`.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from quickstudy.grounding import numerals
from quickstudy.grounding.phrases import Phrase, Schema

# dimension: unit, how many of the dimension's first unit, and how it is written (`s` for plurals)
_TABLE = """
time: s 1 second(s) sec(s) | min 60 minute(s) min(s) | h 3600 hour(s) hr(s) | d 86400 day(s)
time: ms 1/1000 millisecond(s) | week 604800 week(s)
mass: g 1 gram(s) gramme(s) | kg 1000 kilogram(s) kilo(s) kilogramme(s) kgs | mg 1/1000 milligram(s)
mass: t 1000000 tonne(s) | lb 45359237/100000 pound(s) lbs | oz 45359237/1600000 ounce(s)
length: m 1 metre(s) meter(s) | km 1000 kilometre(s) kilometer(s) kms
length: cm 1/100 centimetre(s) centimeter(s)
length: mm 1/1000 millimetre(s) millimeter(s) | mi 1609344/1000 mile(s) | ft 3048/10000 feet foot
length: inch 254/10000 inch(es) | yd 9144/10000 yard(s)
volume: l 1 litre(s) liter(s) | ml 1/1000 millilitre(s) milliliter(s)
volume: cl 1/100 centilitre(s) centiliter(s)
data: B 1 byte(s) | KB 1000 kilobyte(s) | MB 1000000 megabyte(s) | GB 1000000000 gigabyte(s) gigs
data: TB 1000000000000 terabyte(s)
power: W 1 watt(s) | kW 1000 kilowatt(s) | MW 1000000 megawatt(s)
share: % 1 percent percentage
"""  # fmt: skip
_ALONE = frozenset({"d", "B", "t", "%", "inch", "week"})  # too short to be read, or no symbol

_UNITS: dict[str, tuple[str, Fraction]] = {}  # unit: its dimension, its size
_WRITTEN: dict[str, str] = {}  # as written, in small letters: unit
_PLURALS: dict[str, str] = {}  # unit: its usual word
for _line in _TABLE.strip().splitlines():
    _dimension, _, _entries = _line.partition(": ")
    for _entry in _entries.split(" | "):
        _unit, _size, *_names = _entry.split()
        _UNITS[_unit] = (_dimension, Fraction(_size))
        if _unit not in _ALONE:
            _WRITTEN[_unit.lower()] = _unit
        for _name in _names:
            _stem, _, _plural = _name.partition("(")
            _WRITTEN |= {_stem: _unit, _stem + _plural.rstrip(")"): _unit}
            _PLURALS.setdefault(_unit, _stem + _plural.rstrip(")"))
_WRITTEN["per cent"] = "%"
_SIGNS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR"}


_UNIT = rf"(?:{'|'.join(sorted(map(re.escape, _WRITTEN), key=len, reverse=True))})\b"
_NUMBER = numerals.FIND.pattern
_LOOSE = rf"(?<![\w.^]){numerals.DIGITS}"  # `5kg`: the unit follows at once
_NOT_PER = r"(?! ?(?:per\b|/))"
_FIND = re.compile(
    rf"(?<!\w)(?P<share>half|(?:a )?quarter of|three[ -]quarters of) an? (?P<unit0>{_UNIT})"
    rf"|(?P<sign>[$€£¥₹]) ?(?P<price>{_NUMBER}|{numerals.DIGITS})"
    rf"|(?:(?P<number>{_NUMBER})[ -]?|(?P<digits>{_LOOSE})|(?P<one>\ban?) )"
    rf"(?:(?P<percent>%)|(?P<unit>{_UNIT}){_NOT_PER})(?P<part>{numerals.AND_PART}\b)?"
    rf"(?:(?P<link> and |, | )(?P<second>\d+|{numerals.LOW})(?P<gap>[ -]?)(?P<unit2>{_UNIT}))?",
    re.IGNORECASE,
)
_MONEY = "|".join(map(re.escape, _SIGNS))
_TEXT = re.compile(
    rf"(?P<before>(?:{_MONEY})? ?)(?P<number>{numerals.DIGITS})"
    rf"(?P<after> ?(?:(?P<unit>%|{_UNIT})|(?P<code>[A-Z]{{3}})|))",
    re.IGNORECASE,
)
_IN_SCHEMA = re.compile(
    rf"(?:\b(?:in|of|as)(?: whole)? |\(|^)(?P<unit>{_UNIT})(?! ?(?:per\b|/|and\b|or\b|,|\^|²|³))",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"\bfraction\b|\bdecimal\b|\b0(?:\.0)? (?:to|and|-) 1(?:\.0)?\b", re.I)
_SHARE = re.compile(r"percent|rate\b|share|fraction|ratio\b|probability", re.IGNORECASE)
_COMPOUND = frozenset({"d", "h", "min", "ft", "lb"})  # `1 hour 30 minutes`, `5 feet 10 inches`
# in a schema these are parts of a clock or of money, or too short to be sure of
_NO_WISH = frozenset("second minute hour day week pound pounds m s l h g min sec b".split())


@dataclass(frozen=True)
class Amount:
    """A number of units; `unit` is "" for a bare number and a currency's code for money."""

    number: Fraction
    unit: str

    def of(self, unit: str) -> Fraction | None:
        """The number in another unit of the same dimension."""
        if unit == self.unit:
            return self.number
        if unit not in _UNITS or self.unit not in _UNITS:
            return None
        (dimension, size), (own, own_size) = _UNITS[unit], _UNITS[self.unit]
        return self.number * own_size / size if dimension == own else None


@dataclass(frozen=True)
class AmountFormat:
    """A number of `unit`; as text, with what stands before and after it, where `text` is true."""

    unit: str
    share: bool = False  # of one: 0.2 for 20 %
    guessed: bool = False  # no schema states the unit
    text: bool = False
    before: str = ""
    after: str = ""


@lru_cache(maxsize=256)
def _found(text: str) -> tuple[Phrase, ...]:
    matches = []
    for match in _FIND.finditer(text):
        if match["second"] and _amount(match) is None:  # two amounts side by side
            ends = (match.end("link"), match.start("link"))
            parts = [_FIND.match(text, match.start(), ends[1]), _FIND.match(text, ends[0])]
            matches += [part for part in parts if part is not None]
        else:
            matches.append(match)
    found = [(m.span(), Phrase(m.group(), "amount", _amount(m))) for m in matches]
    spans = [m.span() for m in matches if not m["price"]]  # the number of `$1.2k` is one as well
    for numeral in numerals.find(text):
        inside = any(start <= numeral.start < end for start, end in spans)
        if not inside and not numeral.plain:
            span = (numeral.start, numeral.start + len(numeral.surface))
            found.append((span, Phrase(numeral.surface, "amount", Amount(numeral.value, ""))))
    return tuple(phrase for _, phrase in sorted(found, key=lambda pair: pair[0]))


def find(text: str) -> list[Phrase]:
    """Amounts with units or currency signs, and numbers of more than digits or one word."""
    return list(_found(text))


def stated_format(schema: Schema) -> AmountFormat | None:
    """The unit that a number's schema names: in `weight_kg`, `minutes` or "in metres".

    None for texts, which may want the unit written or not, and where two units are named.
    """
    if schema.get("type") not in ("number", "integer"):
        return None
    text = str(schema.get("description", ""))
    name = str(schema.get("title", "")).replace("_", " ").lower()
    written = {match["unit"].lower() for match in _IN_SCHEMA.finditer(text)}
    last = name.rpartition(" ")[2]
    units = {_WRITTEN[w] for w in written - _NO_WISH}
    if last in _WRITTEN and last not in _NO_WISH:
        units.add(_WRITTEN[last])
    of_one = _FRACTION.search(text) or schema.get("maximum") == 1
    if units <= {"%"} and of_one and _SHARE.search(f"{name} {text}"):
        return AmountFormat("%", share=True)
    return AmountFormat(units.pop()) if len(units) == 1 else None


def formats_of(value: Any, stated: AmountFormat | None) -> list[AmountFormat]:
    if isinstance(value, str):
        return _text_formats(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    if stated is not None:
        return [stated]
    formats = [AmountFormat(unit, guessed=bool(unit)) for unit in ("", *_UNITS)]
    return [*formats, AmountFormat("%", share=True)] if 0 < value < 1 else formats


def says(value: Any, format: AmountFormat, phrase: Phrase) -> bool:
    wanted = _wanted(phrase.meaning, format)
    if wanted is None:
        return False
    if isinstance(value, str):
        parts = _TEXT.fullmatch(value) if format.text else None
        return parts is not None and numerals.read(parts["number"]) == wanted
    if format.text or isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # a small number may be there for other reasons: 7 for "a week", 1 for "an hour"
    own = phrase.meaning.unit == format.unit and wanted != 1
    return numerals.same(value, wanted) and (own or value >= 100 or not format.guessed)


def write(phrase: Phrase, format: AmountFormat) -> Any:
    """The amount as a JSON number, or as text; None if it is of another dimension."""
    number = _wanted(phrase.meaning, format)
    if number is None or not format.text:
        return None if number is None else numerals.as_json(number)
    return f"{format.before}{numerals.write(number, '1')}{format.after}"


def fresh(phrase: Phrase, rng: random.Random) -> Phrase | None:
    match = _FIND.fullmatch(phrase.surface)
    if not isinstance(phrase.meaning, Amount):
        return None
    for _ in range(20):
        if match is None:
            number = numerals.other(phrase.meaning.number, rng)
            words = numerals.write(number, phrase.surface) if number else None
        else:
            words = _like(match, rng)
        again = find(words) if words else []
        good = len(again) == 1 and again[0].surface == words
        if good and again[0].meaning not in (None, phrase.meaning):
            return again[0]
    return None


def spoken(value: Any, format: AmountFormat, like: Phrase | None) -> str | None:
    """A number with its unit in words; in the unit of `like` where that comes out even."""
    if isinstance(value, bool) or not isinstance(value, int | float) or format.text:
        return None
    if format.unit not in _PLURALS or not 1 < value < 10**9:
        return None
    amount, unit = Amount(Fraction(str(value)), format.unit), format.unit
    match = _FIND.fullmatch(like.surface) if like is not None else None
    if match is not None and isinstance(like.meaning if like else None, Amount):
        own = like.meaning.unit if like else unit
        told = amount.of(own)
        if own in _PLURALS and told is not None and told > 1 and 4 % told.denominator == 0:
            amount, unit = Amount(told, own), own
    number_like = (match["number"] or match["digits"] or "one") if match is not None else "1"
    number = numerals.write(amount.number, "1" if number_like[0].isdigit() else "one")
    words = f"{number} {_PLURALS[unit]}"
    again = find(words)
    return words if len(again) == 1 and says(value, format, again[0]) else None


def _wanted(amount: Any, format: AmountFormat) -> Fraction | None:
    if not isinstance(amount, Amount):
        return None
    number = amount.of(format.unit)
    return number / 100 if number is not None and format.share else number


def _amount(match: re.Match[str]) -> Amount | None:
    if match["share"]:
        return Amount(numerals.part(match["share"]), _WRITTEN[match["unit0"].lower()])
    if match["price"]:
        return Amount(numerals.read(match["price"]), _SIGNS[match["sign"]])
    unit = "%" if match["percent"] else _WRITTEN[match["unit"].lower()]
    number = Fraction(1) if match["one"] else numerals.read(match["number"] or match["digits"])
    number += numerals.part(match["part"]) if match["part"] else 0
    if match["second"]:
        rest = Amount(numerals.read(match["second"]), _WRITTEN[match["unit2"].lower()])
        one = Amount(Fraction(1), unit).of(rest.unit)
        if one is None or rest.number >= one or unit not in _COMPOUND:
            return None  # two amounts side by side, not `1 hour 30 minutes`
        number += rest.number / one
    return Amount(number, unit)


def _like(match: re.Match[str], rng: random.Random) -> str | None:
    """Another amount in the same style: unit, digits or words, sign, part of a unit."""
    text, start = match.group(), match.start()
    if match["share"] or match["one"]:
        plural = _many(match["unit"] or match["unit0"])
        count = numerals.spell(Fraction(rng.randint(2, 6)))
        part = rng.choice([" and a half", " and a quarter"])
        if match["share"]:
            return f"{count}{part} {plural}"
        return f"{count} {plural}{part}" if match["part"] else f"{count} {plural}"
    group = next(g for g in ("price", "number", "digits") if match[g])
    was = numerals.read(match[group])
    number = numerals.other(was, rng)
    words = numerals.write(number, match[group]) if number else None
    if words is None or number is None or (match["unit"] and number <= 1):
        return None
    if match["second"]:
        low, high = match.span("second")
        least = numerals.write(Fraction(rng.randint(2, 20)), match["second"])
        text = f"{text[: low - start]}{least}{text[high - start :]}"
    low, high = match.span(group)
    rest = text[high - start :]
    if match["unit"] and was <= 1:
        rest = rest.replace(match["unit"], _many(match["unit"]), 1)
    return text[: low - start] + words + rest


def _many(unit: str) -> str:
    plurals = (unit + ending for ending in ("s", "es") if (unit + ending).lower() in _WRITTEN)
    return next(plurals, unit) if len(unit) > 3 else unit


def _text_formats(value: str) -> list[AmountFormat]:
    """How a text writes an amount: what stands around its number, as `$` or ` kg`."""
    parts = _TEXT.fullmatch(value)
    if parts is None:
        return []
    if parts["unit"]:
        units = ["%" if parts["unit"] == "%" else _WRITTEN[parts["unit"].lower()]]
    elif parts["code"] or parts["before"].strip():
        units = [_SIGNS.get(parts["before"].strip(), str(parts["code"]).upper())]
    else:
        units = ["", *_UNITS, *_SIGNS.values()]
    return [
        AmountFormat(unit, text=True, before=parts["before"], after=parts["after"])
        for unit in units
    ]
