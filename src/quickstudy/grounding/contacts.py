"""E-mail addresses, web addresses and phone numbers, as they are said and as a call wants them.

`+44 20 7946 0018` is `+442079460018`, `example.com` is `https://example.com`, `ann at mail dot
org` is `ann@mail.org`. A kind as in `phrases.py`; a format is a `ContactFormat`.
"""

from __future__ import annotations

import random
import re
import string
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from quickstudy.grounding.phrases import Phrase, Schema, described

_WORD = r"[\w%+-]{1,64}"
_FIND = re.compile(
    rf"(?P<email>\b{_WORD}(?:\.{_WORD}){{0,5}}@{_WORD}(?:\.{_WORD}){{1,5}})"
    rf"|(?P<spoken>\b{_WORD}(?: dot {_WORD}){{0,5}} at {_WORD}(?: dot {_WORD}){{1,5}})\b"
    r"|(?P<url>\bhttps?://[^\s<>\"']*[\w/]"
    r"|(?<![\w@./])(?:[a-z0-9-]{1,63}\.){1,5}(?:com|org|net|io|edu|gov|dev|app|ai|co\.uk|de|fr)\b"
    r"(?:/[^\s<>\"']*[\w/])?)"
    r"|(?P<phone>(?<![\w.+-])(?:\+|\(\d{1,4}\)|\d)[\d()./ -]{5,18}\d)(?![\w-]|[.,:/]\d)",
    re.IGNORECASE | re.ASCII,
)
_DIGIT = re.compile(r"\d", re.ASCII)
_DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d+(?:\.\d+)?|[\d ]*\d{1,2}\.\d{1,2}", re.ASCII
)


@dataclass(frozen=True)
class ContactFormat:
    """How a phone number is grouped (`#` for a digit; "" for digits alone), or a URL begins."""

    kind: str
    style: str = ""


@lru_cache(maxsize=256)
def _found(text: str) -> tuple[Phrase, ...]:
    found = []
    for match in _FIND.finditer(text):
        kind, surface = str(match.lastgroup), match.group()
        if kind == "phone" and (_DATE.fullmatch(surface) or not 7 <= _digits(surface) <= 15):
            continue
        found.append(Phrase(surface, "email" if kind == "spoken" else kind, _plain(kind, surface)))
    return tuple(found)


def find(text: str) -> list[Phrase]:
    return list(_found(text))


def stated_format(schema: Schema) -> ContactFormat | None:
    """The grouping of a phone number, if the schema says E.164, digits only, or shows one."""
    text = described(schema)
    if schema.get("type", "string") != "string" or not re.search(
        r"phone|mobile|E\.?164", text, re.I
    ):
        return None
    if re.search(r"\bE\.?164\b", text):
        return ContactFormat("phone", "+")
    if re.search(r"digits only|only digits|without (?:spaces|separators)", text, re.IGNORECASE):
        return ContactFormat("phone", "")
    shown = {
        _style(p.surface) for p in find(str(schema.get("description", ""))) if p.kind == "phone"
    }
    return ContactFormat("phone", shown.pop()) if len(shown) == 1 else None


def formats_of(value: Any, stated: ContactFormat | None) -> list[ContactFormat]:
    found = find(value) if isinstance(value, str) else []
    if isinstance(value, str) and re.fullmatch(r"\+?\d{7,15}", value, re.ASCII):
        return [ContactFormat("phone", _style(value))]
    if len(found) != 1 or found[0].surface != value:
        return []
    if found[0].kind == "url":
        begin = re.match(r"(?:https?://)?(?:www\.)?", value, re.IGNORECASE)
        return [ContactFormat("url", begin.group() if begin else "")]
    return [ContactFormat(found[0].kind, _style(value) if found[0].kind == "phone" else "")]


def says(value: Any, format: ContactFormat, phrase: Phrase) -> bool:
    return isinstance(value, str) and phrase.kind == format.kind and write(phrase, format) == value


def write(phrase: Phrase, format: ContactFormat) -> Any:
    if phrase.kind != format.kind:
        return None
    if phrase.kind == "email":
        return phrase.meaning
    if phrase.kind == "url":
        return format.style + phrase.meaning
    digits, plus = phrase.meaning.lstrip("+"), phrase.meaning.startswith("+")
    if format.style in ("", "+"):
        return None if format.style == "+" and not plus else format.style + digits
    if format.style.count("#") != len(digits) or ("+" in format.style) != plus:
        return None
    rest = iter(digits)
    return re.sub("#", lambda _: next(rest), format.style)


def fresh(phrase: Phrase, rng: random.Random) -> Phrase | None:
    """Other digits in the same grouping; other letters before the `@` or in a page's path."""
    if phrase.kind == "phone":
        first = re.match(r"\+\d{1,2}|", phrase.surface)
        kept = first.end() if first else 0  # the country stays
        words = phrase.surface[:kept] + _DIGIT.sub(
            lambda _: rng.choice(string.digits[1:]), phrase.surface[kept:]
        )
    elif phrase.kind == "email":
        name = rng.choice(_NAMES) if phrase.surface[:1].islower() else rng.choice(_NAMES).title()
        words = re.sub(r"^[^@ ]+(?: dot [^@ ]+)*", name, phrase.surface, count=1)
    else:
        words = re.sub(
            r"^((?:https?://)?(?:www\.)?)[\w-]+", rf"\g<1>{rng.choice(_SITES)}", phrase.surface
        )
    again = find(words)
    good = len(again) == 1 and again[0].surface == words and again[0].kind == phrase.kind
    return again[0] if good and again[0].meaning != phrase.meaning else None


def spoken(value: Any, format: ContactFormat, like: Phrase | None) -> str | None:
    """A phone number in groups of digits; addresses are said as they are written."""
    if format.kind != "phone" or not isinstance(value, str) or like is None:
        return None
    told = find(value)
    return write(told[0], ContactFormat("phone", _style(like.surface))) if told else None


_NAMES = "amara bruno clara dmitri elena farid greta hugo ines jonas".split()
_SITES = "bluefern northgate papertrail riverstone sunfield tallpine".split()


def _plain(kind: str, surface: str) -> str:
    if kind == "phone":
        return ("+" if surface.startswith("+") else "") + re.sub(r"\D", "", surface)
    if kind == "url":
        return re.sub(r"^(?:https?://)?(?:www\.)?", "", surface, flags=re.IGNORECASE)
    if kind == "spoken":
        return surface.replace(" dot ", ".").replace(" at ", "@")
    return surface


def _style(surface: str) -> str:
    pattern = _DIGIT.sub("#", surface)
    return pattern.replace("#", "") if set(pattern) <= {"#", "+"} else pattern


def _digits(surface: str) -> int:
    return len(_DIGIT.findall(surface))
