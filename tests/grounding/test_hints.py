"""What may have led to a value is not called invented; what nothing led to still is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from quickstudy.grounding import temporal
from quickstudy.grounding.ground import Status, ground, ground_all

NUMBER = {"type": "number"}

LED: list[tuple[str, Any]] = [
    ("A couple of eggs", 2),
    ("Room for me and my wife", 2),
    ("The third item", 3),
    ("The third item", 2),
    ("Set an alarm for noon", 12),
    ("A fortnight from now", 14),
    ("Over the last week", 7),
    ("Mute it", 0),
    ("Set the brightness to max", 100),
    ("Sales in March", 3),
    ("The p95 latency", 95),
    ("The report of FY23", 2023),
    ("It is 38.5°C", "celsius"),
    ("It is 101F", "fahrenheit"),
    ("Water them every day", "daily"),
    ("The cheapest hotel", "asc"),
    ("She lives here", "female"),
    ("Clean on each weekday", ["mon", "tue", "wed"]),
    ("Weather in NYC", "New York"),
    ("Weather in L.A.", "Los Angeles"),
    ("Who won WWII?", "World War II"),
]
NOT_LED: list[tuple[str, Any]] = [
    ("A couple of eggs", 3),
    ("Show the news", 10),
    ("Mute it", 50),
    ("The p95 latency", 9),
    ("Water them", "daily"),
    ("Show the hotels", "asc"),
    ("It lives here", "female"),
    ("Weather in NYC", "Boston"),
    ("Tell me the weather", "celsius"),
]


@pytest.mark.parametrize(("text", "value"), LED)
def test_a_value_that_words_may_lead_to_is_unclear(text: str, value: Any) -> None:
    assert ground(value, {}, text).status is Status.UNCLEAR


@pytest.mark.parametrize(("text", "value"), NOT_LED)
def test_a_value_that_nothing_leads_to_is_invented(text: str, value: Any) -> None:
    assert ground(value, {}, text).status is Status.INVENTED


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "string", "enum": ["fast", "slow"]}, {"type": "null"}]},
        {"type": ["string", "null"], "enum": ["fast", "slow", None]},
        {"$ref": "#/$defs/Pace"},
        {"allOf": [{"$ref": "#/$defs/Pace"}]},
    ],
)
def test_a_choice_that_may_be_null_or_stands_elsewhere_is_a_choice(schema: dict[str, Any]) -> None:
    found = ground_all({"pace": "slow"}, {"pace": schema}, "No hurry, take it easy")
    assert found["pace"].status is Status.UNCLEAR


@pytest.mark.parametrize(
    "schema", [{"anyOf": [NUMBER, {"type": "null"}]}, {"type": ["number", "null"]}]
)
def test_a_number_that_may_be_null_has_its_unit(schema: dict[str, Any]) -> None:
    found = ground_all({"weight_kg": 2.5}, {"weight_kg": schema}, "It weighs 2500 grams")
    assert (found["weight_kg"].status, found["weight_kg"].surface) == (
        Status.REWORDED,
        "2500 grams",
    )


def test_a_log_full_of_dates_is_read_at_once() -> None:
    text = " ".join(f"{year}-{month:02}-{day:02} ok" for year in range(1990, 2010)
                    for month in range(1, 13) for day in range(1, 11))  # fmt: skip
    start = time.process_time()
    assert len(temporal.find(text + " May 5" * 300)) == 2700
    assert time.process_time() - start < 5


def test_a_day_that_no_calendar_has_is_no_moment() -> None:
    assert [phrase.meaning for phrase in temporal.find("2021-13-01 or 2021-02-30")] == [None, None]
