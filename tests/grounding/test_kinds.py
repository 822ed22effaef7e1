"""What all kinds share: they never raise, and a fresh phrase read again says its fresh value."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quickstudy.grounding import amounts, contacts, kinds, names, temporal
from quickstudy.grounding.phrases import Kind, items_of, schema_of
from quickstudy.grounding.spellings import Choices

CHEAP = settings(deadline=None, max_examples=60)
KINDS: list[Kind] = [
    temporal, amounts, names, contacts, Choices(["in_progress", "HIGH", "low", "Low", "", "on"])
]  # fmt: skip
STYLES = (
    "half past nine", "March 25th, 2023", "November 2023", "two and a half kilos", "30 minutes",
    "an hour and a quarter", "half an hour", "$1,200", "£5k", "20%", "20 percent", "half a million",
    "1 hour 30 minutes", "5kg", "a hundred metres", "1.2k", "two hundred and fifty thousand",
    "Japan", "the US", "euros", "$", "german", "Mondays", "May", "Texas", "ann@mail.org",
    "ann at mail dot org", "https://example.com/a", "example.com", "+44 20 7946 0018",
    "555-123-4567", "in progress", "High", "LOW", "two million and a", "1" * 5000, "9e9", "0 kg",
    "²", "٣ kg", "\n", "five feet 10 inches", "a", "$0", "0.0001 km", "1,2,3", "-5 km", "U.S.",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(STYLES) | st.text(max_size=8), max_size=4).map(" ".join)
VALUES = (
    TEXTS
    | st.integers()
    | st.floats()
    | st.just(10**400)
    | st.none()
    | st.lists(st.integers(), max_size=2)
    | st.sampled_from(["EUR", "de", "mon", "HIGH", "2023-03-25", "5 kg", "$12", "+442079460018"])
)
WORDS = st.sampled_from(
    ["in kilograms", "as a fraction", "YYYY-MM-DD", "ISO 4217", "e.g. DE, FR", "E.164 phone", ""]
)
SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "description": WORDS | TEXTS | st.integers(),
        "title": st.sampled_from(["weight_kg", "minutes", "phone", ""]),
        "type": st.sampled_from(["number", "integer", "string", "array"]) | st.lists(st.text()),
        "maximum": st.integers() | st.text(max_size=2),
        "enum": st.lists(st.text(max_size=3) | st.none(), max_size=3) | st.text(max_size=2),
    },
)


@pytest.mark.parametrize("kind", KINDS, ids=["temporal", "amounts", "names", "contacts", "choices"])
class TestEveryKind:
    @CHEAP
    @given(text=TEXTS, value=VALUES, schema=SCHEMAS, seed=st.integers(0, 99))
    @example(text="$1.2k", value="$1.2k", schema={}, seed=0)
    def test_never_raises(self, kind: Kind, text: str, value: Any, schema: Any, seed: int) -> None:
        stated = kind.stated_format(schema)
        formats = [f for f in (stated, *kind.formats_of(value, stated)) if f is not None]
        for phrase in kind.find(text):
            assert phrase.surface in text
            kind.fresh(phrase, random.Random(seed))
            for format in formats:
                kind.says(value, format, phrase)
                kind.write(phrase, format)
                kind.spoken(value, format, phrase)

    @CHEAP
    @given(text=st.sampled_from(STYLES), seed=st.integers(0, 999))
    def test_fresh_words_read_again_have_the_fresh_meaning(
        self, kind: Kind, text: str, seed: int
    ) -> None:
        for phrase in kind.find(text):
            made = kind.fresh(phrase, random.Random(seed))
            if made is None:
                continue
            assert made.meaning != phrase.meaning
            again = [r for p in kind.find(made.surface) for r in p.readings()]
            assert made.meaning in [p.meaning for p in again if p.surface == made.surface]

    @pytest.mark.parametrize(
        "text",
        ["one ", "a ", "1,", "1-", "two million ", "x dot ", "a.", "$1 and ", "half a ", "(1) "],
    )
    def test_long_texts_are_read_in_time_that_grows_with_them(self, kind: Kind, text: str) -> None:
        """A regular expression that goes back and forth would take minutes."""
        start = time.process_time()
        kind.find(text * (4000 // len(text)))
        assert time.process_time() - start < 2


class TestWanted:
    @pytest.mark.parametrize(
        ("kind", "schema"),
        [
            (temporal, {"type": "string", "description": "the day, YYYY-MM-DD"}),
            (amounts, {"type": "number", "title": "weight_kg"}),
            (names, {"type": "string", "description": "ISO 4217 code"}),
            (contacts, {"type": "string", "description": "phone number, E.164"}),
        ],
    )
    def test_the_kind_whose_format_a_schema_states(self, kind: Any, schema: Any) -> None:
        found = kinds.wanted(schema)
        assert found is not None
        assert found[0] is kind

    def test_most_schemas_state_none(self) -> None:
        assert kinds.wanted({"type": "string", "description": "What to say"}) is None

    def test_a_parameters_name_tells_as_much_as_its_description(self) -> None:
        found = kinds.wanted(schema_of({"weight_kg": {"type": "number"}}, "weight_kg"))
        assert found == (amounts, amounts.AmountFormat("kg"))

    def test_what_a_list_states_holds_for_its_items(self) -> None:
        days = {"type": "array", "description": "ISO 639-1 codes", "items": {"type": "string"}}
        assert items_of(days) == {"description": "ISO 639-1 codes", "type": "string"}
