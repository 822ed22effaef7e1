"""JSON objects that a request spells out, and calls that pass on a part of them."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.grounding import literals
from quickstudy.grounding.ground import Status, ground
from quickstudy.grounding.literals import FORMAT, find, fresh, says, wraps, write

VOTE = {"type": "vote", "attributes": {"verdict": "harmless"}}
ASKED = 'Vote with {"type": "vote", "attributes": {"verdict": "harmless"}}, please.'


class TestFind:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            (ASKED, VOTE),
            ("with {'retry': {'times': 3}, 'on': True}.", {"retry": {"times": 3}, "on": True}),
            ('a brace { and then {"b": 1}', {"b": 1}),
            ('{"curly": "}"} it is', {"curly": "}"}),
        ],
    )
    def test_objects(self, text: str, value: dict[str, Any]) -> None:
        (phrase,) = find(text)
        assert write(phrase, FORMAT) == value
        assert phrase.surface in text

    @pytest.mark.parametrize(
        "text", ["{}", "{name}", "{'a', 'b'}", "[1, 2]", "{" * 500, '{"a": ' * 500, "{'a': b'1'}"]
    )
    def test_no_objects(self, text: str) -> None:
        assert find(text) == []

    def test_an_object_in_an_object_is_a_part_of_it(self) -> None:
        assert [p.surface for p in find('{"a": {"b": 1}} {"c": 2}')] == [
            '{"a": {"b": 1}}',
            '{"c": 2}',
        ]

    @given(st.text("{}'\":,ab1 \\", max_size=40))
    def test_wild_texts(self, text: str) -> None:
        for phrase in find(text):
            assert phrase.surface in text
            assert says(write(phrase, FORMAT), FORMAT, phrase)


class TestFresh:
    def test_the_longest_text_changes(self) -> None:
        (phrase,) = find(ASKED)
        made = fresh(phrase, random.Random(0))
        assert made is not None
        value = write(made, FORMAT)
        assert value["type"] == "vote"
        assert value["attributes"]["verdict"] != "harmless"
        assert find(f"It is {made.surface}.") == [made]

    def test_or_a_number(self) -> None:
        (phrase,) = find('{"on": true, "times": 3}')
        made = fresh(phrase, random.Random(0))
        assert made is not None
        assert write(made, FORMAT)["on"] is True
        assert write(made, FORMAT)["times"] != 3

    def test_or_nothing(self) -> None:
        (phrase,) = find('{"on": true}')
        assert fresh(phrase, random.Random(0)) is None


class TestGround:
    def test_the_whole_is_stated(self) -> None:
        found = ground({"attributes": VOTE["attributes"], "type": "vote"}, {}, ASKED)
        assert found.status is Status.STATED
        assert not found.guess

    def test_a_part_means_the_whole(self) -> None:
        found = ground({"verdict": "harmless"}, {}, ASKED)
        assert (found.status, found.guess) == (Status.REWORDED, True)
        assert found.phrase is not None
        assert write(found.phrase, FORMAT) == VOTE

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ({"verdict": "malicious"}, ASKED),  # says something else
            ({"attributes": {}}, ASKED),  # says nothing
            ({"verdict": "harmless"}, "Say harmless."),
            ({"verdict": "harmless"}, f"{ASKED} {ASKED.replace('vote', 'note')}"),  # which?
            ({"on": 1}, '{"all": {"on": true}}'),  # 1 is not true
            ({"status": "open"}, 'The old filter was {"status": "open", "owner": "ana"}.'),
            ({"page": 1}, 'With {"retries": 1, "strict": true}, one a page.'),
            ({"id": 2}, 'Of {"notes": [{"id": 1}, {"id": 2}]} the second.'),
        ],
    )
    def test_what_cannot_be_told(self, value: dict[str, Any], text: str) -> None:
        assert ground(value, {}, text).status is Status.UNCLEAR

    def test_not_where_the_schema_has_other_keys(self) -> None:
        for keys, status in (
            (["verdict"], Status.UNCLEAR),
            (["type", "attributes"], Status.REWORDED),
        ):
            schema = {"type": "object", "properties": {key: {} for key in keys}}
            assert ground({"verdict": "harmless"}, schema, ASKED).status is status

    def test_a_very_deep_value_is_none(self) -> None:
        deep: dict[str, Any] = {}
        for _ in range(3000):
            deep = {"a": deep}
        assert ground(deep, {}, ASKED).status is Status.UNCLEAR

    def test_wraps(self) -> None:
        (phrase,) = find('{"a": {"b": {"c": 1}, "d": 2}}')
        assert wraps(phrase, {"c": 1})
        assert wraps(phrase, {"d": 2, "b": {"c": 1}})
        assert not wraps(phrase, {"d": 2})


@pytest.mark.parametrize("text", ["{" * 20_000, '{"a": ' * 20_000, "{'a': b" * 20_000])
def test_a_text_of_braces_costs_no_seconds(text: str) -> None:
    start = time.process_time()
    assert find(text) == []
    assert time.process_time() - start < 2


def test_half_a_character_is_no_json() -> None:
    assert find('Save {"icon": "\\ud83d", "name": "x1"}') == []


def test_the_kind_is_asked_only_of_objects() -> None:
    assert literals.stated_format({"type": "object"}) == FORMAT
    assert literals.stated_format({"type": "string"}) is None
    assert literals.formats_of({"a": 1}, None) == [FORMAT]
    assert literals.formats_of("a", None) == []
