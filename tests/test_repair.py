"""Repair takes out what nobody said and mends types; what was right stays as it was."""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy import toolcalls
from quickstudy.repair import coerced, keep_stated, repair
from quickstudy.types import Reply, Request, ToolCall

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
PROPERTIES = {
    "room": TEXT,
    "level": WHOLE,
    "unit": {"type": "string", "enum": ["percent", "lumen"]},
    "fade": {"type": "boolean"},
    "tags": {"type": "array", "items": TEXT},
}


def tool(name: str = "dim", required: tuple[str, ...] = ("room",), **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": PROPERTIES, "required": list(required), **more}
    return {"name": name, "description": "Darker", "parameters": schema}


def mended(
    arguments: dict[str, Any], said: Any = "Dim the attic to 40", **more: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    request = Request.parse(said, [tool(**more)])
    reply, changes = repair(Reply("ok", (ToolCall("dim", arguments),)), request)
    assert reply.content == "ok"
    (call,) = reply.tool_calls
    assert call.name == "dim"
    return dict(call.arguments), changes


class TestUnknown:
    UNKNOWN = ('dim: colour = "attic" taken out, the tool knows no such argument',)

    @pytest.mark.parametrize("more", [{}, {"additionalProperties": False}])
    def test_goes_even_if_the_request_states_it(self, more: dict[str, Any]) -> None:
        found, changes = mended({"room": "attic", "colour": "attic"}, **more)
        assert found == {"room": "attic"}
        assert changes == self.UNKNOWN

    @pytest.mark.parametrize(
        "more",
        [
            {"additionalProperties": True},
            {"additionalProperties": TEXT},
            {"patternProperties": {"^c": TEXT}},
            {"allOf": [{"properties": {"colour": TEXT}}]},
            {"$ref": "#/$defs/more", "$defs": {"more": {"properties": {"colour": TEXT}}}},
        ],
    )
    def test_stays_where_the_schema_may_know_it(self, more: dict[str, Any]) -> None:
        arguments = {"room": "attic", "colour": "attic"}
        assert mended(arguments, **more) == (arguments, ())

    def test_of_a_tool_without_arguments(self) -> None:
        request = Request.parse("Stop the attic", [{"name": "stop"}])
        reply, changes = repair(Reply("", (ToolCall("stop", {"room": "attic"}),)), request)
        assert reply.tool_calls == (ToolCall("stop", {}),)
        assert len(changes) == 1


class TestInvented:
    def test_goes(self) -> None:
        found, changes = mended({"room": "attic", "level": 40, "tags": ["velvet"]})
        assert found == {"room": "attic", "level": 40}
        assert changes == ('dim: tags = ["velvet"] taken out, the request does not state it',)

    @pytest.mark.parametrize("empty", [None, "", " ", [], {}])
    def test_an_empty_value_states_nothing(self, empty: Any) -> None:
        assert mended({"room": "attic", "tags": empty})[0] == {"room": "attic"}

    def test_stays_where_it_is_required(self) -> None:
        assert mended({"room": "velvet"}) == ({"room": "velvet"}, ())
        assert mended({"room": "velvet"}, required=())[0] == {}

    def test_what_may_be_meant_stays(self) -> None:
        """A choice of few and a boolean may be meant in other words; 20 may come from 40."""
        arguments = {"room": "attic", "unit": "lumen", "fade": True, "level": 20}
        assert mended(arguments) == (arguments, ())

    def test_a_number_where_no_number_is_told_goes(self) -> None:
        assert mended({"room": "attic", "level": 20}, "Dim the attic")[0] == {"room": "attic"}

    @pytest.mark.parametrize(
        "before",
        [
            [{"role": "system", "content": "The user's tags: velvet."}],
            [{"role": "user", "content": "Tag with velvet"}],
            [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Shall I tag it velvet?"},
            ],
            [
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "dim", "arguments": {"tags": "velvet"}}}],
                },
                {"role": "tool", "content": "ok"},
            ],
            [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "", "tool_calls": []},
                {"role": "tool", "content": "the tag is velvet"},
            ],
        ],
        ids=["system", "user", "assistant", "call", "tool"],
    )
    def test_what_stands_anywhere_in_the_conversation_stays(
        self, before: list[dict[str, Any]]
    ) -> None:
        said = [*before, {"role": "user", "content": "Dim the attic"}]
        arguments = {"room": "attic", "tags": ["velvet"]}
        assert mended(arguments, said) == (arguments, ())
        assert mended({"room": "attic", "tags": ["satin"]}, said)[0] == {"room": "attic"}


class TestObjects:
    SAID = 'Label it {"type": "tag", "body": {"text": "blue"}} in the attic'
    MORE: ClassVar[dict[str, Any]] = {
        "properties": {"room": TEXT, "label": {"type": "object"}},
    }

    def test_a_part_of_the_one_spelt_out_becomes_the_whole(self) -> None:
        given = {"room": "attic", "label": {"text": "blue"}}
        arguments, (change,) = mended(given, self.SAID, **self.MORE)
        assert arguments["label"] == {"type": "tag", "body": {"text": "blue"}}
        assert "spells out" in change

    @pytest.mark.parametrize(
        "label",
        [
            {"type": "tag", "body": {"text": "blue"}},
            {"text": "red"},
            {"text": "blue", "n": 1},
            {"type": "tag"},
        ],
    )
    def test_others_stay(self, label: dict[str, Any]) -> None:
        given = {"room": "attic", "label": label}
        assert mended(given, self.SAID, **self.MORE) == (given, ())

    def test_what_a_tool_returned_is_not_asked_for(self) -> None:
        returned = '{"page": 1, "label": {"text": "blue"}}'
        said = [
            {"role": "user", "content": "Labels?"},
            {"role": "assistant", "content": "I look."},
            {"role": "tool", "content": returned},
            {"role": "user", "content": "Take the blue one in the attic."},
        ]
        given = {"room": "attic", "label": {"text": "blue"}}
        assert mended(given, said, **self.MORE) == (given, ())

    def test_not_where_the_schema_knows_better(self) -> None:
        only = {"type": "object", "properties": {"text": TEXT}, "additionalProperties": False}
        given = {"room": "attic", "label": {"text": "blue"}}
        more = {"properties": {"room": TEXT, "label": only}}
        assert mended(given, self.SAID, **more) == (given, ())


class TestValidity:
    def test_a_valid_call_stays_valid(self) -> None:
        arguments = {"room": "attic", "tags": ["velvet"]}
        assert mended(arguments, minProperties=2) == (arguments, ())
        assert mended(arguments, dependentRequired={"room": ["tags"]}) == (arguments, ())

    def test_one_that_was_not_is_mended_as_far_as_it_goes(self) -> None:
        found, _ = mended({"level": "40", "colour": "red"})
        assert found == {"level": 40}

    def test_calls_of_tools_not_listed_are_left_alone(self) -> None:
        calls = (ToolCall("fly", {"to": "velvet"}), ToolCall("dim", {"room": "attic", "x": 1}))
        reply, changes = repair(
            Reply("", calls), Request.parse("Dim the attic", [tool(), tool("lit")])
        )
        assert reply.tool_calls == (calls[0], ToolCall("dim", {"room": "attic"}))
        assert len(changes) == 1

    def test_words_are_left_alone(self) -> None:
        reply = Reply("No tool fits.")
        assert repair(reply, Request.parse("Hi", [tool()])) == (reply, ())
        assert repair(reply, Request.parse("Hi")) == (reply, ())

    def test_a_right_call_is_given_back_as_it_is(self) -> None:
        arguments = {"level": 40, "room": "attic"}
        found, changes = mended(arguments)
        assert list(found.items()) == list(arguments.items()), "in its order"
        assert changes == ()


class TestTypes:
    def test_each_change_is_told(self) -> None:
        found, changes = mended({"room": "attic", "level": "40"})
        assert found == {"room": "attic", "level": 40}
        assert changes == ('dim: level = "40" written as 40, the schema\'s type',)

    @pytest.mark.parametrize(
        ("value", "schema", "expected"),
        [
            ("5", WHOLE, 5),
            (" 5 ", WHOLE, 5),
            ("-5", WHOLE, -5),
            ("5.0", WHOLE, 5),
            ("1,200", WHOLE, 1200),
            ("1e3", WHOLE, 1000),
            (5.0, WHOLE, 5),
            ("12345678901234567890", WHOLE, 12345678901234567890),
            ("2.5", {"type": "number"}, 2.5),
            ("1,234,567.5", {"type": "number"}, 1234567.5),
            ("5", {"type": ["integer", "null"]}, 5),
            ("5", {"anyOf": [WHOLE, {"type": "null"}]}, 5),
            (5, TEXT, "5"),
            (2.5, TEXT, "2.5"),
            ("true", {"type": "boolean"}, True),
            (" False", {"type": "boolean"}, False),
            ("a", {"type": "array", "items": TEXT}, ["a"]),
            (5, {"type": "array", "items": TEXT}, ["5"]),
            ('["a", "b"]', {"type": "array", "items": TEXT}, ["a", "b"]),
            (["1", 2], {"type": "array", "items": WHOLE}, [1, 2]),
            ([["1"]], {"type": "array", "items": {"type": "array", "items": WHOLE}}, [[1]]),
            (
                {"n": "1", "x": "1"},
                {"type": "object", "properties": {"n": WHOLE}},
                {"n": 1, "x": "1"},
            ),
            ("Next_Day", {"enum": ["next day", "later"]}, "next day"),
            ("LUMEN", {"type": "string", "enum": ["percent", "lumen"]}, "lumen"),
            ("2", {"type": "integer", "enum": [1, 2]}, 2),
        ],
    )
    def test_are_brought_to_the_schema(self, value: Any, schema: Any, expected: Any) -> None:
        found = coerced(value, schema)
        assert json.dumps(found) == json.dumps(expected)
        assert (
            toolcalls.problem(
                ToolCall("t", {"v": found}),
                Request.parse(
                    "x",
                    [{"name": "t", "parameters": {"type": "object", "properties": {"v": schema}}}],
                ).tools,
            )
            is None
        )
        assert json.dumps(coerced(found, schema)) == json.dumps(found)

    @pytest.mark.parametrize(
        ("value", "schema"),
        [
            ("five", WHOLE),
            ("5 kg", WHOLE),
            ("", WHOLE),
            ("2.5", WHOLE),
            (2.5, WHOLE),
            (True, WHOLE),
            ("1,5", WHOLE),  # a decimal comma, or two numbers
            ("3,4", {"type": "number"}),
            ("1,23,456", WHOLE),
            ("1_000", WHOLE),
            ("٣", WHOLE),
            ("nan", {"type": "number"}),
            ("Infinity", {"type": "number"}),
            ("1e999", {"type": "number"}),
            ("9" * 5000 + ".0", WHOLE),
            ("yes", {"type": "boolean"}),
            ("tr,ue", {"type": "boolean"}),
            (1, {"type": "boolean"}),
            (True, TEXT),
            (None, TEXT),
            (None, {"type": "array"}),
            ({"a": 1}, {"type": "array"}),
            ("5", {"type": ["integer", "string"]}),
            ("5", {"$ref": "#/x"}),
            ("5", True),
            ("5", None),
            ("-", {"enum": ["+", "*"]}),
            ("C", {"enum": ["C++", "Java"]}),
            ("-5", {"enum": ["5", "6"]}),
            ("A", {"enum": ["a", "a "]}),
            ("a", {"enum": ["a", "A"]}),
            ("x", {"enum": ["a", "b"]}),
        ],
    )
    def test_what_cannot_be_read_surely_stays(self, value: Any, schema: Any) -> None:
        assert json.dumps(coerced(value, schema)) == json.dumps(value)

    @pytest.mark.parametrize("text", ["[NaN]", "[1e999]", '["\\ud800"]', "[" * 100 + "]" * 100])
    def test_a_list_that_json_cannot_write_again_stays_text(self, text: str) -> None:
        assert coerced(text, {"type": "array"}) == [text]


LEAF = st.sampled_from(
    [TEXT, WHOLE, {"type": "number"}, {"type": "boolean"}, {"enum": ["a b", "c"]}, {}, True]
) | st.just({"type": ["integer", "null"], "minimum": 3})
SCHEMA = st.recursive(
    LEAF,
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("array")}, optional={"items": inner})
        | inner.map(lambda s: {"type": "object", "properties": {"a": s}})
        | st.lists(inner, min_size=1, max_size=2).map(lambda some: {"anyOf": some})
    ),
    max_leaves=4,
)
TEXTS = st.text(max_size=5) | st.sampled_from(
    ["5", "1,000", "[1]", '["5"]', "[NaN]", "attic", "A B", "true", "nan", "2023-05-01", "May 1st"]
)
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)
NAMES = st.sampled_from(["a", "b", "c", "x"])


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.sampled_from("abc"), SCHEMA),
    st.lists(st.sampled_from("abc"), unique=True),
    st.sampled_from([{}, {"additionalProperties": False}, {"minProperties": 1}]),
    st.dictionaries(NAMES, VALUE),
    TEXTS,
)
def test_whatever_the_model_wrote(
    properties: dict[str, Any],
    required: list[str],
    more: dict[str, Any],
    arguments: dict[str, Any],
    said: str,
) -> None:
    parameters = {"type": "object", "properties": properties, "required": required, **more}
    request = Request.parse(f"Say {said}", [{"name": "t", "parameters": parameters}])
    before = json.dumps(arguments)
    call = ToolCall("t", arguments)
    reply, changes = repair(Reply("", (call,)), request)
    assert json.dumps(arguments) == before, "the reply given is not changed in place"
    (after,) = reply.tool_calls
    told = json.dumps(dict(after.arguments), allow_nan=False, ensure_ascii=False)
    told.encode()
    assert all("\n" not in change for change in changes)
    assert bool(changes) == (json.dumps(dict(after.arguments)) != before)
    assert set(after.arguments) <= set(arguments)
    kept = {name for name in arguments if name in required and name in properties}
    assert kept <= set(after.arguments), "what is required stays"
    if toolcalls.problem(call, request.tools) is None:
        assert toolcalls.problem(after, request.tools) is None
    again, more_changes = repair(reply, request)
    assert json.dumps(dict(again.tool_calls[0].arguments)) == json.dumps(dict(after.arguments))
    assert more_changes == ()
    assert not any(isinstance(v, float) and not math.isfinite(v) for v in after.arguments.values())


class TestKeepStated:
    """What the draft copied from the request and practice has lost comes back; nothing else."""

    SAID = "The market for shoes in China in euros (EUR), with 39.3 and Italy"
    TOOL: ClassVar[dict[str, Any]] = {
        "name": "look",
        "parameters": {
            "type": "object",
            "properties": {
                "country": TEXT,
                "currency": TEXT,
                "of": TEXT,
                "height": {"type": "number"},
                "coin": {"type": "string", "description": "The currency (e.g., USD, EUR, CHF)"},
            },
        },
    }

    def kept(
        self, draft: dict[str, Any], practised: dict[str, Any], names: str = "look look"
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        drafted, made = names.split()
        request = Request.parse(self.SAID, [self.TOOL, {**self.TOOL, "name": "other"}])
        replies = [
            Reply("", (ToolCall(name, arguments),))
            for name, arguments in ((made, practised), (drafted, draft))
        ]
        reply, changes = keep_stated(*replies, request)
        (call,) = reply.tool_calls
        assert call.name == made
        return dict(call.arguments), changes

    def test_a_value_of_the_practice_is_put_right(self) -> None:
        """The draft had EUR; USD is from a practice example."""
        found, changes = self.kept(
            {"country": "China", "currency": "EUR"}, {"country": "China", "currency": "USD"}
        )
        assert found == {"country": "China", "currency": "EUR"}
        assert changes == (
            'look: currency = "EUR" of the draft kept, practice had made "USD" of it',
        )

    def test_a_value_in_another_form_is_put_right(self) -> None:
        """EUR is the code of euros; USD could mean nothing else there, but says it wrongly."""
        found, changes = self.kept({"coin": "EUR"}, {"coin": "USD"})
        assert found == {"coin": "EUR"}
        assert len(changes) == 1
        assert self.kept({"coin": "USD"}, {"coin": "CHF"}) == ({"coin": "CHF"}, ())
        assert self.kept({"coin": "USD"}, {"coin": "EUR"}) == ({"coin": "EUR"}, ())

    def test_what_is_missing_comes_back(self) -> None:
        found, changes = self.kept({"country": "Italy", "height": 39.3}, {"country": "Italy"})
        assert found == {"country": "Italy", "height": 39.3}
        assert changes == (
            "look: height = 39.3 of the draft kept, practice had made nothing of it",
        )

    @pytest.mark.parametrize(
        ("draft", "practised", "why"),
        [
            ({"country": "Italy"}, {"country": "China"}, "another value of the request"),
            ({"country": "Peru"}, {}, "the draft had invented it"),
            ({"currency": "Euro"}, {"currency": "EUR"}, "not copied letter by letter"),
            ({"of": "China", "country": "China"}, {"country": "China"}, "told elsewhere"),
            ({"of": "shoes"}, {"of": "shoes", "currency": "USD"}, "nothing is lost"),
        ],
    )
    def test_what_practice_may_change(
        self, draft: dict[str, Any], practised: dict[str, Any], why: str
    ) -> None:
        assert self.kept(draft, practised) == (practised, ()), why

    def test_another_tool_is_another_call(self) -> None:
        practised = {"country": "China"}
        assert self.kept({"currency": "EUR"}, practised, "look other") == (practised, ())
        assert self.kept({"currency": "EUR"}, practised, "look look")[1]

    def test_replies_with_other_numbers_of_calls_are_left(self) -> None:
        request = Request.parse(self.SAID, [self.TOOL])
        call = ToolCall("look", {"currency": "EUR"})
        for practised in (Reply("words", ()), Reply("", (call, ToolCall("look", {})))):
            assert keep_stated(practised, Reply("", (call,)), request) == (practised, ())

    def test_what_would_be_invalid_is_left(self) -> None:
        """The draft's own value was not valid."""
        tool = {"name": "look", "parameters": {"type": "object", "properties": {"height": TEXT}}}
        request = Request.parse(self.SAID, [tool])
        practised = Reply("", (ToolCall("look", {}),))
        draft = Reply("", (ToolCall("look", {"height": 39.3}),))
        assert keep_stated(practised, draft, request) == (practised, ())
