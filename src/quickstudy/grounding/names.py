"""Names that have codes: countries, languages, currencies, US states, weekdays, months.

`Japan` is `JP`, `JPN` or `Japan` in a call, `euros` are `EUR`, `Monday` is `mon`: as the schema
states ("ISO 3166-1 alpha-2") or as the call's own value shows. English names and codes are
CLDR's, through babel, loaded when first needed. A kind as in `phrases.py`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from quickstudy.augmentation.values import listed
from quickstudy.grounding.phrases import Phrase, Schema, described

# what people say beside CLDR's names; a table's name: {as said: the entry's key}
_ALSO = {
    "country": {
        "usa": "US", "us": "US", "u.s.": "US", "u.s": "US", "america": "US", "uk": "GB",
        "united states of america": "US", "britain": "GB", "great britain": "GB", "uae": "AE",
        "holland": "NL", "czech republic": "CZ", "turkey": "TR", "hong kong": "HK",
        "ivory coast": "CI", "bosnia": "BA", "bosnia and herzegovina": "BA", "burma": "MM",
    },
    "language": {"mandarin": "zh", "farsi": "fa", "castilian": "es"},
    "currency": {
        "$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "dollar": "USD",
        "dollars": "USD", "bucks": "USD", "pounds": "GBP", "pound": "GBP", "sterling": "GBP",
        "pounds sterling": "GBP", "yen": "JPY", "rupee": "INR", "rupees": "INR", "yuan": "CNY",
        "renminbi": "CNY", "franc": "CHF", "francs": "CHF", "baht": "THB", "rand": "ZAR",
        "rubles": "RUB", "roubles": "RUB", "zloty": "PLN", "bitcoin": "BTC",
    },
}  # fmt: skip
# what practice uses: small models know these
_COMMON = {
    "country": "US GB FR DE IT ES JP CN IN BR CA AU MX NL SE NO PL PT GR CH AT EG KE ZA AR KR TH",
    "language": "en fr de es it pt nl sv pl ru ja zh ko ar hi tr el da fi",
    "currency": "USD EUR GBP JPY CHF CAD AUD INR CNY SEK MXN",
    "state": "CA TX NY FL WA OR CO GA OH MI AZ MA NC VA",
    "weekday": "MO TU WE TH FR SA SU",
    "month": "1 2 3 4 5 6 7 8 9 10 11 12",
}
_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_MONTHS = (
    "January February March April May June July August September October November December"
).split()
_STATES = (
    "AL Alabama, AK Alaska, AZ Arizona, AR Arkansas, CA California, CO Colorado, CT Connecticut, "
    "DE Delaware, FL Florida, GA Georgia, HI Hawaii, ID Idaho, IL Illinois, IN Indiana, IA Iowa, "
    "KS Kansas, KY Kentucky, LA Louisiana, ME Maine, MD Maryland, MA Massachusetts, MI Michigan, "
    "MN Minnesota, MS Mississippi, MO Missouri, MT Montana, NE Nebraska, NV Nevada, "
    "NH New Hampshire, NJ New Jersey, NM New Mexico, NY New York, NC North Carolina, "
    "ND North Dakota, OH Ohio, OK Oklahoma, OR Oregon, PA Pennsylvania, RI Rhode Island, "
    "SC South Carolina, SD South Dakota, TN Tennessee, TX Texas, UT Utah, VT Vermont, "
    "VA Virginia, WA Washington, WV West Virginia, WI Wisconsin, WY Wyoming"
)
_ARTICLED = frozenset({"US", "GB", "NL"})  # `in the United States`: the article is not ours
SIGNS = frozenset("$€£¥₹")
# how descriptions ask for a code: table, form
_STATED = (
    (r"\bISO[- ]?3166(?:-1)?[- ]alpha[- ]3|(?:three|3)-letter country code", "country", "alpha3"),
    (r"\bISO[- ]?3166(?:-1)?(?:[- ]alpha[- ]2)?\b", "country", "code"),
    (r"(?:two|2)-letter country code", "country", "code"),
    (r"\bISO[- ]?639-[23]\b|(?:three|3)-letter language code", "language", "alpha3"),
    (r"\bISO[- ]?639(?:-1)?\b|(?:two|2)-letter language code", "language", "code"),
    (r"\bISO[- ]?4217\b|(?:three|3)-letter currency code|\bcurrency code\b", "currency", "code"),
    (r"(?:two|2)-letter (?:US )?state (?:code|abbreviation)", "state", "code"),
    (r"first three letters", "weekday", "short"),
)  # fmt: skip
# the second alpha-3 code that ISO 639-2 gives some languages
_BIBLIOGRAPHIC = frozenset(
    "alb arm baq bur chi cze dut fre geo ger gre ice mac mao may per rum slo tib wel".split()
)
_OTHER_WORDS = frozenset("us may march polish turkey china chad rand pound".split())


@dataclass(frozen=True)
class NameFormat:
    """One spelling of a table's entries. `case` is lower, upper or as the table has it ("")."""

    table: str
    form: str
    case: str = ""


@dataclass(frozen=True)
class _Table:
    forms: Mapping[str, Mapping[str, str]]  # an entry's key: {form: spelling}
    said: Mapping[str, str]  # as people say it, in small letters: key


@lru_cache(maxsize=1)
def _tables() -> dict[str, _Table]:
    from babel import Locale  # its data takes 40 ms to read
    from babel.core import get_global
    from babel.numbers import get_currency_name

    english = Locale("en")
    long_country = _longer(get_global("territory_aliases"))
    long_language = _longer(get_global("language_aliases"))
    countries = {
        key: {"code": key, "alpha3": long_country.get(key, ""), "name": name}
        for key, name in english.territories.items()
        if len(key) == 2 and key in get_global("territory_currencies") and key != "ZZ"
    }
    languages = {
        key: {"code": key, "alpha3": long_language.get(key, ""), "name": name}
        for key, name in english.languages.items()
        if len(key) == 2
    }
    current = {
        entry[0]
        for used in get_global("territory_currencies").values()
        for entry in used
        if entry[2] is None and entry[3]
    }
    currencies = {
        key: {"code": key, "name": name}
        for key, name in english.currencies.items()
        if key in current
    }
    plurals = {
        get_currency_name(key, count=count, locale=english).lower(): key
        for key in currencies
        for count in (1, 2)
    }
    states = dict(entry.split(" ", 1) for entry in _STATES.split(", "))
    return {
        "country": _table(countries, _ALSO["country"]),
        "language": _table(languages, _ALSO["language"]),
        "currency": _table(currencies, plurals | _ALSO["currency"]),
        "state": _table({k: {"code": k, "name": n} for k, n in states.items()}),
        "weekday": _table(
            {n[:2].upper(): {"name": n, "short": n[:3], "two": n[:2]} for n in _WEEKDAYS},
            {n.lower() + "s": n[:2].upper() for n in _WEEKDAYS},
        ),
        "month": _table({str(i): {"name": n, "short": n[:3]} for i, n in enumerate(_MONTHS, 1)}),
    }


def _longer(aliases: Mapping[str, Any]) -> dict[str, str]:
    """Two-letter codes with their three-letter ones, out of CLDR's table of aliases."""
    found = {}
    for old, new in aliases.items():
        targets = new if isinstance(new, list) else [new]
        if len(old) == 3 and old.isalpha() and old not in _BIBLIOGRAPHIC and len(targets) == 1:
            found[targets[0]] = old
    return found


def _table(forms: Mapping[str, Mapping[str, str]], also: Mapping[str, str] | None = None) -> _Table:
    named = {entry["name"].lower(): key for key, entry in forms.items()}
    plain = {name.replace("&", "and").replace("’", "'"): key for name, key in named.items()}
    return _Table(forms, named | plain | {s: k for s, k in (also or {}).items() if k in forms})


@lru_cache(maxsize=1)
def _said() -> dict[str, list[tuple[str, str]]]:
    """As people say it, in small letters: the tables and keys that it may mean."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, table in _tables().items():
        for said, key in table.said.items():
            found.setdefault(said, []).append((name, key))
    return found


@lru_cache(maxsize=256)
def _found(text: str) -> tuple[Phrase, ...]:
    """Longest names first from each word on; a name of two tables is a phrase for each."""
    words = list(re.finditer(r"[$€£¥₹]|\b[^\W\d_](?:[\w'’.-]*\w)?", text))
    phrases: list[Phrase] = []
    position = 0
    while position < len(words):
        step = 1
        for size in range(min(5, len(words) - position), 0, -1):
            last = words[position + size - 1]
            surface = text[words[position].start() : last.end()]
            meanings = _said().get(" ".join(surface.lower().split()), [])
            if meanings and surface not in _OTHER_WORDS:
                phrases += [Phrase(surface, table, key) for table, key in meanings]
                step = size
                break
        position += step
    return tuple(phrases)


def find(text: str) -> list[Phrase]:
    """The names in a text. `us` is a pronoun, and `US` the country."""
    return list(_found(text))


def expected(schema: Schema, phrase: Phrase) -> bool:
    """Whether a schema speaks of the phrase's kind: `Jordan` may be a country or a friend."""
    word = "day" if phrase.kind == "weekday" else phrase.kind
    return word in described(schema).lower()


def stated_format(schema: Schema) -> NameFormat | None:
    """The code that a schema asks for, by its standard's name or by examples of it."""
    text = described(schema)
    for pattern, table, form in _STATED:
        if re.search(pattern, text, re.IGNORECASE):
            return NameFormat(table, form, _stated_case(text))
    examples = [formats_of(example, None) for example in listed(schema)]
    common = [f for f in examples[0] if all(f in more for more in examples)] if examples else []
    named = [f for f in common if f.form != "name" and re.search(f.table, text, re.IGNORECASE)]
    return named[0] if len(named) == 1 else None


def formats_of(value: Any, stated: NameFormat | None) -> list[NameFormat]:
    if not isinstance(value, str) or not 1 < len(value) < 40:
        return []
    found = _formats().get(value, [])
    return [stated] if stated in found else list(found)


def says(value: Any, format: NameFormat, phrase: Phrase) -> bool:
    return isinstance(value, str) and write(phrase, format) == value


def write(phrase: Phrase, format: NameFormat) -> Any:
    if phrase.kind != format.table:
        return None
    spelling = _tables()[format.table].forms[phrase.meaning].get(format.form)
    return _in_case(spelling, format.case) if spelling else None


def fresh(phrase: Phrase, rng: random.Random) -> Phrase | None:
    articled = _ARTICLED if not phrase.surface.isupper() else ()
    common = _COMMON[phrase.kind].split()
    keys = [key for key in common if key != phrase.meaning and key not in articled]
    for key in rng.sample(keys, len(keys)):
        words = _like(phrase.kind, key, phrase.surface)
        if words is not None and words not in _OTHER_WORDS:
            return Phrase(words, phrase.kind, key)
    return None


def spoken(value: Any, format: NameFormat, like: Phrase | None) -> str | None:
    """The name for a code; None for what is a name already."""
    if format.form == "name" or not isinstance(value, str):
        return None
    table = _tables()[format.table]
    for key, entry in table.forms.items():
        if _in_case(entry.get(format.form, ""), format.case) == value:
            as_said = _like(format.table, key, like.surface) if like else None
            return as_said or _like(format.table, key, "dollars" if key == "USD" else "Name")
    return None


def _like(table: str, key: str, surface: str) -> str | None:
    """How another entry is said where this is said: as a sign, a short form, a name."""
    entries = _tables()[table]
    said = [words for words, k in entries.said.items() if k == key]
    if not surface[:1].isalpha():
        return next((words for words in said if not words[0].isalpha()), None)
    if table == "currency":
        from babel.numbers import get_currency_name

        return get_currency_name(key, count=2, locale="en")
    if table == "country" and surface.isupper():
        return {"US": "USA", "GB": "UK", "AE": "UAE"}.get(key)
    name = entries.forms[key]["name"]
    name += "s" if table == "weekday" and surface.lower().endswith("s") else ""
    return name.lower() if surface.islower() else name


@lru_cache(maxsize=1)
def _formats() -> dict[str, list[NameFormat]]:
    """A spelling: the formats it is one of, the table's own letter case before others."""
    found: dict[str, list[NameFormat]] = {}
    for case in ("", "lower", "upper"):
        for name, table in _tables().items():
            for entry in table.forms.values():
                for form, spelling in entry.items():
                    formats = found.setdefault(_in_case(spelling, case), [])
                    if not any((f.table, f.form) == (name, form) for f in formats):
                        formats.append(NameFormat(name, form, case))
    found.pop("", None)
    return found


def _in_case(spelling: str, case: str) -> str:
    return {"lower": spelling.lower(), "upper": spelling.upper()}.get(case, spelling)


def _stated_case(text: str) -> str:
    upper = re.search(r"\b(?:upper ?-?case|capital)", text, re.IGNORECASE)
    lower = re.search(r"\b(?:lower ?-?case|small letters)", text, re.IGNORECASE)
    return "upper" if upper and not lower else "lower" if lower and not upper else ""
