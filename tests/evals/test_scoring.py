"""Right, wrong in which way, or not to be graded: a hand-made case for each rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.evals.scoring import ERROR_KINDS, Fault, Verdict, score
from quickstudy.evals.task import Task
from quickstudy.toolcalls import equal
from quickstudy.types import Reply, Request, ToolCall

TOOLS = [
    {
        "name": "book",
        "description": "Books a table",
        "parameters": {
            "type": "object",
            "properties": {
                "guests": {"type": "integer"},
                "name": {"type": "string"},
                "outside": {"type": "boolean", "default": False},
                "price": {"type": "number"},
                "dishes": {"type": "array"},
                "note": {"type": "string", "default": None},
                "api_key": {"type": "string"},
            },
            "required": ["guests"],
        },
    },
    {"name": "cancel", "description": "Cancels", "parameters": {}},
]
Calls = Sequence[tuple[str, dict[str, Any]]]


def task(gold: Calls, **more: Any) -> Task:
    calls = tuple(ToolCall(name, arguments) for name, arguments in gold)
    return Task(Request.parse("Book a table for 2.", TOOLS), calls, **more)


def judged(gold: Calls, said: Calls, text: str = "", **more: Any) -> Verdict:
    calls = tuple(ToolCall(name, arguments) for name, arguments in said)
    return score(task(gold, **more), Reply(text, calls))


def kinds(verdict: Verdict) -> list[str]:
    return sorted(fault.kind for fault in verdict.faults)


TWO = [("book", {"guests": 2})]
BOTH = [("book", {"guests": 2, "name": "Ada"}), ("book", {"guests": 3, "name": "Bo"})]


class TestRight:
    @pytest.mark.parametrize(
        ("gold", "said"),
        [
            pytest.param(TWO, TWO, id="the same"),
            pytest.param(TWO, [("book", {"guests": "2"})], id="a number as text"),
            pytest.param([("book", {"guests": "2"})], TWO, id="gold spells a number as text"),
            pytest.param(TWO, [("book", {"guests": 2.0})], id="2.0 is 2"),
            pytest.param(TWO, [("book", {"guests": 2, "outside": False})], id="default given"),
            pytest.param([("book", {"guests": 2, "outside": False})], TWO, id="default left out"),
            pytest.param(
                [("book", {"guests": 2, "outside": "True"})],
                [("book", {"guests": 2, "outside": True})],
                id="a boolean as text",
            ),
            pytest.param(TWO, [("book", {"guests": 2, "note": None})], id="null is left out"),
            pytest.param([("book", {"guests": 2, "note": None})], TWO, id="gold has null"),
            pytest.param(BOTH, BOTH[::-1], id="another order"),
            pytest.param(TWO * 2, TWO * 2, id="the same call twice where twice is wanted"),
            pytest.param(
                [("book", {"guests": 1, "dishes": "['soup', 'fish']"})],
                [("book", {"guests": 1, "dishes": ["soup", "fish"]})],
                id="a list as Python text",
            ),
            pytest.param(
                [("book", {"guests": 1, "name": " Ada"})],
                [("book", {"guests": 1, "name": "Ada"})],
                id="space around text",
            ),
            pytest.param([("cancel", {})], [("cancel", {})], id="no arguments"),
            pytest.param([], [], id="no call is wanted and none is made"),
        ],
    )
    def test_right(self, gold: Calls, said: Calls) -> None:
        assert judged(gold, said) == Verdict(True)

    def test_ignored_arguments_do_not_count(self) -> None:
        secret = [("book", {"guests": 2, "api_key": "3f2a"})]
        for said in (TWO, [("book", {"guests": 2, "api_key": "?"})], secret):
            assert judged(secret, said, ignored=frozenset({"api_key"})).correct
        assert not judged(secret, TWO).correct


class TestWrong:
    @pytest.mark.parametrize(
        ("gold", "said", "expected"),
        [
            pytest.param(TWO, [("book", {"guests": 3})], ["wrong value"], id="value"),
            pytest.param(TWO, [("book", {"guests": True})], ["wrong value"], id="true is not 1"),
            pytest.param(
                [("book", {"guests": 1, "name": "Ada"})],
                [("book", {"guests": 1, "name": "ada"})],
                ["wrong value"],
                id="capitals count",
            ),
            pytest.param(
                TWO, [("book", {"guests": 2, "outside": True})], ["wrong value"], id="not default"
            ),
            pytest.param(
                TWO,
                [("book", {"guests": 2, "name": "Ada"})],
                ["extra argument"],
                id="extra optional argument",
            ),
            pytest.param(
                TWO, [("book", {"guests": 2, "wine": 1})], ["extra argument"], id="unknown argument"
            ),
            pytest.param(TWO, [("book", {})], ["missing argument"], id="missing"),
            pytest.param(TWO, [("cancel", {})], ["wrong name"], id="listed tool"),
            pytest.param(TWO, [("reserve", {"guests": 2})], ["wrong name"], id="unlisted tool"),
            pytest.param(TWO, [], ["no call"], id="nothing said"),
            pytest.param(TWO, TWO * 2, ["extra call"], id="said twice"),
            pytest.param(TWO * 2, TWO, ["no call"], id="said once where twice is wanted"),
            pytest.param([], TWO, ["extra call"], id="a call where none is wanted"),
            pytest.param(
                BOTH,
                [("book", {"guests": 3, "name": "Bo"}), ("cancel", {})],
                ["wrong name"],
                id="one of two right",
            ),
            pytest.param(
                BOTH,
                [("book", {"guests": 3, "name": "Cy"}), ("book", {"guests": 2, "name": "Ada"})],
                ["wrong value"],
                id="each call is compared with the most similar",
            ),
            pytest.param(
                [("book", {"guests": 2, "name": "Ada"})],
                [("book", {"guests": 3, "price": 9})],
                ["extra argument", "missing argument", "wrong value"],
                id="several at once",
            ),
        ],
    )
    def test_wrong(self, gold: Calls, said: Calls, expected: list[str]) -> None:
        verdict = judged(gold, said)
        assert not verdict.correct
        assert verdict.unscored is None
        assert kinds(verdict) == expected
        assert all(fault.explanation for fault in verdict.faults)

    def test_the_explanation_tells_both_values(self) -> None:
        (fault,) = judged(TWO, [("book", {"guests": 3})]).faults
        assert fault == Fault("wrong value", "guests of book is 3 and should be 2")

    @pytest.mark.parametrize(
        "text",
        [
            '{"name": "book", "arguments": {"guests": 2',
            '<tool_call>\n{"nam',
            "book(guests=2",
            'I use "book" for that.',
            '[{"function": 1}]',
        ],
    )
    def test_a_call_that_cannot_be_read(self, text: str) -> None:
        for gold in (TWO, []):  # to garble a call is not to abstain
            assert kinds(judged(gold, [], text)) == ["unparsed"]

    @pytest.mark.parametrize("text", ["", "I cannot book that.", "There are [2] {tables}.", "a(b)"])
    def test_words_are_no_call(self, text: str) -> None:
        assert kinds(judged(TWO, [], text)) == ["no call"]
        assert judged([], [], text).correct

    def test_kinds_are_those_of_the_summary(self) -> None:
        summary = "unparsed, no call, extra call, wrong name, wrong value, missing argument"
        assert list(ERROR_KINDS) == [*summary.split(", "), "extra argument"]


class TestUnscored:
    def test_neither_right_nor_wrong(self) -> None:
        for said in (TWO, [], [("cancel", {})]):
            verdict = judged(TWO, said, ungradable="the gold tool fog is not listed")
            assert verdict == Verdict(False, "the gold tool fog is not listed", ())


def test_a_verdict_as_json() -> None:
    assert judged(TWO, []).to_json() == {
        "correct": False,
        "unscored": None,
        "errors": [{"kind": "no call", "explanation": "book was not called"}],
    }


VALUES = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["2", "Ada", "true", ""])
ARGUMENTS = st.dictionaries(
    st.sampled_from(["guests", "name", "outside", "price", "dishes", "note", "wine"]),
    VALUES | st.lists(VALUES, max_size=2),
    max_size=3,
)
CALLS = st.lists(st.builds(ToolCall, st.sampled_from(["book", "cancel", "x"]), ARGUMENTS))


@given(CALLS, CALLS, st.randoms())
def test_it_agrees_with_equality_whatever_is_said(
    gold: list[ToolCall], said: list[ToolCall], random: Any
) -> None:
    asked = replace(task([]), gold=tuple(gold))
    verdict = score(asked, Reply("", tuple(said)))
    assert verdict.correct == equal(gold, said, asked.request.tools)
    assert verdict.correct == (not verdict.faults)
    json.dumps(verdict.to_json())
    random.shuffle(gold)
    assert score(asked, Reply("", tuple(gold))).correct
