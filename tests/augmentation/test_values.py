"""Fresh values of the same kind, from free sources first."""

from __future__ import annotations

import ipaddress
import random
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quickstudy.augmentation.values import by_shape, fresh_number, fresh_text, listed, needs_model

CHEAP = settings(deadline=None, max_examples=150)
PLATFORM = {"type": "string", "description": "the platform (e.g., Facebook, Twitter, Instagram)"}

TEXTS = st.sampled_from(
    ["JFK123", "ann@mail.org", "report.pdf", "e.g., a, b or c", "²", "٣", "", " ", "a b c d e f"]
) | st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
SCHEMAS = st.dictionaries(
    st.sampled_from(["description", "enum", "minimum", "maximum", "format", "type"]),
    JSON,
    max_size=4,
)
SEEDS = st.integers(0, 999).map(random.Random)


def shape(text: str) -> str:
    """JFK-12a as AAA-99a: what must stay the same."""
    text = re.sub(r"[A-Z]", "A", text)
    return re.sub(r"\d", "9", re.sub(r"[a-z]", "a", text))


class TestListed:
    @pytest.mark.parametrize(
        ("description", "found"),
        [
            ("the platform (e.g., Facebook, Twitter, Instagram)", "Facebook Twitter Instagram"),
            ("such as red, green, or blue.", "red green blue"),
            ("for example: 'asc' or 'desc'", "asc desc"),
            ("e.g. Oslo; Lima, etc.", "Oslo Lima"),
            ("the city", ""),
        ],
    )
    def test_in_the_description(self, description: str, found: str) -> None:
        assert listed({"description": description}) == found.split()

    def test_an_enum_comes_before_the_description(self) -> None:
        assert listed({"enum": ["on", "off", 3], "description": "e.g. maybe"}) == ["on", "off"]


class TestFreshNumber:
    @CHEAP
    @given(st.integers(-1000, 1000), st.integers(0, 50), st.integers(0, 50), SEEDS)
    def test_is_another_one_within_the_limits(
        self, value: int, below: int, above: int, rng: random.Random
    ) -> None:
        limits = {"minimum": value - below, "maximum": value + above}
        fresh = fresh_number(value, limits, rng)
        assert isinstance(fresh, int)
        assert value - below <= fresh <= value + above
        assert fresh != value or below == above == 0

    @CHEAP
    @given(st.floats(0.1, 1e6), SEEDS)
    def test_a_fraction_keeps_its_digits(self, value: float, rng: random.Random) -> None:
        value = round(value, 2)
        fresh = fresh_number(value, {}, rng)
        assert fresh == round(fresh, 2)
        assert 0 <= fresh <= max(3 * value, 11)

    def test_a_fractional_limit_is_a_limit(self) -> None:
        schema = {"minimum": 2.5, "maximum": 5.5}
        fresh = {fresh_number(3, schema, random.Random(seed)) for seed in range(50)}
        assert fresh == {4, 5}

    def test_positive_stays_positive(self) -> None:
        assert all(fresh_number(2, {}, random.Random(seed)) >= 1 for seed in range(50))

    @CHEAP
    @given(st.integers() | st.floats() | st.just(10**400), SCHEMAS, SEEDS)
    @example(1.5, {"minimum": None}, random.Random(0))
    @example(3, {"maximum": "9"}, random.Random(0))
    @example(3, {"minimum": float("inf")}, random.Random(0))
    @example(-1e308, {}, random.Random(0))
    def test_never_raises(self, value: float, schema: dict[str, Any], rng: random.Random) -> None:
        assert isinstance(fresh_number(value, schema, rng), int | float)


class TestByShape:
    @pytest.mark.parametrize(
        "value",
        ["JFK123", "A-7b", "555-0199", "ann.lee@mail.org", "order42", "camelCase", "10:30", "v1.2"],
    )
    def test_codes_keep_their_shape(self, value: str) -> None:
        made = {by_shape(value, random.Random(seed)) for seed in range(20)}
        assert {shape(str(other)) for other in made} == {shape(value)}
        assert len(made) > 5

    def test_what_makes_an_address_stays(self) -> None:
        fresh = by_shape("https://www.example.com/a1", random.Random(0))
        assert re.fullmatch(r"https://www\.example\.com/[a-z]\d", str(fresh))
        assert fresh != "https://www.example.com/a1"

    @pytest.mark.parametrize("value", ["report_2023.pdf", "ann@mail.org"])
    def test_an_ending_stays(self, value: str) -> None:
        fresh = str(by_shape(value, random.Random(0)))
        assert fresh != value
        assert fresh.rpartition(".")[2] == value.rpartition(".")[2]

    def test_an_ip_address_stays_one(self) -> None:
        made = {str(by_shape("192.168.51.67", random.Random(seed))) for seed in range(50)}
        assert len(made) == 50
        assert all(ipaddress.IPv4Address(one).packed for one in made)

    def test_a_name_with_a_number_keeps_its_words(self) -> None:
        assert re.fullmatch(r"Room \d\d", str(by_shape("Room 21", random.Random(0))))

    def test_a_long_text_becomes_another_sentence(self) -> None:
        fresh = str(by_shape("I will be late for dinner today", random.Random(0)))
        assert len(fresh.split()) >= 5

    @pytest.mark.parametrize("value", ["Oslo", "Abbey Road", "running late", "New"])
    def test_plain_words_have_no_shape(self, value: str) -> None:
        assert by_shape(value, random.Random(0)) is None

    @CHEAP
    @given(TEXTS, SEEDS)
    def test_never_raises(self, value: str, rng: random.Random) -> None:
        assert isinstance(by_shape(value, rng), str | None)


class TestFreshText:
    def test_an_enum_gives_another_member(self) -> None:
        schema = {"enum": ["on", "off"]}
        assert fresh_text("on", schema, ["dim"], set(), random.Random(0)) == "off"
        assert fresh_text("on", schema, ["dim"], {"off"}, random.Random(0)) is None

    def test_the_description_comes_before_the_model(self) -> None:
        taken = {"twitter"}
        first = fresh_text("Twitter", PLATFORM, ["Mastodon"], taken, random.Random(0))
        assert first in {"Facebook", "Instagram"}
        taken |= {"facebook", "instagram"}
        assert fresh_text("Twitter", PLATFORM, ["Mastodon"], taken, random.Random(0)) == "Mastodon"

    @CHEAP
    @given(TEXTS, SCHEMAS, st.lists(TEXTS, max_size=3), st.sets(TEXTS, max_size=3), SEEDS)
    @example("Twitter", PLATFORM, ["TWITTER", "Oslo"], {"facebook"}, random.Random(0))
    def test_is_never_taken_nor_the_value_itself(
        self, value: str, schema: Any, written: list[str], taken: set[str], rng: random.Random
    ) -> None:
        taken = {text.lower() for text in taken}
        fresh = fresh_text(value, schema, written, taken, rng)
        assert fresh is None or (fresh.lower() not in taken and fresh != value)


class TestNeedsModel:
    def test_only_for_words_that_nothing_free_can_vary(self) -> None:
        assert needs_model("Oslo", {"description": "the city"}, 1)
        assert not needs_model("JFK123", {}, 5)
        assert not needs_model("on", {"enum": ["on", "off"]}, 5)
        assert not needs_model("Twitter", PLATFORM, 2)
        assert needs_model("Twitter", PLATFORM, 3)

    @CHEAP
    @given(TEXTS, SCHEMAS, st.integers(1, 4))
    def test_never_raises(self, value: str, schema: dict[str, Any], wanted: int) -> None:
        assert needs_model(value, schema, wanted) in (True, False)
