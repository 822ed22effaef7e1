"""Dates and times: what is found, what is the same moment, and fresh ones in the same style."""

from __future__ import annotations

import random
import re
from datetime import datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quickstudy.grounding import temporal
from quickstudy.grounding.phrases import Phrase
from quickstudy.grounding.temporal import find, formats_of, says, stated_format, tells

CHEAP = settings(deadline=None, max_examples=150)

FRAGMENTS = (
    "March 25th, 2023", "the 3rd of May", "2023-03-25", "9999-12-31", "0001-01-01", "31/12/2023",
    "99/99/9999", "3.4.2023", "30 Feb", "Feb 29", "12:30", "25:99", "9:05", "9 pm", "9.30 a.m.",
    "Half past nine", "quarter to 0", "99 o'clock", "noon", "tomorrow", "in 3 days", "May", "2023",
    "twelve o'clock at night", "٢٠٢٣-٠٣-٢٥", "٣:٣٣", "12 ²", "", "\n", "YYYY-MM-DD", "%H:%M",
    "%d%d", "DD DD", "YYYY-MM-DD/YYYY-MM-DD", "hh:mm am", "DD AM", "e.g. 10:30",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8), max_size=4).map(" ".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
SCHEMAS = st.dictionaries(
    st.sampled_from(["description", "format", "enum", "items", "minimum", "type"]),
    JSON | st.sampled_from(["date", "time", "date-time", "string"]),
    max_size=4,
)


def only(text: str) -> Phrase:
    """The one phrase of a text."""
    (phrase,) = find(text)
    return phrase


def told(description: str) -> str | None:
    return stated_format({"type": "string", "description": description})


class TestFind:
    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("March 25th, 2023", datetime(2023, 3, 25)),
            ("march 25 2023", datetime(2023, 3, 25)),
            ("Mar. 5, 2020", datetime(2020, 3, 5)),
            ("25 March 2023", datetime(2023, 3, 25)),
            ("the 3rd of May 2021", datetime(2021, 5, 3)),
            ("March twenty-fifth, 2023", datetime(2023, 3, 25)),
            ("the third of May 2021", datetime(2021, 5, 3)),
            ("2023-03-25", datetime(2023, 3, 25)),
            ("2023/03/25", datetime(2023, 3, 25)),
            ("31/12/2023", datetime(2023, 12, 31)),
            ("12/31/2023", datetime(2023, 12, 31)),
        ],
    )
    def test_dates(self, text: str, moment: datetime) -> None:
        phrase = only(f"Book it for {text}, please")
        assert (phrase.kind, phrase.meaning) == ("date", moment)
        assert phrase.surface == text

    @pytest.mark.parametrize(
        ("text", "clock"),
        [
            ("14:05", "14:05:00"),
            ("14:05:09", "14:05:09"),
            ("9:05", "09:05:00"),
            ("9 pm", "21:00:00"),
            ("12 am", "00:00:00"),
            ("12 pm", "12:00:00"),
            ("9:30 a.m.", "09:30:00"),
            ("9:30PM", "21:30:00"),
            ("half past nine", "09:30:00"),
            ("Half past nine", "09:30:00"),
            ("quarter to ten in the morning", "09:45:00"),
            ("a quarter past 3", "03:15:00"),
            ("seven o'clock in the evening", "19:00:00"),
            ("3 in the afternoon", "15:00:00"),
            ("ten past three", "03:10:00"),
            ("twenty-five to four in the afternoon", "15:35:00"),
            ("twenty minutes past 3", "03:20:00"),
            ("ten o'clock", "10:00:00"),
        ],
    )
    def test_times(self, text: str, clock: str) -> None:
        phrase = only(f"Wake me at {text}")
        assert phrase.kind == "time"
        assert phrase.meaning is not None
        assert f"{phrase.meaning:%H:%M:%S}" == clock

    @pytest.mark.parametrize(
        "text", ["tomorrow", "Tonight", "next week", "on Friday", "noon", "in 3 days", "in March"]
    )
    def test_what_depends_on_today_has_no_moment(self, text: str) -> None:
        phrase = only(f"Do it {text}.")
        assert (phrase.kind, phrase.meaning) == ("relative", None)

    def test_left_to_right(self) -> None:
        text = "From 2023-03-25 at 9 pm until tomorrow"
        assert [p.surface for p in find(text)] == ["2023-03-25", "9 pm", "tomorrow"]

    @pytest.mark.parametrize(
        "text", ["The mayor knows", "a nowhere man", "x12:30", "part 2023a", "sundayish", "21 cats"]
    )
    def test_words_are_not_cut(self, text: str) -> None:
        assert find(text) == []

    @pytest.mark.parametrize("text", ["2023-02-30", "45/45/2023", "12:75", "27:00"])
    def test_no_such_day_or_time_has_no_moment(self, text: str) -> None:
        assert [p.meaning for p in find(text)] == [None]

    @pytest.mark.parametrize("text", ["03/04/2023", "3/4/2023"])
    def test_a_date_that_reads_two_ways_is_read_neither_way(self, text: str) -> None:
        """Read as March and written as April, practice would teach to swap day and month."""
        assert only(text).meaning is None

    @CHEAP
    @given(TEXTS)
    def test_never_raises(self, text: str) -> None:
        for phrase in find(text):
            assert phrase.surface in text


class TestStatedFormat:
    @pytest.mark.parametrize(
        ("description", "format"),
        [
            ("Date in YYYY-MM-DD", "%Y-%m-%d"),
            ("Date (YYYY/MM/DD).", "%Y/%m/%d"),
            ("as DD/MM/YYYY", "%d/%m/%Y"),
            ("like %Y-%m-%d", "%Y-%m-%d"),
            ("The time, HH:MM", "%H:%M"),
            ("HH:MM:SS, 24 hours", "%H:%M:%S"),
            ("hh:mm AM", "%I:%M %p"),
            ("YYYY-MM-DD HH:MM:SS", "%Y-%m-%d %H:%M:%S"),
            ("e.g. 2023-10-15", "%Y-%m-%d"),
            ("e.g. 15/10/2023", "%d/%m/%Y"),
            ("for example 10:30", "%H:%M"),
            ("MM-DD", "%m-%d"),
        ],
    )
    def test_is_read_from_the_description(self, description: str, format: str) -> None:
        assert told(description) == format

    def test_is_read_from_json_schemas_format(self) -> None:
        assert stated_format({"type": "string", "format": "date"}) == "%Y-%m-%d"

    @pytest.mark.parametrize(
        "description",
        ["The date", "e.g. 03/04/2023", "a name such as Dodd", "e.g. tomorrow", "in MM", ""],
    )
    def test_is_none_where_nothing_or_two_things_are_said(self, description: str) -> None:
        assert told(description) is None

    def test_an_interval_is_no_moment(self) -> None:
        """strptime refuses a format that has a part twice, with an error of its own."""
        assert told("from/to as YYYY-MM-DD/YYYY-MM-DD") is None

    @CHEAP
    @given(SCHEMAS, TEXTS)
    @example({"format": ["date"]}, "2023-03-25")
    @example({"description": "YYYY-MM-DD/YYYY-MM-DD"}, "2023-03-25")
    def test_never_raises(self, schema: dict[str, Any], value: str) -> None:
        stated = stated_format(schema)
        for phrase in find(value):
            if stated:
                tells(phrase, stated)
            for format in formats_of(phrase.surface, stated):
                says(phrase.surface, format, phrase)


class TestSameMoment:
    def test_words_and_code(self) -> None:
        phrase = only("March 25th, 2023")
        assert says("2023-03-25", "%Y-%m-%d", phrase)
        assert says("25/03/2023", "%d/%m/%Y", phrase)
        assert not says("2023-03-26", "%Y-%m-%d", phrase)

    def test_words_and_clock(self) -> None:
        assert says("21:30", "%H:%M", only("9:30 pm"))
        assert not says("09:30", "%H:%M", only("9:30 pm"))

    def test_a_day_without_a_year_does_not_tell_a_date_with_one(self) -> None:
        assert not tells(only("March 25th"), "%Y-%m-%d")
        assert tells(only("March 25th"), "%m-%d")

    def test_a_day_tells_no_time_and_a_time_no_day(self) -> None:
        assert not tells(only("March 25th, 2023"), "%H:%M")
        assert not tells(only("9 pm"), "%m-%d")

    def test_no_single_phrase_tells_both_day_and_time(self) -> None:
        both = "%Y-%m-%d %H:%M"
        assert not any(tells(p, both) for p in find("March 25th, 2023 at 9 pm"))

    def test_tomorrow_tells_nothing(self) -> None:
        assert not tells(only("tomorrow"), "%Y-%m-%d")


STYLES = [
    "March 25th, 2023", "Mar 25, 2023", "May 5", "25 March 2023", "the 3rd of May 2021",
    "the third of May 2021", "March twenty-fifth, 2023",
    "2023-03-25", "2023/03/25", "25/3/2023", "25/03/2023", "3/25/2023", "05/05/2023", "25.12.2023",
    "9 pm", "9:30 a.m.", "9:30PM", "9:30:15 pm", "12:30", "9:05", "9:30", "00:30", "14:05:09",
    "half past nine", "Half past nine", "quarter to ten in the morning", "Quarter Past Three",
    "half past twelve", "ten o'clock", "11 o'clock", "3 in the afternoon", "half past 3",
    "seven o'clock in the evening", "ten past three", "twenty-five to four in the afternoon",
    "Five minutes to 11",
]  # fmt: skip


class TestFresh:
    @pytest.mark.parametrize("style", STYLES)
    def test_words_and_moment_are_the_same(self, style: str) -> None:
        """Practice teaches the pair, so the words must say just this moment, and another one."""
        phrase = only(style)
        assert phrase.meaning is not None
        for seed in range(25):
            made = temporal.fresh(phrase, random.Random(seed))
            assert made is not None
            words, moment = made.surface, made.meaning
            again = only(words)
            assert again.surface == words
            assert again.kind == phrase.kind
            assert again.meaning is not None
            if phrase.kind == "time":
                assert again.meaning.time() == moment.time() != phrase.meaning.time()
            else:
                assert (again.meaning.month, again.meaning.day) == (moment.month, moment.day)
                assert moment.date() != phrase.meaning.date()
                if "20" in style:
                    assert again.meaning.year == moment.year

    @pytest.mark.parametrize(
        ("style", "pattern"),
        [
            ("March 25th, 2023", r"[A-Z][a-z]+ \d+(st|nd|rd|th), \d{4}"),
            ("Mar 25, 2023", r"[A-Z][a-z]{2} \d+, \d{4}"),
            ("25 March 2023", r"\d+ [A-Z][a-z]+ \d{4}"),
            ("2023-03-25", r"\d{4}-\d\d-\d\d"),
            ("9:30PM", r"\d{1,2}:\d\d[AP]M"),
            ("9:30 a.m.", r"\d{1,2}:\d\d [ap]\.m\."),
            ("9 pm", r"\d{1,2} [ap]m"),
            ("14:05:09", r"\d\d:\d\d:\d\d"),
            ("half past nine", r"half past [a-z]+"),
            ("quarter to ten in the morning", r"quarter to [a-z]+ in the [a-z]+"),
            ("11 o'clock", r"\d+ o'clock"),
        ],
    )
    def test_is_in_the_same_style(self, style: str, pattern: str) -> None:
        for seed in range(10):
            made = temporal.fresh(only(style), random.Random(seed))
            assert made is not None
            assert re.fullmatch(pattern, made.surface)

    def test_same_seed_same_day(self) -> None:
        phrase = only("March 25th, 2023")
        assert temporal.fresh(phrase, random.Random(3)) == temporal.fresh(phrase, random.Random(3))

    @CHEAP
    @given(TEXTS, st.integers(0, 99))
    @example("9999-12-31", 0)
    @example("0001-01-01", 0)
    def test_never_raises(self, text: str, seed: int) -> None:
        for phrase in find(text):
            if phrase.meaning is not None:
                temporal.fresh(phrase, random.Random(seed))
