"""Countries, languages, currencies, states and days: names and codes for one another."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quickstudy.grounding import names
from quickstudy.grounding.names import NameFormat, find, formats_of, says, stated_format


def said(value: str, text: str) -> bool:
    return any(says(value, f, p) for p in find(text) for f in formats_of(value, None))


class TestFind:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("Weather in Japan?", [("Japan", "country", "JP")]),
            (
                "from South Korea to the US",
                [("South Korea", "country", "KR"), ("US", "country", "US")],
            ),
            ("into german", [("german", "language", "de")]),
            (
                "forty euros in Japanese yen",
                [("euros", "currency", "EUR"), ("Japanese yen", "currency", "JPY")],
            ),
            ("$20", [("$", "currency", "USD")]),
            ("every Monday", [("Monday", "weekday", "MO")]),
            ("on Fridays", [("Fridays", "weekday", "FR")]),
            ("in New Mexico", [("New Mexico", "state", "NM")]),
            ("Georgia", [("Georgia", "country", "GE"), ("Georgia", "state", "GA")]),
        ],
    )
    def test_names(self, text: str, found: Any) -> None:
        assert [(p.surface, p.kind, p.meaning) for p in find(text)] == found

    @pytest.mark.parametrize(
        "text", ["tell us", "it may", "polish it", "a march", "JP", "Germanys"]
    )
    def test_other_words(self, text: str) -> None:
        assert find(text) == []


class TestStatedCode:
    @pytest.mark.parametrize(
        ("description", "format"),
        [
            ("Country as ISO 3166-1 alpha-2 code", NameFormat("country", "code")),
            ("ISO 3166-1 alpha-3", NameFormat("country", "alpha3")),
            ("ISO 639-1, two small letters", NameFormat("language", "code", "lower")),
            ("ISO 4217", NameFormat("currency", "code")),
            ("country (e.g., US, GB)", NameFormat("country", "code")),
            ("target language, e.g. en, fr", NameFormat("language", "code")),
            ("first three letters, lower case", NameFormat("weekday", "short", "lower")),
        ],
    )
    def test_is_read(self, description: str, format: NameFormat) -> None:
        assert stated_format({"description": description}) == format

    @pytest.mark.parametrize(
        "description",
        [
            "The country",
            "The country (e.g. France, Spain)",
            "e.g. US, GB",
            "language (e.g., xx)",
            "",
        ],
    )
    def test_is_none_where_it_is_not_clear(self, description: str) -> None:
        assert stated_format({"description": description}) is None


class TestSame:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("DE", "Germany"),
            ("DEU", "Germany"),
            ("de", "German"),
            ("deu", "German"),
            ("zho", "Chinese"),
            ("EUR", "euros"),
            ("usd", "$5"),
            ("GBP", "British pounds"),
            ("mon", "Monday"),
            ("Mon", "Monday"),
            ("United States", "the USA"),
            ("CA", "California"),
        ],
    )
    def test_code_and_name(self, value: str, text: str) -> None:
        assert said(value, text)

    @pytest.mark.parametrize(
        ("value", "text"), [("DE", "France"), ("EUR", "US dollars"), ("tue", "Monday"), ("x", "$5")]
    )
    def test_another(self, value: str, text: str) -> None:
        assert not said(value, text)


class TestFresh:
    @pytest.mark.parametrize(
        ("text", "format", "pattern"),
        [
            ("euros", NameFormat("currency", "code"), str.isupper),
            ("german", NameFormat("language", "code"), str.islower),
            ("Monday", NameFormat("weekday", "short", "lower"), str.islower),
        ],
    )
    def test_phrase_and_code_are_the_same(self, text: str, format: Any, pattern: Any) -> None:
        (phrase,) = find(text)
        for seed in range(20):
            made = names.fresh(phrase, random.Random(seed))
            assert made is not None
            code = names.write(made, format)
            assert pattern(code)
            assert said(code, made.surface)
            assert not said(code, text)

    @pytest.mark.parametrize(
        ("text", "pattern"),
        [("german", str.islower), ("$", lambda s: not s.isalpha()), ("US", str.isupper)],
    )
    def test_is_said_in_the_same_style(self, text: str, pattern: Any) -> None:
        (phrase,) = find(text)
        made = [names.fresh(phrase, random.Random(seed)) for seed in range(20)]
        assert all(pattern(m.surface) for m in made if m)

    def test_no_country_that_needs_an_article(self) -> None:
        (phrase,) = find("Japan")
        made = [names.fresh(phrase, random.Random(seed)) for seed in range(50)]
        assert not {"US", "GB", "NL"} & {m.meaning for m in made if m}


class TestSpoken:
    @pytest.mark.parametrize(
        ("value", "format", "like", "words"),
        [
            ("FR", NameFormat("country", "code"), "Japan", "France"),
            ("fr", NameFormat("language", "code"), "german", "french"),
            ("GBP", NameFormat("currency", "code"), "$", "£"),
            ("GBP", NameFormat("currency", "code"), None, "British pounds"),
            ("wed", NameFormat("weekday", "short", "lower"), None, "Wednesday"),
            ("France", NameFormat("country", "name"), None, None),
            ("QQ", NameFormat("country", "code"), None, None),
        ],
    )
    def test_words_for_a_code(self, value: str, format: Any, like: Any, words: Any) -> None:
        own = find(like)[0] if like else None
        assert names.spoken(value, format, own) == words
