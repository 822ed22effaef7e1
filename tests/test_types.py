"""Requests are parsed once, at the edge: what arrives becomes a value or a RequestError."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quickstudy.errors import RequestError
from quickstudy.types import (
    STAGES,
    Answer,
    Candidate,
    Episode,
    Example,
    Message,
    Rejected,
    Reply,
    Request,
    Tool,
    ToolCall,
)

CHEAP = settings(deadline=None, max_examples=120)


def nested(depth: int, key: str | None = None, core: Any = None) -> Any:
    """[[[...]]] or {key: {key: ...}}, built without recursion."""
    value = core
    for _ in range(depth):
        value = [value] if key is None else {key: value}
    return value


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "default": 1},
            },
            "required": ["city"],
        },
    },
}
USER = {"role": "user", "content": "Weather in Oslo?"}

# --- arbitrary JSON, shaped so that it often comes near a request --------------------------------

KEYS = st.sampled_from(
    [
        "role",
        "content",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "parameters",
        "description",
        "type",
        "text",
        "properties",
        "required",
        "items",
        "enum",
        "default",
        "pattern",
        "minimum",
        "multipleOf",
        "$ref",
        "$id",
        "$schema",
        "$defs",
        "allOf",
        "not",
        "additionalProperties",
        "a",
    ]
)
WORDS = st.sampled_from(
    [
        *("user", "assistant", "system", "tool", "agent", "object", "string", "integer", "", "f"),
        *("{}", "[]", '{"a": 1}', "{", "[" * 3000, "1" * 5000, "NaN", '{"a": NaN}', "null"),
        *("#", "#/$defs/a", "http://127.0.0.1:9/x", "(", "a{99999999999}", "^(?=a)", "\ud800"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([1.5, math.inf, math.nan, 10**400])
    | WORDS
    | st.text(max_size=5)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
SCHEMAS = st.dictionaries(KEYS, JSON, max_size=4) | st.fixed_dictionaries(
    {"type": st.just("object")},
    optional={"properties": st.dictionaries(st.text(max_size=3), JSON, max_size=3)},
)
CALLS = st.fixed_dictionaries(
    {"name": WORDS | JSON}, optional={"arguments": WORDS | JSON, "function": JSON}
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | JSON},
    optional={
        "content": st.text(max_size=9) | JSON,
        "tool_calls": st.lists(CALLS, max_size=2) | JSON,
    },
)
TOOLS = st.fixed_dictionaries(
    {"name": st.text(max_size=3) | JSON},
    optional={"parameters": SCHEMAS | JSON, "description": JSON},
)


DEEP: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "messages": lambda n: (nested(n), None),
    "role": lambda n: ([{"role": nested(n), "content": "hi"}], None),
    "content": lambda n: ([{"role": "user", "content": nested(n)}], None),
    "call": lambda n: ([USER, {"role": "assistant", "tool_calls": [nested(n)]}], None),
    "arguments": lambda n: (
        [USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": nested(n, "a")}]}],
        None,
    ),
    "arguments as text": lambda n: (
        [USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[" * n}]}],
        None,
    ),
    "tool": lambda n: ([USER], [nested(n)]),
    "schema": lambda n: ([USER], [{"name": "f", "parameters": nested(n, "not", {})}]),
    "enum": lambda n: (
        [USER],
        [{"name": "f", "parameters": {"properties": {"a": {"enum": [nested(n)]}}}}],
    ),
    "parameters": lambda n: ([USER], [{"name": "f", "parameters": nested(n)}]),
}


def check_parse(messages: Any, tools: Any) -> None:
    """Parsing gives a RequestError, or a request that is the same after a trip through JSON."""
    try:
        request = Request.parse(messages, tools, id="x")
    except RequestError:
        return
    assert request.messages
    assert all(isinstance(m.content, str) for m in request.messages)
    assert len({tool.name for tool in request.tools}) == len(request.tools)
    assert isinstance(request.user_text, str)
    text = json.dumps(
        [[m.to_openai() for m in request.messages], [t.to_openai() for t in request.tools]],
        allow_nan=False,
    )
    assert Request.parse(*json.loads(text), id="x") == request


class TestRequestParse:
    @CHEAP
    @given(st.lists(MESSAGES | JSON, max_size=3) | JSON, st.lists(TOOLS | JSON, max_size=3) | JSON)
    @example([USER], [{"name": "f", "parameters": {"pattern": "a{99999999999}"}}])
    @example([USER], [{"name": "f", "parameters": {"minimum": math.nan}}])
    @example([{"role": "user", "content": {"text": "hi"}}], [])
    def test_raises_nothing_but_request_error(self, messages: Any, tools: Any) -> None:
        check_parse(messages, tools)

    @pytest.mark.parametrize("depth", [90, 200, 600, 5000])
    @pytest.mark.parametrize("place", list(DEEP))
    def test_bottomless_nesting_is_a_request_error_too(self, place: str, depth: int) -> None:
        check_parse(*DEEP[place](depth))

    @pytest.mark.parametrize(
        ("messages", "tools"),
        [
            ([{"role": "user", "content": "half \ud83d a pair"}], None),
            ([USER], [{"name": "f", "description": "half \udc00"}]),
            ([USER], [{"name": "f", "parameters": {"properties": {"a": {"enum": ["\ud800"]}}}}]),
        ],
    )
    def test_half_a_surrogate_pair_never_reaches_the_tokenizer(
        self, messages: Any, tools: Any
    ) -> None:
        """JSON can spell a lone surrogate; UTF-8, and so every tokenizer, cannot."""
        try:
            request = Request.parse(messages, tools)
        except RequestError:
            return
        request.user_text.encode()
        json.dumps([tool.to_openai() for tool in request.tools], ensure_ascii=False).encode()

    def test_reads_a_conversation_with_calls_and_results(self) -> None:
        request = Request.parse(
            [
                {"role": "system", "content": "Be brief."},
                USER,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "8 degrees"},
                {"role": "user", "content": [{"type": "text", "text": "And "}, {"text": "Lima?"}]},
            ],
            [WEATHER],
            id=7,
        )
        assert [m.role for m in request.messages] == ["system", "user", "assistant", "tool", "user"]
        assert request.messages[2].content == ""
        assert request.messages[2].tool_calls == (ToolCall("get_weather", {"city": "Oslo"}),)
        assert request.user_text == "Weather in Oslo?\n8 degrees\nAnd Lima?"
        assert request.tool("get_weather") is request.tools[0]
        assert request.tool("get_wether") is None
        assert request.id == 7

    def test_a_text_is_one_user_turn(self) -> None:
        assert Request.parse("hi").messages == (Message("user", "hi"),)

    @pytest.mark.parametrize(
        ("messages", "tools", "said"),
        [
            ([], None, "non-empty"),
            (None, None, "non-empty"),
            ({"role": "user", "content": "hi"}, None, "non-empty"),
            (["hi"], None, "messages[0]"),
            ([USER, {"role": "agent", "content": ""}], None, "messages[1]: unknown role 'agent'"),
            ([{"role": "user", "content": 5}], None, "messages[0]: content"),
            ([{"role": "user", "content": [{"type": "image_url"}]}], None, "messages[0]: content"),
            ([{"role": "system", "content": "x"}], None, "no turn to answer"),
            ([USER, {"role": "system", "content": "x"}], None, "must come first"),
            ([USER, {"role": "assistant", "tool_calls": "f"}], None, "messages[1]: tool_calls"),
            ([USER, {"role": "assistant", "tool_calls": [{}]}], None, "messages[1].tool_calls[0]"),
            (
                [USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}],
                None,
                "messages[1].tool_calls[0]: arguments",
            ),
            (
                [USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]}],
                None,
                "arguments must be an object",
            ),
            ([USER], "tools", "tools: expected a list"),
            ([USER], {"name": "f"}, "tools: expected a list"),
            ([USER], [WEATHER, 5], "tools[1]"),
            ([USER], [{"name": ""}], "tools[0]"),
            ([USER], [WEATHER, WEATHER], "'get_weather' is listed twice"),
            ([USER], [{"name": "f", "parameters": [1]}], "parameters of 'f'"),
            ([USER], [{"name": "f", "parameters": {"type": "array"}}], '"type": "object"'),
            (
                [USER],
                [{"name": "f", "parameters": {"properties": {"a": {"type": "str"}}}}],
                "properties.a.type",
            ),
            ([USER], [{"name": "f", "parameters": {"required": "a"}}], "at required"),
            (
                [USER],
                [{"name": "f", "parameters": {"properties": {"a": {"pattern": "("}}}}],
                "pattern",
            ),
        ],
    )
    def test_says_where_it_is_wrong(self, messages: Any, tools: Any, said: str) -> None:
        with pytest.raises(RequestError) as caught:
            Request.parse(messages, tools)
        assert said in str(caught.value)


class TestTool:
    def test_bare_and_wrapped_spellings_are_the_same_tool(self) -> None:
        tool = Tool.parse(WEATHER)
        assert tool == Tool.parse(WEATHER["function"])
        assert tool.to_openai() == WEATHER
        assert list(tool.properties) == ["city", "days"]
        assert tool.required == {"city"}

    @pytest.mark.parametrize("missing", [{}, {"parameters": None}, {"parameters": {}}])
    def test_without_parameters_it_takes_no_arguments(self, missing: dict[str, Any]) -> None:
        tool = Tool.parse({"name": "now", "description": None, **missing})
        assert tool.parameters == {"type": "object", "properties": {}}
        assert tool.description == ""
        assert not tool.properties
        assert not tool.required

    def test_keeps_a_schema_of_its_own(self) -> None:
        raw = {"name": "f", "parameters": {"type": "object", "properties": {}}}
        tool = Tool.parse(raw)
        raw["parameters"]["type"] = "array"  # type: ignore[index]
        assert tool.parameters["type"] == "object"


class TestValues:
    """The nouns are frozen, and what they write is JSON."""

    CALL = ToolCall("f", {"a": 1})
    DRAFT = Reply("words", (CALL,))
    PRACTICE = Example((Message("system", "s"), Message("user", "u")), (CALL,), "substitution")

    def episode(self, **changes: Any) -> Episode:
        return dataclasses.replace(
            Episode("tt-si", 0.5, 0.9, True, None, self.DRAFT, seconds={"draft": 1.23456}),
            **changes,
        )

    def test_are_frozen(self) -> None:
        for value in (self.CALL, self.DRAFT, self.PRACTICE, self.episode(), Message("user", "x")):
            name = dataclasses.fields(value)[0].name
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, name, "changed")

    def test_an_answer_is_json_with_its_episode(self) -> None:
        episode = self.episode(
            candidates=(Candidate("f", -0.5), Candidate("g", -math.inf)),
            examples=(self.PRACTICE,),
            rejected=(Rejected(self.PRACTICE, "a copy"),),
            losses=(0.5, 0.1),
        )
        answer = Answer("words", (self.CALL,), episode, id="r1")
        written = json.loads(json.dumps(answer.to_json(), allow_nan=False))
        call = {"name": "f", "arguments": {"a": 1}}
        practised = {"request": "u", "content": "", "tool_calls": [call], "source": "substitution"}
        assert written["id"] == "r1"
        assert written["content"] == "words"
        assert written["tool_calls"] == [call]
        assert written["episode"]["draft"] == {"content": "words", "tool_calls": [call]}
        assert written["episode"]["candidates"] == [
            {"text": "f", "log_prob": -0.5},
            {"text": "g", "log_prob": None},
        ]
        assert written["episode"]["examples"] == [practised]
        assert written["episode"]["rejected"] == [{**practised, "reason": "a copy"}]
        assert written["episode"]["losses"] == [0.5, 0.1]

    def test_every_stage_has_its_seconds(self) -> None:
        seconds = self.episode().to_json()["seconds"]
        assert tuple(seconds) == STAGES
        assert seconds["draft"] == 1.2346
        assert sum(seconds.values()) == 1.2346

    def test_an_example_shows_the_last_thing_said(self) -> None:
        turns = (Message("user", "first"), Message("assistant", "ok"), Message("tool", "result"))
        assert self.PRACTICE.user_text == "u"
        assert Example(turns, (), "x").to_json()["request"] == "first\nresult"
        assert Example((*turns, Message("user", "last")), (), "x").to_json()["request"] == "last"

    def test_a_message_carries_calls_in_openai_form(self) -> None:
        message = Message("assistant", "", (self.CALL,))
        assert message.to_openai()["tool_calls"] == [
            {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
        ]
        assert "tool_calls" not in Message("user", "x").to_openai()
        assert Message.parse(message.to_openai()) == message
