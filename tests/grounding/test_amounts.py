"""Numbers and amounts: what is found, what is the same, and how a call wants it."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.grounding import amounts, numerals
from quickstudy.grounding.amounts import Amount, AmountFormat, find, stated_format, write

CHEAP = settings(deadline=None, max_examples=60)


def said(value: Any, text: str, stated: AmountFormat | None = None) -> bool:
    (phrase,) = find(text)
    return any(amounts.says(value, f, phrase) for f in amounts.formats_of(value, stated))


class TestNumerals:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("two hundred and fifty thousand", 250_000),
            ("half a million", 500_000),
            ("two and a half million", 2_500_000),
            ("2.5 million", 2_500_000),
            ("two million five hundred thousand", 2_500_000),
            ("two thousand and three", 2003),
            ("a hundred", 100),
            ("a dozen", 12),
            ("half a dozen", 6),
            ("two dozen", 24),
            ("1.2k", 1200),
            ("3bn", 3 * 10**9),
            ("two and three quarters", Fraction(11, 4)),
            ("5 and a half", Fraction(11, 2)),
            ("1,200.50", Fraction(2401, 2)),
        ],
    )
    def test_are_read(self, text: str, value: Any) -> None:
        (found,) = numerals.find(f"about {text} of them")
        assert (found.surface, found.value) == (text, value)

    @pytest.mark.parametrize("text", ["three and four", "from three to four", "three, four"])
    def test_two_numbers_stay_two(self, text: str) -> None:
        assert [n.value for n in numerals.find(text)] == [3, 4]

    @CHEAP
    @given(st.integers(0, 10**12 - 1), st.sampled_from([0, 1, 2, 3]))
    def test_what_is_spelt_is_read_again(self, whole: int, quarters: int) -> None:
        number = whole + Fraction(quarters, 4)
        words = numerals.spell(number)
        assert words is not None
        (again,) = numerals.find(words)
        assert (again.surface, again.value) == (words, number)

    @pytest.mark.parametrize("like", ["1.2k", "250,000", "2.5 million", "half a million", "12.5"])
    def test_another_is_written_alike_and_means_what_is_written(self, like: str) -> None:
        for seed in range(20):
            number = numerals.other(numerals.read(like), random.Random(seed))
            assert number is not None
            words = numerals.write(number, like)
            assert words is not None
            assert numerals.read(words) == number != numerals.read(like)
            assert ("k" in words, "." in words or "," in words) >= ("k" in like, False)


class TestFind:
    @pytest.mark.parametrize(
        ("text", "number", "unit"),
        [
            ("two and a half kilos", Fraction(5, 2), "kg"),
            ("5kg", 5, "kg"),
            ("45 km", 45, "km"),
            ("30-minute", 30, "min"),
            ("an hour and a quarter", Fraction(5, 4), "h"),
            ("half an hour", Fraction(1, 2), "h"),
            ("three quarters of an hour", Fraction(3, 4), "h"),
            ("1 hour 30 minutes", Fraction(3, 2), "h"),
            ("5 feet 6 inches", Fraction(11, 2), "ft"),
            ("a hundred metres", 100, "m"),
            ("20%", 20, "%"),
            ("twenty percent", 20, "%"),
            ("$1,200", 1200, "USD"),
            ("€ 3.50", Fraction(7, 2), "EUR"),
        ],
    )
    def test_amounts(self, text: str, number: Any, unit: str) -> None:
        (phrase,) = find(f"take {text} of it")
        assert (phrase.surface, phrase.meaning) == (text, Amount(Fraction(number), unit))

    @pytest.mark.parametrize("text", ["5 kg and 300 g", "5 kg, 300 g", "2 minutes, 30 minutes"])
    def test_two_amounts_stay_two(self, text: str) -> None:
        assert len(find(text)) == 2

    @pytest.mark.parametrize(
        "text", ["60 miles per hour", "100 km/h", "a mineral", "x5kg", "5 kgb", "21 cats"]
    )
    def test_no_amounts(self, text: str) -> None:
        assert find(text) == []


class TestStatedUnit:
    @pytest.mark.parametrize(
        ("name", "description", "unit"),
        [
            ("weight_kg", "", "kg"),
            ("millilitres", "Goal", "ml"),
            ("duration", "Length in minutes", "min"),
            ("size", "Number of bytes", "B"),
            ("width", "The width (cm)", "cm"),
            ("discount", "in percent", "%"),
        ],
    )
    def test_is_read(self, name: str, description: str, unit: str) -> None:
        schema = {"type": "number", "title": name, "description": description}
        assert stated_format(schema) == AmountFormat(unit)

    @pytest.mark.parametrize(
        ("name", "description"),
        [
            ("speed", "in meters per second"),
            ("length", "in metres or feet"),
            ("length", "in metres. Or in feet."),
            ("minute", "The minute of the hour"),
            ("day", "day of week"),
            ("area", "in square meters"),
            ("amount_pounds", ""),
            ("places", "decimal places"),
            ("m", ""),
        ],
    )
    def test_is_none_where_it_is_not_clear(self, name: str, description: str) -> None:
        schema = {"type": "number", "title": name, "description": description}
        assert stated_format(schema) is None

    def test_of_a_text_it_is_never_clear(self) -> None:
        assert stated_format({"type": "string", "description": "in kilograms"}) is None

    def test_a_share_of_one(self) -> None:
        schema = {"type": "number", "title": "discount_rate", "description": "as a decimal"}
        assert stated_format(schema) == AmountFormat("%", share=True)


class TestSameAmount:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (2.5, "two and a half kilos"),
            (2500, "two and a half kilos"),
            (1800, "half an hour"),
            (0.2, "20 percent"),
            (20, "20 percent"),
            (250000, "two hundred and fifty thousand"),
            ("5 kg", "5kg"),
            ("0.5 hours", "30 minutes"),
            ("1200 USD", "$1,200"),
            ("1200", "$1,200"),
            ("20%", "twenty percent"),
        ],
    )
    def test_without_a_stated_unit(self, value: Any, text: str) -> None:
        assert said(value, text)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (2.4, "two and a half kilos"),
            (0.3, "20 percent"),
            ("5 km", "5kg"),
            ("1200 EUR", "$1,200"),
            (True, "an hour"),
            (1, "an hour"),
            (7, "a week"),
            (60, "an hour"),
        ],
    )
    def test_is_another_or_may_be_there_for_other_reasons(self, value: Any, text: str) -> None:
        assert not said(value, text)

    def test_with_a_stated_unit_only_that_one(self) -> None:
        minutes = AmountFormat("min")
        assert said(60, "an hour", minutes)
        assert not said(3600, "an hour", minutes)

    def test_is_written_exactly(self) -> None:
        (phrase,) = find("0.1 km")
        assert write(phrase, AmountFormat("m")) == 100
        assert isinstance(write(phrase, AmountFormat("m")), int)
        assert write(phrase, AmountFormat("kg")) is None


class TestSpoken:
    @pytest.mark.parametrize(
        ("value", "unit", "like", "words"),
        [
            (90, "min", "an hour and a quarter", "one and a half hours"),
            (1500, "ml", "two litres", "one and a half litres"),
            (2.5, "kg", "5kg", "2.5 kilograms"),
            (95, "min", None, "95 minutes"),
            (47, "min", "two hours", "forty-seven minutes"),
        ],
    )
    def test_in_the_users_unit_where_it_comes_out_even(
        self, value: Any, unit: str, like: str | None, words: str
    ) -> None:
        own = find(like)[0] if like else None
        assert amounts.spoken(value, AmountFormat(unit), own) == words

    @pytest.mark.parametrize("value", [True, "5", float("nan"), float("inf"), 0.001, -3, 10**400])
    def test_not_everything_has_words(self, value: Any) -> None:
        assert amounts.spoken(value, AmountFormat("kg"), None) is None
