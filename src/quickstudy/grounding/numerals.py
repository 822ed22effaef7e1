"""Numbers as people write them: `1,200`, `twenty-one`, `1.2k`, `two hundred and fifty thousand`.

Reads them exactly (as fractions) and writes others alike. No units: those are in `amounts.py`.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from fractions import Fraction

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_WORDS = {word: n for n, word in enumerate(_ONES)} | {
    word: 10 * n for n, word in enumerate(_TENS, 2)
}
for _ten in _TENS:
    for _one in _ONES[1:10]:
        NUMBER_WORDS[f"{_ten}-{_one}"] = NUMBER_WORDS[_ten] + NUMBER_WORDS[_one]
_SCALES = {"dozen": 12, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SUFFIXES = {"k": 1000, "bn": 10**9}

# no longer than a float holds; Python refuses to read very long ones
DIGITS = r"(?:-?\d{1,3}(?:,\d{3}){1,9}(?:\.\d{1,30})?(?!\d)|-?\d{1,60}(?:\.\d{1,30})?(?!\d))"
LOW = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))
_GROUP = rf"(?:(?:(?:an?|{LOW}|\d+) hundred(?: (?:and )?(?:{LOW}))?)|(?:{LOW}))\b(?![ -]quarters)"
AND_PART = r"(?: and (?:an? half|an? quarter|three[ -]quarters))"
_SCALED = (
    rf"(?:(?:half an?|{_GROUP}|an?|{DIGITS}){AND_PART}? (?:{'|'.join(_SCALES)})\b"
    rf"|half (?:a )?dozen\b)"
)
_WORDS = (
    rf"(?:{_SCALED}(?:,? (?:and )?{_SCALED}){{0,3}}(?:,? (?:and )?{_GROUP})?|{_GROUP}){AND_PART}?"
)
# `2.1` is not a number in `1.2.1`, nor `5` in `x5` or `5kg`: what a unit follows is an amount
FIND = re.compile(
    rf"(?<![\w.^])(?:{_WORDS}|(?:{DIGITS})(?:(?:k|bn)\b)?{AND_PART}?)(?!\w)", re.IGNORECASE
)


@dataclass(frozen=True)
class Numeral:
    """A number as it stands in a text, from `start` on."""

    surface: str
    value: Fraction
    start: int

    @property
    def plain(self) -> bool:
        """Digits or one word of number: what is copied or spelt, not computed."""
        return bool(re.fullmatch(DIGITS, self.surface)) or self.surface.lower() in NUMBER_WORDS


def find(text: str) -> list[Numeral]:
    """Every number in a text, left to right."""
    return [Numeral(m.group(), read(m.group()), m.start()) for m in FIND.finditer(text)]


def read(surface: str) -> Fraction:
    """The number that these words or digits tell; they are what `find` finds."""
    text = surface.lower()
    ending = re.search(rf"{AND_PART}$", text)
    extra = part(ending.group()) if ending else Fraction()
    text = text[: ending.start()] if ending else text
    suffix = re.fullmatch(rf"({DIGITS})(k|bn)", text)
    if suffix:
        return _digits(suffix[1]) * _SUFFIXES[suffix[2]]
    if re.fullmatch(DIGITS, text):
        return _digits(text) + extra
    total, group = Fraction(0), Fraction(0)
    tokens = re.findall(rf"{DIGITS}|[a-z]+(?:-[a-z]+)?", text.replace("-quarters", " quarters"))
    for position, token in enumerate(tokens):
        if token in _SCALES:
            total += (group or Fraction(1)) * _SCALES[token]
            group = Fraction(0)
        elif token == "hundred":
            group = (group or Fraction(1)) * 100
        elif token in ("half", "quarter"):  # `half a million`, `two and a half million`
            group += part(token)
        elif token in NUMBER_WORDS:
            quarters = tokens[position + 1 : position + 2] == ["quarters"]
            group += NUMBER_WORDS[token] * (Fraction(1, 4) if quarters else 1)
        elif token[0].isdigit() or token[0] == "-":
            group += _digits(token)
    return total + group + extra


def part(words: str) -> Fraction:
    """The part of one in ` and a half`, `a quarter of`."""
    text = words.lower().replace("-", " ")
    return Fraction(1, 2) if "half" in text else Fraction(3 if "three" in text else 1, 4)


def same(value: int | float, number: Fraction) -> bool:
    """Whether a JSON number is this number, but for a float's rounding."""
    if isinstance(value, int):
        return value == number
    try:
        return math.isclose(value, number, rel_tol=1e-9)
    except OverflowError:
        return False


def as_json(number: Fraction) -> int | float | None:
    """The number as JSON holds it; None where no float can."""
    if number.denominator == 1:
        return number.numerator
    try:
        return float(number)
    except OverflowError:
        return None


def other(number: Fraction, rng: random.Random) -> Fraction | None:
    """Another positive number of about the same size and as round as this one."""
    step = Fraction(1)
    if number.denominator == 1 and number:
        while number % (step * 10) == 0 and step * 10 < abs(number):
            step *= 10
    elif number.denominator in (2, 4):
        step = Fraction(1, number.denominator)
    else:
        step = Fraction(1, 10 ** _places(number))
    low = 2 if number.denominator == 1 and step == 1 else 1
    most = min(max(int(2 * abs(number) / step), low + 9), 10**6)
    for _ in range(30):
        found = rng.randint(low, most) * step
        if found != number and found.denominator == number.denominator:
            return found
    return None


def write(number: Fraction, like: str) -> str | None:
    """A number of zero or more in the style of another's surface; None if the style has no way."""
    text = like.lower()
    suffix = re.fullmatch(rf"(?:{DIGITS})(k|bn)", text)
    if suffix:
        return f"{_decimal(number / _SUFFIXES[suffix[1]])}{like[-len(suffix[1]) :]}"
    if re.fullmatch(DIGITS, text):
        return _decimal(number, grouped="," in text)
    scale = re.fullmatch(rf"({DIGITS}) ({'|'.join(_SCALES)})", text)
    if scale:
        return f"{_decimal(number / _SCALES[scale[2]])} {scale[2]}"
    words = spell(number)
    return words and (words.capitalize() if like[:1].isupper() else words)


def spell(number: Fraction) -> str | None:
    """A number under a thousand billions in English words; None for what has none."""
    whole, rest = divmod(number, 1)
    part = {
        Fraction(0): "",
        Fraction(1, 2): " and a half",
        Fraction(1, 4): " and a quarter",
        Fraction(3, 4): " and three quarters",
    }.get(rest)
    if part is None or not 0 <= whole < 10**12:
        return None
    groups = []
    for name, scale in (("billion", 10**9), ("million", 10**6), ("thousand", 1000)):
        if whole >= scale:
            groups.append(f"{_spell_low(int(whole // scale))} {name}")
            whole %= scale
    if whole or not groups:
        low = _spell_low(int(whole))
        groups.append(low if not groups or whole >= 100 else f"and {low}")
    return " ".join(groups) + part


def _spell_low(number: int) -> str:
    hundreds, low = divmod(number, 100)
    words = {value: word for word, value in NUMBER_WORDS.items()}[low]
    if not hundreds:
        return words
    return f"{_ONES[hundreds]} hundred" + (f" and {words}" if low else "")


def _digits(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _places(number: Fraction) -> int:
    """Decimal places to write a number with, at most six."""
    return next((n for n in range(6) if (number * 10**n).denominator == 1), 6)


def _decimal(number: Fraction, grouped: bool = False) -> str:
    return f"{float(number):{',' if grouped else ''}.{_places(number)}f}"
