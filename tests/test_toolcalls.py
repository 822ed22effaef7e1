"""Text to calls and back: whatever a model writes is read, and the grammar allows what we write."""

from __future__ import annotations

import json
import math
import random
import re
import socket
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import llguidance.hf
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from quickstudy.errors import RequestError
from quickstudy.toolcalls import (
    CallFormat,
    Grammar,
    equal,
    grammar,
    problem,
    read,
    value_grammar,
    write,
)
from quickstudy.types import Reply, Tool, ToolCall

CHEAP = settings(deadline=None, max_examples=150)
COSTLY = settings(deadline=None, max_examples=60)
FORMATS: tuple[CallFormat, ...] = get_args(CallFormat)


def tool(name: str = "f", /, required: Sequence[str] = (), **properties: Any) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return Tool.parse({"name": name, "parameters": schema})


def call(name: str = "f", /, **arguments: Any) -> ToolCall:
    return ToolCall(name, arguments)


WEATHER = tool(
    "get_weather",
    ["city"],
    city={"type": "string"},
    days={"type": "integer", "minimum": 1, "maximum": 14},
    unit={"enum": ["celsius", "fahrenheit"], "default": "celsius"},
)
TIMER = tool("set_timer", ["minutes"], minutes={"type": "number"}, label={"type": "string"})
TOOLS = (WEATHER, TIMER)
OSLO = call("get_weather", city="Oslo")
TEA = call("set_timer", minutes=4, label="tea")

# --- random JSON, calls and text -----------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["```", "```json\n", "\n```", "<tool_call>", "</tool_call>", "{", "[", "]}", '"', "\\", '{"a'],
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | FINITE | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(TEXT, JSON, max_size=3)
CALLS = st.lists(st.builds(ToolCall, TEXT, ARGUMENTS), min_size=1, max_size=3)
LISTED = st.lists(
    st.builds(tool, TEXT.filter(bool)), min_size=1, max_size=2, unique_by=lambda t: t.name
)
SHARDS = st.sampled_from(
    '{ } [ ] , : " \\ \n ``` ```json\n ```python\nprint({}) <tool_call> </tool_call> <tool_call'
    ' {"name": "f", "arguments": "parameters": "function": null NaN 1e999 -Infinity 12 "f" "a"'
    ' {} [] {"name":"f","arguments":{}} {"name":"f","arguments":"{}"} {"name":5,"arguments":{}}'
    ' {"name":"f","arguments":{"a":"\\ud83d"}} {"name":"f","arguments":{"a":NaN}}'
    ' {"name":"f","arguments":{"a":1e999}} {"function":{"name":"f","arguments":"[}"}}'
    ' {"name":"f","arguments":{"a":["```"]}} {"name":"f","arguments":"{\\"a\\":Infinity}"}'
    " Sure! \\ud83d \u2028 \x00".split(" ")
)
GARBAGE = st.lists(SHARDS | st.text(max_size=3), max_size=12).map("".join)


def check_read(text: str, tools: Sequence[Tool] = TOOLS) -> tuple[Reply, CallFormat | None]:
    """Reads, and checks all that holds for any text at all."""
    reply, call_format = read(text, tools)
    assert (call_format is None) == (not reply.tool_calls)
    if not reply.tool_calls:
        assert reply.content == text.strip(), "words are kept as they are"
        return reply, call_format
    sent = json.dumps(reply.to_json()["tool_calls"], allow_nan=False, ensure_ascii=False)
    assert json.loads(sent.encode()) == [c.to_json() for c in reply.tool_calls]
    assert equal(reply.tool_calls, reply.tool_calls, tools)
    for one in reply.tool_calls:
        problem(one, tools)
    for other in FORMATS:
        assert read(write(reply.tool_calls, other, tools), tools)[0].tool_calls == reply.tool_calls
    return reply, call_format


class TestReadAnything:
    @CHEAP
    @given(st.text())
    def test_any_text(self, text: str) -> None:
        check_read(text)

    @settings(CHEAP, max_examples=400)
    @given(GARBAGE)
    @example('{"name":"f","arguments":{"a":NaN}}')
    @example('{"name":"f","arguments":{"a":1e999}}')
    @example('{"name":"f","arguments":{"a":"\\ud83d"}}')
    @example('{"name":"f","arguments":{"a":' + "1" * 5000 + "}}")
    @example('{"name":"f","arguments":"{\\"a\\":Infinity}"}')
    def test_json_like_garbage(self, text: str) -> None:
        check_read(text)

    @pytest.mark.parametrize("depth", [10, 100, 450, 900, 980, 3000])
    @pytest.mark.parametrize(
        ("opening", "closing"),
        [
            ("[", "]"),
            ('{"a": ', "}"),
            ('[{"function": ', "}]"),
            ('{"name": "f", "arguments": ', "}"),
            ('<tool_call>{"name": "f", "arguments": ', "}</tool_call>"),
            ("```json\n[", "]\n```"),
        ],
    )
    def test_deep_nesting(self, opening: str, closing: str, depth: int) -> None:
        check_read(opening * depth)
        check_read(opening * depth + "{}" + closing * depth)
        deep = '{"a": ' + opening * depth + "0" + closing * depth + "}"
        check_read('{"name": "f", "arguments": ' + deep + "}")
        check_read('{"name": "f", "arguments": ' + json.dumps(deep) + "}")

    @CHEAP
    @given(CALLS, LISTED, st.sampled_from(FORMATS), st.data())
    def test_what_is_cut_off_gives_the_calls_before_the_cut(
        self, calls: list[ToolCall], tools: list[Tool], call_format: CallFormat, data: st.DataObject
    ) -> None:
        text = write(calls, call_format, tools)
        cut = data.draw(st.integers(0, len(text)))
        reply, found = check_read(text[:cut], tools)
        assert list(reply.tool_calls) == calls[: len(reply.tool_calls)]
        assert found in (None, call_format)

    def test_a_cut_off_call_does_not_become_the_call_it_holds(self) -> None:
        inner = {"name": "set_timer", "arguments": {"minutes": 1}}
        text = json.dumps({"name": "plan", "arguments": {"step": inner}})
        assert check_read(text)[0].tool_calls == (call("plan", step=inner),)
        assert check_read(text[:-1])[0].tool_calls == ()
        assert check_read(text[:-2])[0].tool_calls == ()


class TestReadBack:
    @CHEAP
    @given(CALLS, LISTED, st.sampled_from(FORMATS))
    @example([call(a="```"), call("g")], [tool()], "json")
    @example([call(a="x```y")], [tool()], "fenced")
    @example([call(a="</tool_call>")], [tool()], "tagged")
    @example([call(a="<tool_call>"), call("g", a="</tool_call>")], [tool()], "json")
    def test_written_calls_are_read_in_every_format(
        self, calls: list[ToolCall], tools: list[Tool], call_format: CallFormat
    ) -> None:
        reply, found = check_read(write(calls, call_format, tools), tools)
        assert list(reply.tool_calls) == calls
        # 1 == 1.0 == True in Python, but not in JSON
        assert [dumped(c) for c in reply.tool_calls] == [dumped(c) for c in calls]
        assert found == call_format
        assert reply.content == ""

    @CHEAP
    @given(
        CALLS,
        st.sampled_from(FORMATS),
        st.text("abc é.,:'\n", max_size=20),
        st.text("abc é.,:'\n", max_size=20),
    )
    def test_words_around_calls_are_kept_and_do_no_harm(
        self, calls: list[ToolCall], call_format: CallFormat, before: str, after: str
    ) -> None:
        text = f"{before}\n{write(calls, call_format, TOOLS)}\n{after}"
        reply, found = check_read(text)
        assert list(reply.tool_calls) == calls
        assert found == call_format
        assert reply.content.split() == f"{before}\n{after}".split()


def dumped(one: ToolCall) -> str:
    return json.dumps(one.to_json(), sort_keys=True)


REALISTIC: dict[str, tuple[str, list[ToolCall], CallFormat | None, str]] = {
    "Qwen2.5-Coder: a fenced, pretty-printed block": (
        '```json\n{\n  "name": "get_weather",\n  "arguments": {\n    "city": "Oslo"\n  }\n}\n```',
        [OSLO],
        "fenced",
        "",
    ),
    "a fenced list after a sentence": (
        'Here are the calls:\n\n```json\n[\n  {"name": "get_weather", "arguments": {"city": "Oslo"}}'
        ',\n  {"name": "set_timer", "arguments": {"minutes": 4, "label": "tea"}}\n]\n```\n\nDone.',
        [OSLO, TEA],
        "fenced",
        "Here are the calls:\n\n\n\nDone.",
    ),
    "several fenced blocks": (
        'First\n```json\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n```\nthen\n'
        '```json\n{"name": "set_timer", "arguments": {"minutes": 4, "label": "tea"}}\n```',
        [OSLO, TEA],
        "fenced",
        "First\n\nthen",
    ),
    "a fence without a language": (
        '```\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n```',
        [OSLO],
        "fenced",
        "",
    ),
    "a fence that never closes": (
        '```json\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n',
        [OSLO],
        "fenced",
        "",
    ),
    "a fenced list cut off in its second call": (
        '```json\n[{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "set_ti',
        [OSLO],
        "fenced",
        "",
    ),
    "Hermes: two tags": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "set_timer", "arguments": {"minutes": 4, "label": "tea"}}\n'
        "</tool_call>",
        [OSLO, TEA],
        "tagged",
        "",
    ),
    "a tag after some thought": (
        "I should look that up.\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
        [OSLO],
        "tagged",
        "I should look that up.",
    ),
    "a tag cut off before it closes": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n',
        [OSLO],
        "tagged",
        "",
    ),
    "a tag cut off inside the call": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Os',
        [],
        None,
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Os',
    ),
    "a fence inside a tag": (
        '<tool_call>\n```json\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n```\n'
        "</tool_call>",
        [OSLO],
        "tagged",
        "",
    ),
    "a bare list": (
        '[{"name": "get_weather", "arguments": {"city": "Oslo"}}, '
        '{"name": "set_timer", "arguments": {"minutes": 4, "label": "tea"}}]',
        [OSLO, TEA],
        "json",
        "",
    ),
    "a bare object with words around it": (
        'Sure: {"name": "get_weather", "arguments": {"city": "Oslo"}} (there you go).',
        [OSLO],
        "json",
        "Sure:  (there you go).",
    ),
    "bare objects, a line each": (
        '{"name": "get_weather", "arguments": {"city": "Oslo"}}\n'
        '{"name": "set_timer", "arguments": {"minutes": 4, "label": "tea"}}',
        [OSLO, TEA],
        "json",
        "",
    ),
    "brackets in the words": (
        'As [1] says {roughly}: [{"name": "get_weather", "arguments": {"city": "Oslo"}}]',
        [OSLO],
        "json",
        "As [1] says {roughly}:",
    ),
    "OpenAI's function wrapper, arguments as text": (
        '{"type": "function", "function": {"name": "get_weather", '
        '"arguments": "{\\"city\\": \\"Oslo\\"}"}}',
        [OSLO],
        "json",
        "",
    ),
    "arguments as text": (
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>',
        [OSLO],
        "tagged",
        "",
    ),
    "Llama's parameters": (
        '{"name": "get_weather", "parameters": {"city": "Oslo"}}',
        [OSLO],
        "json",
        "",
    ),
    "a tool nobody listed is still a call": (
        '[{"name": "nope", "arguments": {}}]',
        [call("nope")],
        "json",
        "",
    ),
    "plain words": ("  I cannot do that.\n", [], None, "I cannot do that."),
    "JSON that is no call": ('{"city": "Oslo"}', [], None, '{"city": "Oslo"}'),
    "a name without arguments": ('{"name": "get_weather"}', [], None, '{"name": "get_weather"}'),
    "arguments as a list": (
        '{"name": "get_weather", "arguments": ["Oslo"]}',
        [],
        None,
        '{"name": "get_weather", "arguments": ["Oslo"]}',
    ),
    "Python, not JSON": (
        "```python\nget_weather(city='Oslo')\n```",
        [],
        None,
        "```python\nget_weather(city='Oslo')\n```",
    ),
    "a code block beside a call stays in the words": (
        "Run\n```python\nprint(1)\n```\nand\n```json\n"
        '{"name": "get_weather", "arguments": {"city": "Oslo"}}\n```',
        [OSLO],
        "fenced",
        "Run\n```python\nprint(1)\n```\nand",
    ),
    "markup inside an argument is no markup": (
        '[{"name": "set_timer", "arguments": {"minutes": 1, "label": "```"}}, '
        '{"name": "get_weather", "arguments": {"city": "<tool_call>"}}]',
        [call("set_timer", minutes=1, label="```"), call("get_weather", city="<tool_call>")],
        "json",
        "",
    ),
}


class TestReadRealOutput:
    @pytest.mark.parametrize("case", list(REALISTIC))
    def test_reads(self, case: str) -> None:
        text, calls, call_format, words = REALISTIC[case]
        reply, found = check_read(text)
        assert list(reply.tool_calls) == calls
        assert found == call_format
        assert reply.content == words

    def test_without_tools_all_is_words(self) -> None:
        text = REALISTIC["a bare list"][0]
        assert read(f" {text}\n", ()) == (Reply(text), None)

    def test_half_a_surrogate_pair_can_be_sent_on(self) -> None:
        """A model cut off between two escapes leaves one that UTF-8 cannot write."""
        text = '[{"name": "set_timer", "arguments": {"minutes": 1, "label": "tea \\ud83c"}}]'
        (one,) = check_read(text)[0].tool_calls
        assert str(one.arguments["label"]).startswith("tea ")
        assert one.arguments["minutes"] == 1

    def test_a_whole_surrogate_pair_is_one_character(self) -> None:
        text = '{"name": "set_timer", "arguments": {"minutes": 1, "label": "\\ud83c\\udf75"}}'
        assert check_read(text)[0].tool_calls == (call("set_timer", minutes=1, label="🍵"),)


class TestWrite:
    CALL = '{"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}}'

    @pytest.mark.parametrize(
        ("call_format", "one", "two"),
        [
            ("json", "[{0}]", "[{0}, {0}]"),
            ("fenced", "```json\n{0}\n```", "```json\n[{0}, {0}]\n```"),
            (
                "tagged",
                "<tool_call>\n{0}\n</tool_call>",
                "<tool_call>\n{0}\n</tool_call>\n<tool_call>\n{0}\n</tool_call>",
            ),
        ],
    )
    def test_looks_like_the_format(self, call_format: CallFormat, one: str, two: str) -> None:
        unordered = call("get_weather", days=2, city="Zürich")
        assert write([unordered], call_format, TOOLS) == one.format(self.CALL)
        assert write([unordered] * 2, call_format, TOOLS) == two.format(self.CALL)

    def test_arguments_the_schema_does_not_know_come_last_in_their_order(self) -> None:
        text = write([call("get_weather", z=1, y=2, city="x")], "json", TOOLS)
        assert text == '[{"name": "get_weather", "arguments": {"city": "x", "z": 1, "y": 2}}]'

    def test_keys_inside_arguments_come_in_the_schemas_order_too(self) -> None:
        place = {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {}}}
        tools = [tool(at=place, path={"type": "array", "items": place})]
        text = write([call(at={"lon": 2, "lat": 1}, path=[{"lon": 4, "lat": 3}])], "json", tools)
        assert text == (
            '[{"name": "f", "arguments": {"at": {"lat": 1, "lon": 2}, '
            '"path": [{"lat": 3, "lon": 4}]}}]'
        )

    def test_a_call_of_an_unlisted_tool_is_written_as_it_is(self) -> None:
        assert write([call("x", b=1, a=2)], "json", ()) == (
            '[{"name": "x", "arguments": {"b": 1, "a": 2}}]'
        )


# --- problem -------------------------------------------------------------------------------------


@contextmanager
def offline() -> Iterator[None]:
    """Fails if the body tries to connect or to open a URL, even where the error is swallowed."""
    tried: list[object] = []

    def refuse(*args: object, **_: object) -> None:
        tried.append(args[-1])
        raise OSError("the tests are offline")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setattr(urllib.request, "urlopen", refuse)
        yield
    assert tried == [], f"went out to {tried}"


REFERENCES = (
    "# #/properties/a #/properties/b #/$defs/a #/$defs/b #/nowhere #anchor a.json urn:x http://["
    " http://127.0.0.1:9/schema.json https://example.com/schema file:///etc/hostname"
    " ftp://example.com/x https://json-schema.org/draft/2020-12/schema"
)
PATTERNS = st.sampled_from(["^a", "(?=a)", r"\d{2}", "(", "[", "a{99999999999}", "(?P<a>.)", "(?i)x"])
KIND = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])
SUBSCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.booleans()
    | st.fixed_dictionaries({"type": KIND | st.lists(KIND, min_size=1, max_size=2, unique=True)})
    | st.fixed_dictionaries({"$ref": st.sampled_from(REFERENCES.split())})
    | st.fixed_dictionaries({"$dynamicRef": st.sampled_from(REFERENCES.split())})
    | st.fixed_dictionaries({"$id": st.sampled_from(REFERENCES.split()), "type": KIND})
    | st.fixed_dictionaries({"pattern": PATTERNS})
    | st.fixed_dictionaries({"enum": st.lists(JSON, max_size=2)})
    | st.fixed_dictionaries({"const": JSON, "default": JSON})
    | st.fixed_dictionaries({"multipleOf": st.sampled_from([0.1, 3, 1e-300, 10**400])})
    | st.fixed_dictionaries({"minimum": st.integers() | FINITE, "maxLength": st.integers(0, 3)}),
    lambda inner: (
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"items": inner, "type": st.just("array")})
        | st.fixed_dictionaries({"not": inner})
        | st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner)})
    ),
    max_leaves=4,
)
NAMES = st.sampled_from(["a", "b", "c"])
SCHEMAS = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(NAMES, SUBSCHEMAS, max_size=3)},
    optional={
        "required": st.lists(NAMES, unique=True, max_size=2),
        "$defs": st.dictionaries(NAMES, SUBSCHEMAS, max_size=2),
        "additionalProperties": SUBSCHEMAS,
        "$ref": st.sampled_from(REFERENCES.split()),
        "$schema": st.sampled_from(REFERENCES.split()),
        "$id": st.sampled_from(REFERENCES.split()),
        "allOf": st.lists(SUBSCHEMAS, min_size=1, max_size=2),
        "patternProperties": st.dictionaries(PATTERNS, SUBSCHEMAS, max_size=1),
    },
)
SOME_ARGUMENTS = st.dictionaries(NAMES, JSON, max_size=3)


class TestProblem:
    @settings(CHEAP, max_examples=300)
    @given(SCHEMAS, SOME_ARGUMENTS)
    @example({"$ref": "#"}, {})
    @example({"properties": {"a": {"$ref": "#/properties/a"}}}, {"a": 1})
    @example({"properties": {"a": {"$ref": "http://127.0.0.1:9/x.json"}}}, {"a": 1})
    @example({"properties": {"a": {"$ref": "file:///etc/hostname"}}}, {"a": 1})
    @example({"properties": {"a": {"multipleOf": 1e-300}}}, {"a": 1e300})
    def test_never_raises_and_never_goes_out(
        self, schema: dict[str, Any], arguments: dict[str, Any]
    ) -> None:
        try:
            listed = Tool.parse({"name": "f", "parameters": schema})
        except RequestError:
            return
        with offline():
            wrong = problem(ToolCall("f", arguments), [listed])
        assert wrong is None or (isinstance(wrong, str) and wrong)
        if wrong is None and not {"additionalProperties", "patternProperties"} & schema.keys():
            assert arguments.keys() <= listed.properties.keys()
        equal([ToolCall("f", arguments)], [ToolCall("f", {})], [listed])
        write([ToolCall("f", arguments)], "json", [listed])

    def test_a_remote_reference_is_a_fact_about_the_schema(self, tmp_path: Path) -> None:
        """A request must not make us read files: an error message would carry them out."""
        secret = tmp_path / "secret.json"
        secret.write_text('{"const": "SECRET"}')
        wrong = problem(call(a=1), [tool(a={"$ref": secret.as_uri()})])
        assert wrong is not None
        assert "SECRET" not in wrong
        assert "schema of f" in wrong

    @pytest.mark.parametrize(
        ("one", "said"),
        [
            (call("get_wether", city="x"), "no tool is called 'get_wether'"),
            (call("get_weather", city="x", zip=1), "get_weather has no argument 'zip'"),
            (call("get_weather"), "'city' is a required property"),
            (call("get_weather", city=5), "5 is not of type 'string'"),
            (call("get_weather", city="x", days=1.5), "1.5 is not of type 'integer'"),
            (call("get_weather", city="x", days=0), "less than the minimum"),
            (call("get_weather", city="x", unit="kelvin"), "'kelvin' is not one of"),
            (call("set_timer", minutes=True), "True is not of type 'number'"),
        ],
    )
    def test_says_what_is_wrong(self, one: ToolCall, said: str) -> None:
        assert said in (problem(one, TOOLS) or "")

    @pytest.mark.parametrize(
        "one", [OSLO, TEA, call("get_weather", city="", days=14, unit="celsius")]
    )
    def test_a_valid_call_has_none(self, one: ToolCall) -> None:
        assert problem(one, TOOLS) is None

    def test_unknown_arguments_are_for_the_schema_to_allow(self) -> None:
        def listed(**more: Any) -> list[Tool]:
            schema = {"type": "object", "properties": {"a": {}}, **more}
            return [Tool.parse({"name": "f", "parameters": schema})]

        assert problem(call(b="x"), listed()) is not None
        assert problem(call(b="x"), listed(additionalProperties=False)) is not None
        assert problem(call(b="x"), listed(additionalProperties=True)) is None
        texts = {"additionalProperties": {"type": "string"}}
        assert problem(call(b="x"), listed(**texts)) is None
        assert problem(call(b=5), listed(**texts)) is not None
        assert problem(call(b="x"), listed(patternProperties={"^b": {"type": "string"}})) is None

    def test_references_inside_the_schema_are_followed(self) -> None:
        place = {"type": "object", "properties": {"next": {"$ref": "#/$defs/place"}}}
        schema = {"$defs": {"place": place}, "properties": {"at": {"$ref": "#/$defs/place"}}}
        tools = [Tool.parse({"name": "f", "parameters": schema})]
        assert problem(call(at={"next": {"next": {}}}), tools) is None
        assert "not of type 'object'" in (problem(call(at={"next": {"next": 5}}), tools) or "")


# --- equal ---------------------------------------------------------------------------------------

INTEGER = [tool(a={"type": "integer"})]
NUMBER = [tool(a={"type": "number"})]
STRING = [tool(a={"type": "string"})]


class TestEqual:
    @CHEAP
    @given(CALLS, LISTED, st.randoms(use_true_random=False))
    def test_is_reflexive_and_order_free(
        self, calls: list[ToolCall], tools: list[Tool], chance: random.Random
    ) -> None:
        shuffled = [
            ToolCall(c.name, dict(sorted(c.arguments.items(), key=lambda _: chance.random())))
            for c in calls
        ]
        chance.shuffle(shuffled)
        assert equal(calls, shuffled, tools)
        assert equal(shuffled, calls)

    @CHEAP
    @given(CALLS, LISTED, st.data())
    def test_counts_how_often_a_call_is_made(
        self, calls: list[ToolCall], tools: list[Tool], data: st.DataObject
    ) -> None:
        again = data.draw(st.sampled_from(calls))
        assert not equal(calls, [*calls, again], tools)
        assert not equal([*calls, again], calls, tools)
        assert not equal([], calls, tools)
        assert equal([*calls, again], [again, *calls], tools)

    @CHEAP
    @given(CALLS, st.data())
    def test_another_name_or_argument_is_another_call(
        self, calls: list[ToolCall], data: st.DataObject
    ) -> None:
        index = data.draw(st.integers(0, len(calls) - 1))
        one = calls[index]
        renamed = ToolCall(one.name + "x", one.arguments)
        fuller = ToolCall(one.name, {**one.arguments, "another": None})
        for other in (renamed, fuller):
            assert not equal(calls, [*calls[:index], other, *calls[index + 1 :]])

    @CHEAP
    @given(st.integers())
    @example(2**53 + 1)
    @example(12345678901234567891)
    @example(-(10**30) - 1)
    def test_integers_may_be_written_as_text(self, number: int) -> None:
        written = call(a=str(number))
        assert equal([written], [call(a=number)], INTEGER)
        assert equal([written], [call(a=number)], NUMBER)
        assert equal([call(a=f" {number:,} ")], [call(a=number)], INTEGER)
        assert not equal([written], [call(a=number + 1)], INTEGER)
        assert not equal([written], [call(a=number)]), "without a schema text is text"

    @CHEAP
    @given(FINITE)
    @example(2.0**53)
    @example(-0.0)
    def test_numbers_may_be_written_as_text(self, number: float) -> None:
        assert equal([call(a=str(number))], [call(a=number)], NUMBER)
        if number == int(number):
            assert equal([call(a=int(number))], [call(a=number)], NUMBER)
            assert equal([call(a=int(number))], [call(a=number)])

    @CHEAP
    @given(st.integers() | st.booleans())
    def test_text_may_be_written_as_a_number(self, value: int) -> None:
        assert equal([call(a=json.dumps(value))], [call(a=value)], STRING)

    @pytest.mark.parametrize(
        "kind",
        [
            {"type": "integer"},
            {"type": ["integer", "null"]},
            {"type": ["null", "integer"]},
            {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        ],
    )
    def test_an_integer_that_may_be_null_is_an_integer(self, kind: dict[str, Any]) -> None:
        tools = [tool(a=kind)]
        assert equal([call(a="5")], [call(a=5)], tools)
        assert not equal([call(a=None)], [call(a=0)], tools)

    @pytest.mark.parametrize(
        ("kind", "left", "right", "same"),
        [
            ("boolean", "True", True, True),
            ("boolean", "false", False, True),
            ("boolean", "no", False, False),
            ("string", " Oslo ", "Oslo", True),
            ("string", "oslo", "Oslo", False),
            ("string", "5", 5, True),
            ("string", "5", "5.0", False),
            ("integer", "five", 5, False),
            ("integer", "5.0", 5, True),
            ("integer", "5.5", 5, False),
            ("number", "1e3", 1000, True),
            ("number", "1,234.5", 1234.5, True),
            ("number", True, 1, False),
            ("integer", False, 0, False),
            ("number", "nan", "nan", True),
            ("number", "inf", "-inf", False),
            ("integer", None, 0, False),
            ("integer", "", 0, False),
            ("array", [1, "a "], [1.0, "a"], True),
            ("array", [1, 2], [2, 1], False),
            ("array", [], None, False),
            ("object", {"x": 1, "y": " b"}, {"y": "b", "x": 1.0}, True),
            ("object", {"x": 1}, {"x": 1, "y": None}, False),
        ],
    )
    def test_values_are_compared_as_their_schema_reads_them(
        self, kind: str, left: Any, right: Any, same: bool
    ) -> None:
        tools = [tool(a={"type": kind})]
        assert equal([call(a=left)], [call(a=right)], tools) is same
        assert equal([call(a=right)], [call(a=left)], tools) is same

    def test_values_inside_lists_and_objects_have_schemas_too(self) -> None:
        tools = [
            tool(
                a={"type": "array", "items": {"type": "integer"}},
                b={"type": "object", "properties": {"n": {"type": "number"}}},
            )
        ]
        assert equal([call(a=["1", 2], b={"n": "0.5"})], [call(a=[1, 2], b={"n": 0.5})], tools)
        assert not equal([call(a=["1", 2])], [call(a=[1, 3])], tools)

    @CHEAP
    @given(JSON, JSON)
    def test_defaults_are_filled(self, default: Any, other: Any) -> None:
        tools = [tool(a={"default": default}, b={})]
        assert equal([call()], [call(a=default)], tools)
        assert equal([call(b=1)], [call(a=default, b=1)], tools)
        assert not equal([call()], [call(b=default)], tools)
        same = equal([call(a=default)], [call(a=other)])
        assert equal([call()], [call(a=other)], tools) is same

    def test_a_default_is_read_as_its_type(self) -> None:
        tools = [tool(a={"type": "integer", "default": "3"})]
        assert equal([call()], [call(a=3)], tools)
        assert not equal([call()], [call(a=4)], tools)


# --- grammar -------------------------------------------------------------------------------------


class Engine(NamedTuple):
    """A byte-level tokenizer: token n is byte n of its alphabet, and three specials."""

    tokenizer: PreTrainedTokenizerFast
    vocabulary: LLTokenizer
    special: Mapping[str, int]

    def ids(self, text: str) -> list[int]:
        """A tag that has a line to itself is its special token; all else is bytes."""
        found: list[int] = []
        for piece in re.split(r"(?m)^(</?tool_call>)$", text):
            if piece in self.special:
                found.append(self.special[piece])
            else:
                found += [self.letters[byte] for byte in piece.encode()]
        return found

    @property
    def letters(self) -> Sequence[int]:
        return byte_ids()


SPECIALS = ("<eos>", "<tool_call>", "</tool_call>")


@cache
def byte_ids() -> tuple[int, ...]:
    """The token id of each byte, by asking the tokenizer's own byte-level step."""
    step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    order = {letter: i for i, letter in enumerate(sorted(step.alphabet()))}
    texts = ["".join(chr(i) for i in range(0x800)), "\U00010000\U00040000\U00080000\U000c0000"]
    texts += ["\U00100000", *(chr(i << 12) for i in range(1, 16) if i != 0xD)]
    found = {}
    for text in texts:
        letters = step.pre_tokenize_str(text)[0][0]
        found.update(zip(text.encode(), letters, strict=True))
    return tuple(order.get(found.get(byte, ""), -1) for byte in range(256))
