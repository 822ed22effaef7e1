"""Nothing wrong is practised: what the verifier lets through is valid and stated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from quickstudy import toolcalls
from quickstudy.augmentation.verify import reject
from quickstudy.grounding.ground import Status, ground
from quickstudy.types import Example, Message, Request, Tool, ToolCall

CHEAP = settings(deadline=None, max_examples=150)

BOOK = {
    "name": "book",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "day": {"type": "string", "description": "the day, YYYY-MM-DD"},
            "guests": {"type": "integer", "minimum": 1},
            "class": {"enum": ["economy", "business"]},
            "breakfast": {"type": "boolean"},
            "with_names": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city"],
    },
}
# schemas that a request may bring and that no value can be judged by
ODD = Tool(
    "odd",
    "",
    {
        "properties": {"a": True, "b": {"$ref": "#/nowhere"}, "c": {"description": "e.g. 10:30"}},
        "additionalProperties": True,
    },
)
PARSED = Request.parse("Get me a room in Lisbon for 3 guests", [BOOK])
REQUEST = replace(PARSED, tools=(*PARSED.tools, ODD))


def made(text: str, *calls: ToolCall, source: str = "substitution") -> Example:
    return Example((Message("user", text),), calls, source)


def book(city: str, **arguments: Any) -> ToolCall:
    return ToolCall("book", {"city": city, **arguments})


def verdict(text: str, *calls: ToolCall, source: str = "call-first", **more: Any) -> str | None:
    return reject(made(text, *calls, source=source), REQUEST, more.pop("accepted", ()), **more)


GOOD = ("I want to stay in Oslo with 5 guests", book("Oslo", guests=5))


class TestKept:
    @pytest.mark.parametrize("source", ["substitution", "call-first"])
    def test_a_good_example(self, source: str) -> None:
        assert verdict(*GOOD, source=source) is None

    def test_words_for_a_date(self) -> None:
        call = book("Oslo", day="2023-03-25")
        assert verdict("A bed in Oslo on March 25th, 2023", call) is None

    def test_a_number_in_words(self) -> None:
        assert verdict("Oslo, and we are twenty-one", book("Oslo", guests=21)) is None

    def test_an_enum_in_any_case(self) -> None:
        call = book("Oslo", **{"class": "business"})
        assert verdict("Business class to Oslo", call) is None

    def test_two_calls(self) -> None:
        assert verdict("Beds in Oslo and in Rome", book("Oslo"), book("Rome")) is None

    def test_values_left_as_the_draft_has_them_need_not_be_stated(self) -> None:
        call = book("Oslo", breakfast=True)
        assert verdict("A bed and eggs in Oslo", call) is not None
        assert verdict("A bed and eggs in Oslo", call, kept=[{"breakfast"}]) is None

    def test_only_those_that_are_named(self) -> None:
        call = book("Oslo", breakfast=True, guests=4)
        reason = verdict("A bed and eggs in Oslo", call, kept=[{"breakfast"}])
        assert reason == "its request does not state guests = 4"

    def test_only_those_of_their_own_call(self) -> None:
        calls = (book("Oslo"), book("Rome", breakfast=True))
        text = "Beds in Oslo and in Rome, with eggs"
        assert verdict(text, *calls, kept=[{"breakfast"}]) is not None
        assert verdict(text, *calls, kept=[(), {"breakfast"}]) is None


class TestRejected:
    @pytest.mark.parametrize(
        "text",
        [
            "I'm sorry, I cannot book rooms in Oslo",
            "As an AI I know no Oslo",
            "Sorry: I can't find Oslo",
        ],
    )
    def test_a_refusal(self, text: str) -> None:
        assert verdict(text, book("Oslo")) == "it is a refusal"

    @pytest.mark.parametrize("text", ['{"city": "Oslo"}', "[Oslo]", 'my "arguments" are Oslo'])
    def test_code(self, text: str) -> None:
        assert "code" in str(verdict(text, book("Oslo")))

    def test_nothing_asked_or_nothing_called(self) -> None:
        assert verdict(" ", book("Oslo")) == verdict("Hello Oslo")
        assert verdict("Hello Oslo") is not None

    def test_a_copy_of_the_users_request(self) -> None:
        text = "get me a ROOM in Lisbon, for 3 guests!"
        for source in ("substitution", "call-first"):
            assert "copies" in str(verdict(text, book("Lisbon", guests=3), source=source))

    def test_nearly_a_copy(self) -> None:
        text = "Get me a room in Lisboa for 3 guests"
        assert "nearly copies" in str(verdict(text, book("Lisboa", guests=3)))

    def test_the_users_own_value(self) -> None:
        text = "We want beds and breakfast somewhere around Lisbon"
        assert "own value" in str(verdict(text, book("Lisbon")))

    def test_another_examples_call(self) -> None:
        again = verdict("Five of us travel: 5 to Oslo", GOOD[1], accepted=[made(*GOOD)])
        assert "another example" in str(again)

    def test_nearly_another_example(self) -> None:
        near = verdict(
            "I want to stay in Oslo with 6 guests",
            book("Oslo", guests=6),
            accepted=[made(*GOOD)],
        )
        assert "nearly another" in str(near)

    @pytest.mark.parametrize(
        "call",
        [
            ToolCall("fly", {"city": "Oslo"}),
            ToolCall("book", {}),
            book("Oslo", town="Oslo"),
            book("Oslo", guests=0),
            book("Oslo", **{"class": "Oslo"}),
        ],
    )
    def test_an_invalid_call(self, call: ToolCall) -> None:
        assert "not valid" in str(verdict("Oslo for zero guests", call))

    @pytest.mark.parametrize(
        "arguments",
        [{"guests": 4}, {"breakfast": True}, {"class": "economy"}, {"with_names": ["Ann"]}],
    )
    def test_a_value_that_is_not_stated(self, arguments: dict[str, Any]) -> None:
        assert "does not state" in str(verdict("I want to see Oslo", book("Oslo", **arguments)))

    def test_a_value_inside_a_word(self) -> None:
        assert "does not state" in str(verdict("We like parties", book("art")))

    def test_other_letters_than_those_of_its_request(self) -> None:
        assert "spelt 'Oslo'" in str(verdict("I want to see Oslo", book("oslo")))

    @pytest.mark.parametrize("day", ["2024-03-26", "2023-03-26", "March 25th, 2023", "25/03/2023"])
    def test_another_day_or_another_format_than_the_stated(self, day: str) -> None:
        """Just one date in the request is no licence to write any date in the call."""
        text = "A bed in Oslo on March 25th, 2023"
        for source in ("substitution", "call-first"):
            assert verdict(text, book("Oslo", day=day), source=source) is not None

    def test_a_request_that_states_more_than_its_call(self) -> None:
        assert "'5'" in str(verdict("I want to stay in Oslo with 5 guests", book("Oslo")))
        spoken = verdict("A bed in Oslo with names on the door", book("Oslo"))
        assert "with_names" in str(spoken)

    def test_a_kept_value_whose_words_have_gone(self) -> None:
        """Both cities were stated; the words of one became another city's."""
        request = Request.parse("Book Rome for Ann and Bob", [BOOK])
        call = book("Oslo", with_names=["Ann", "Bob"])
        kept = [{"with_names"}]
        assert reject(made("Book Oslo for Ann and Bob", call), request, (), kept) is None
        assert reject(made("Book Oslo for Zoe and Bob", call), request, (), kept) is not None


NAMES = st.sampled_from(
    ["city", "day", "guests", "class", "breakfast", "with_names", "a", "b", "c"]
)
FRAGMENTS = (
    "Oslo", "oslo", "Rome", "5", "twenty-one", "1,200", "March 25th, 2023", "2023-03-25", "9 pm",
    "business", "economy", "tomorrow", "Ann", "I can't", "Get me a room in Lisbon for 3 guests",
    "party", "", "{", "true", "²",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=5).map(" ".join)
VALUES = st.recursive(
    st.sampled_from([*FRAGMENTS, 5, 21, 1200, 5.0, True, None, 10**400, float("nan")])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
ARGUMENTS = st.dictionaries(NAMES | st.text(max_size=3), VALUES, max_size=4)
CALLS = st.builds(ToolCall, st.sampled_from(["book", "odd", "fly", ""]), ARGUMENTS) | st.builds(
    book, st.sampled_from(["Oslo", "Rome", "oslo"])
)
EXAMPLES = st.builds(
    Example,
    st.lists(
        st.builds(Message, st.sampled_from(["user", "assistant", "tool", "system"]), TEXTS),
        min_size=1,
        max_size=2,
    ).map(tuple),
    st.lists(CALLS, max_size=2).map(tuple),
    st.sampled_from(["substitution", "call-first"]),
)
REQUESTS = st.sampled_from([REQUEST]) | st.builds(
    lambda text, tools: replace(Request.parse(text), tools=tuple(tools)),
    TEXTS,
    st.sampled_from([list(PARSED.tools), [ODD], [], [*PARSED.tools, ODD]]),
)
KEPT = st.lists(st.sets(NAMES, max_size=2), max_size=2)


def assert_kept_rightly(example: Example, request: Request, kept: list[Any]) -> None:
    for number, call in enumerate(example.tool_calls):
        assert toolcalls.problem(call, request.tools) is None
        tool = request.tool(call.name)
        assert tool is not None
        exempt = kept[number] if number < len(kept) else ()
        for name, value in call.arguments.items():
            schema = tool.properties.get(name)
            schema = schema if isinstance(schema, dict) else {}
            status = ground(value, schema, example.user_text).status
            assert status in (Status.STATED, Status.REWORDED) or name in exempt


class TestContract:
    @CHEAP
    @given(EXAMPLES, REQUESTS, st.lists(EXAMPLES, max_size=2), KEPT)
    @example(made("Book Oslo for 5", book("Oslo", guests=10**400)), REQUEST, [], [])
    @example(made("Oslo on 9999-12-31", book("Oslo", day="9999-12-31")), REQUEST, [], [])
    @example(made("at 10:30", ToolCall("odd", {"c": "10:30", "b": 1})), REQUEST, [], [])
    def test_any_example_is_judged_and_what_is_kept_is_valid_and_stated(
        self, candidate: Example, request: Request, accepted: list[Example], kept: list[Any]
    ) -> None:
        reason = reject(candidate, request, accepted, kept)
        event("kept" if reason is None else "rejected")
        assert reason is None or reason.strip()
        if reason is None:
            assert_kept_rightly(candidate, request, kept)

    @CHEAP
    @given(
        st.sampled_from(["Oslo", "Rome", "Porto Alegre"]),
        st.integers(4, 99),
        st.sampled_from(["March 25th, 2023", "the 3rd of May 2021", "2023-03-25"]),
        st.dictionaries(NAMES, VALUES, max_size=2),
    )
    def test_near_to_a_good_example_too(
        self, city: str, guests: int, day: str, changes: dict[str, Any]
    ) -> None:
        dates = {"M": "2023-03-25", "t": "2021-05-03", "2": "2023-03-25"}
        call = book(city, guests=guests, day=dates[day[0]])
        text = f"On {day} we travel to {city}, {guests} of us"
        assert verdict(text, call) is None
        changed = made(text, ToolCall("book", {**call.arguments, **changes}))
        if reject(changed, REQUEST, ()) is None:
            assert_kept_rightly(changed, REQUEST, [])
