"""Words that a value may come from though it shares no letters with them: `couple` for 2.

No proof that the request states the value, only that nobody can call it invented.
"""

from __future__ import annotations

import re

_WORDS = re.compile(r"[^\W\d_]+")
_NUMBERS: dict[str, tuple[float, ...]] = {
    "no none without mute muted off empty": (0,),
    "single alone solo myself": (1,),
    "couple pair both double twin twins wife husband partner": (2,),
    "triple trio": (3,),
    "full fully max maximum completely": (100,),
    "grand": (1000,),
    "noon": (0, 12),
    "midnight": (0, 24),
    "week weeks weekly": (7,),
    "fortnight": (2, 14),
    "month months monthly": (28, 30, 31),
    "quarter quarterly": (3, 4),
    "year years yearly annual annually": (12, 52, 365),
    "decade": (10,),
    "century": (100,),
}
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()
_MONTHS = (
    "january february march april may june july august september october november december"
).split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_LEADS: dict[str, set[float]] = {}
for _words, _values in _NUMBERS.items():
    for _word in _words.split():
        _LEADS[_word] = set(_values)
for _list in (_ORDINALS, _MONTHS):
    for _number, _word in enumerate(_list, 1):
        _LEADS.setdefault(_word, set()).add(_number)
for _number, _word in enumerate(_ORDINALS):
    _LEADS[_word].add(_number)  # counted from zero
for _word in _DAYS:
    _LEADS[_word] = set(range(8))  # weeks begin on any day, and at 0 or at 1

# a value's word: what may have led to it
_FREQUENT = r"every|each|daily|weekly|monthly|yearly|annual|per|regular"
_SORTED = r"\w{3,}est|most|least|best|top|recent|sort|order|rank|low|high|cheap|old|new"
_SEX = r"s?he|hers?|him|his|m[ae]n|wom[ae]n|wife|husband|m[ou]m|mother|dad|father|son|daughter"
_SEX += r"|sister|brother|aunt|uncle|girl|boy|lady|ladies|guys?|gentlem[ae]n"
_TEXTS = (
    (r"(?:hour|dai|bi-?week|week|bi-?month|month|quarter|year|annual)(?:ly)?|annually", _FREQUENT),
    (r"asc|desc|ascending|descending", _SORTED),
    (r"(?:fe)?male|wom[ae]n|m[ae]n|girls?|boys?", _SEX),
    (r"celsius|centigrade|fahrenheit|metric|imperial", r"degrees?|\d*[cf]"),
    (
        r"mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun|\w+day",
        "week|weekdays?|weekends?|days?",
    ),
)
_TEXT_HINTS = [
    (re.compile(rf"(?:{value})\Z", re.I), re.compile(rf"(?<![^\W_])(?:{text})(?![^\W_])", re.I))
    for value, text in _TEXTS
]


def number(value: float, text: str) -> bool:
    """Whether words of the text, or digits inside a word (`Q3`, `10k`), may tell this number."""
    if any(value in _LEADS.get(word.lower(), ()) for word in _WORDS.findall(text)):
        return True
    digits = re.findall(r"\d{1,18}", text, re.ASCII)
    return any(value == int(d) or (len(d) == 2 and value % 100 == int(d)) for d in digits)


def words(value: list[str], text: str) -> bool:
    """Whether the text may lead to one of a value's words."""
    return any(
        told.search(text) for word in value for wanted, told in _TEXT_HINTS if wanted.match(word)
    )


def initials(value: str, text: str) -> bool:
    """Whether the text abbreviates the value's first words: `LA`, `NYC` for `New York`."""
    first = "".join(word[0] for word in re.findall(r"[^\W\d_]+", value))
    short = re.findall(r"\b[A-Z]{2,5}\b", text.replace(".", ""))
    return len(first) > 1 and any(
        first.upper().startswith(word) or word.startswith(first.upper()) for word in short
    )
