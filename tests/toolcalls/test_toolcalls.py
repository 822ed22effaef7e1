"""Text to calls and back: whatever a model writes is read, and the grammar allows what we write."""

from __future__ import annotations

import json
import random
import re
import socket
import time
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

CHEAP = settings(deadline=None, max_examples=60)
COSTLY = settings(deadline=None, max_examples=40)
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
SHARDS = st.sampled_from([
    "{", "}", "[", "]", ",", ":", '"', "\\", "\n", "```", "```json\n", "```python\nprint({})",
    "<tool_call>", "</tool_call>", "<tool_call", '{"name":', '"f",', '"arguments":',
    '"parameters":', '"function":', "null", "NaN", "1e999", "-Infinity", "12", '"f"', '"a"', "{}",
    "[]", '{"name":"f","arguments":{}}', '{"name":"f","arguments":"{}"}',
    '{"name":5,"arguments":{}}', '{"name":"f","arguments":{"a":"\\ud83d"}}',
    '{"name":"f","arguments":{"a":NaN}}', '{"name":"f","arguments":{"a":1e999}}',
    '{"function":{"name":"f","arguments":"[}"}}', '{"name":"f","arguments":{"a":["```"]}}',
    '{"name":"f","arguments":"{\\"a\\":Infinity}"}', "Sure!", "\\ud83d", "\u2028", "\x00",
])  # fmt: skip
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

    @settings(CHEAP, max_examples=300)
    @given(GARBAGE)
    @example('{"name":"f","arguments":{"a":NaN}}')
    @example('{"name":"f","arguments":{"a":1e999}}')
    @example('{"name":"f","arguments":{"a":"\\ud83d"}}')
    @example('{"name":"f","arguments":{"a":' + "1" * 5000 + "}}")
    @example('{"name":"f","arguments":"{\\"a\\":Infinity}"}')
    def test_json_like_garbage(self, text: str) -> None:
        check_read(text)

    @pytest.mark.parametrize("depth", [10, 100, 450, 900, 2000])
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
        "Here are the calls:\n\n```json\n[\n  "
        '{"name": "get_weather", "arguments": {"city": "Oslo"}},\n  '
        '{"name": "set_timer", "arguments": {"minutes": 4, "label": "tea"}}\n]\n```\n\nDone.',
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
        "llama",
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
        [OSLO],
        "python",
        "",
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
PATTERNS = st.sampled_from(
    ["^a", "(?=a)", r"\d{2}", "(", "[", "a{99999999999}", "(?P<a>.)", "(?i)x"]
)
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
    @settings(CHEAP, max_examples=150)
    @given(SCHEMAS, SOME_ARGUMENTS)
    @example({"$ref": "#"}, {})
    @example({"properties": {"a": {"$ref": "#/properties/a"}}}, {"a": 1})
    @example({"properties": {"a": {"$ref": "http://127.0.0.1:9/x.json"}}}, {"a": 1})
    @example({"properties": {"a": {"$ref": "file:///etc/hostname"}}}, {"a": 1})
    @example({"properties": {"a": {"multipleOf": 1e-300}}}, {"a": 1e300})
    @example({"properties": {"a": {"anyOf": [True, {"type": ["null"]}]}}}, {"a": "5"})
    def test_never_raises_and_never_goes_out(
        self, schema: dict[str, Any], arguments: dict[str, Any]
    ) -> None:
        try:
            listed = Tool.parse({"name": "f", "parameters": schema})
        except RequestError as error:
            if "ref" not in str(error):  # a schema but for its references, which may say anything
                return
            listed = Tool("f", "", schema)
        with offline():
            wrong = problem(ToolCall("f", arguments), [listed])
        assert wrong is None or (isinstance(wrong, str) and wrong)
        if wrong is None and not {"additionalProperties", "patternProperties"} & schema.keys():
            assert arguments.keys() <= listed.properties.keys()
        equal([ToolCall("f", arguments)], [ToolCall("f", {})], [listed])
        write([ToolCall("f", arguments)], "json", [listed])

    @pytest.mark.parametrize(
        "schema",
        [
            {"allOf": [{"not": {"$ref": "#"}}]},
            {"properties": {"a": {"not": {"$dynamicRef": "#/properties/a"}}}},
            {"$ref": "#"},
        ],
    )
    def test_a_loop_of_references_is_a_fact_about_the_schema(self, schema: dict[str, Any]) -> None:
        """Where the stack ends inside Rust code, a panic comes up that is no `Exception`."""
        tools = [Tool("f", "", schema)]  # Tool.parse refuses it
        arguments = {"a": 1} if "properties" in schema else {}

        def deeper(levels: int) -> str | None:
            return deeper(levels - 1) if levels else problem(call(**arguments), tools)

        for levels in range(60):
            assert "schema of f" in (deeper(levels) or "")

    def test_a_remote_reference_is_a_fact_about_the_schema(self, tmp_path: Path) -> None:
        """A request must not make us read files: an error message would carry them out."""
        secret = tmp_path / "secret.json"
        secret.write_text('{"const": "SECRET"}')
        schema = {"properties": {"a": {"$ref": secret.as_uri()}}}
        wrong = problem(call(a=1), [Tool("f", "", schema)])  # Tool.parse refuses it
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
    """A byte-level tokenizer, a token a byte, and the grammar engine's view of it."""

    letters: Tokenizer  # bytes only
    whole: PreTrainedTokenizerFast  # bytes, <eos> and the two tags
    vocabulary: LLTokenizer
    special: Mapping[str, int]

    def ids(self, text: str, special: Mapping[str, int]) -> list[int]:
        """Bytes, but a tag that has a line to itself is a token if `special` has it."""
        found: list[int] = []
        for piece in re.split(r"(?m)^(</?tool_call>)$", text):
            found += [special[piece]] if piece in special else self.letters.encode(piece).ids
        return found

    def matcher(self, rules: Grammar) -> LLMatcher:
        matcher = LLMatcher(self.vocabulary, rules.lark, log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        return matcher

    def refused(self, rules: Grammar, text: str, special: Mapping[str, int] | None = None) -> str:
        """Empty if the grammar accepts the whole text, else the text from the refused place on."""
        matcher = self.matcher(rules)
        ids = self.ids(text, self.special if special is None else special)
        taken = matcher.try_consume_tokens(ids)
        if taken < len(ids):
            return self.whole.decode(ids[taken:])
        return "" if matcher.is_accepting() else "(the end)"


@cache
def engine() -> Engine:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())

    def build() -> Tokenizer:
        tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    full = build()
    full.add_special_tokens(
        [AddedToken(text, special=True) for text in ("<eos>", "<tool_call>", "</tool_call>")]
    )
    whole = PreTrainedTokenizerFast(tokenizer_object=full, eos_token="<eos>")
    special = {tag: whole.convert_tokens_to_ids(tag) for tag in ("<tool_call>", "</tool_call>")}
    return Engine(build(), whole, llguidance.hf.from_tokenizer(whole), special)


# The engine escapes what it reads from a schema in its own way, so names and constants are tame
# here; DEL is left out of free text too, since the engine wants it as \u007f and we write it raw.
LABELS = st.text("abcXYZ019_- éß日.", min_size=1, max_size=6)
FREE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=8)


@st.composite
def typed(draw: st.DrawFn, depth: int = 2) -> tuple[dict[str, Any], Any]:
    """A JSON Schema and a value that satisfies it."""
    kinds = ["text", "integer", "bounded", "number", "boolean", "enum", "const", "null", "either"]
    kind = draw(st.sampled_from(kinds + ["array", "object"] * (2 if depth else 0)))
    if kind == "text":
        return {"type": "string"}, draw(FREE)
    if kind == "integer":
        return {"type": "integer"}, draw(st.integers())
    if kind == "bounded":
        low, number, high = sorted(draw(st.tuples(*[st.integers(-999, 999)] * 3)))
        return {"type": "integer", "minimum": low, "maximum": high}, number
    if kind == "number":
        return {"type": "number"}, draw(FINITE | st.integers())
    if kind == "boolean":
        return {"type": "boolean"}, draw(st.booleans())
    if kind in ("enum", "const"):
        choices = draw(st.lists(LABELS | st.integers(-9, 9), min_size=1, max_size=3, unique=True))
        if kind == "const":
            return {"const": choices[0]}, choices[0]
        return {"enum": choices}, draw(st.sampled_from(choices))
    if kind == "null":
        return {"type": ["integer", "null"]}, draw(st.none() | st.integers(0, 9))
    if kind == "either":
        options = {"anyOf": [{"type": "string"}, {"type": "boolean"}]}
        return options, draw(FREE | st.booleans())
    if kind == "array":
        items, first = draw(typed(depth - 1))
        return {"type": "array", "items": items}, [first] * draw(st.integers(0, 2))
    return draw(typed_object(depth - 1))


@st.composite
def typed_object(draw: st.DrawFn, depth: int) -> tuple[dict[str, Any], dict[str, Any]]:
    members = draw(st.dictionaries(LABELS, typed(depth), max_size=3))
    required = draw(st.lists(st.sampled_from(list(members)), unique=True)) if members else []
    given = draw(st.permutations(list(members)))
    given = [name for name in given if name in required or draw(st.booleans())]
    schema = {
        "type": "object",
        "properties": {name: schema for name, (schema, _) in members.items()},
        "required": required,
        "additionalProperties": False,
    }
    return schema, {name: members[name][1] for name in given}


@st.composite
def valid_calls(draw: st.DrawFn) -> tuple[list[Tool], list[ToolCall]]:
    """Some tools, and calls of them that satisfy their schemas."""
    tools, calls = [], []
    for name in draw(st.lists(LABELS, min_size=1, max_size=3, unique=True)):
        schema, arguments = draw(typed_object(2))
        if draw(st.booleans()):
            del schema["additionalProperties"]
        tools.append(Tool.parse({"name": name, "parameters": schema}))
        calls.append(ToolCall(name, arguments))
    chosen = draw(st.lists(st.sampled_from(calls), min_size=1, max_size=3))
    return tools, chosen


class TestGrammar:
    @COSTLY
    @given(valid_calls(), st.sampled_from(FORMATS), st.booleans())
    def test_accepts_what_is_written(
        self, valid: tuple[list[Tool], list[ToolCall]], call_format: CallFormat, tokens: bool
    ) -> None:
        tools, calls = valid
        assert [problem(c, tools) for c in calls] == [None] * len(calls)
        special = engine().special if tokens else {}
        text = write(calls, call_format, tools)
        for only in (call_format, None):
            rules = grammar(tools, special, only, formats=FORMATS)
            assert engine().refused(rules, text, special) == ""
        for other in set(FORMATS) - {call_format}:
            assert engine().refused(grammar(tools, special, other), text, special)

    @COSTLY
    @given(valid_calls(), LABELS, JSON, st.sampled_from(FORMATS))
    def test_refuses_unknown_tools_and_arguments(
        self,
        valid: tuple[list[Tool], list[ToolCall]],
        stranger: str,
        value: Any,
        call_format: CallFormat,
    ) -> None:
        tools, calls = valid
        last = calls[-1]
        rules = grammar(tools, engine().special, call_format)
        listed = next(tool for tool in tools if tool.name == last.name)
        assume(stranger not in listed.properties)
        wrong = [ToolCall(last.name, {**last.arguments, stranger: value})]
        if all(stranger != tool.name for tool in tools):
            wrong.append(ToolCall(stranger, last.arguments))
        for name in listed.required:
            kept = {key: value for key, value in last.arguments.items() if key != name}
            wrong.append(ToolCall(last.name, kept))
        for one in wrong:
            assert problem(one, tools) is not None
            text = write([*calls[:-1], one], call_format, tools)
            assert engine().refused(rules, text)

    @COSTLY
    @given(st.text("abc é.,:'[]{}<`\n", max_size=20), st.sampled_from([*FORMATS, None]))
    def test_accepts_plain_words(self, words: str, only: CallFormat | None) -> None:
        rules = grammar(TOOLS, engine().special, only)
        for opening in "Ié¿1(":
            assert engine().refused(rules, opening + words) == ""

    @COSTLY
    @given(valid_calls(), st.sampled_from([None, 1, 2, 4]), st.sampled_from(["fenced", None]))
    def test_words_may_come_to_a_fenced_call_in_any_layout(
        self,
        valid: tuple[list[Tool], list[ToolCall]],
        indent: int | None,
        only: CallFormat | None,
    ) -> None:
        tools, (call, *_) = valid
        rules = grammar(tools, engine().special, only)
        ordered = json.loads(write([call], "fenced", tools).split("\n", 1)[1].rsplit("\n", 1)[0])
        layout = json.dumps(ordered, indent=indent, ensure_ascii=False)
        if "\\" not in layout:  # the engine spells some characters in its own way
            listed = json.dumps([ordered, ordered], indent=indent, ensure_ascii=False)
            for body, calls in ((layout, (call,)), (listed, (call, call))):
                text = f"Sure, this is it:\n\n```json\n{body}\n```"
                assert engine().refused(rules, text) == ""
                assert read(text, tools)[0].tool_calls == calls
            assert engine().refused(rules, text + "\nIt does this and that.")

    @pytest.mark.parametrize("fence", ["```json\n", "```\n", "```JSON\n", "``` json\n"])
    @pytest.mark.parametrize(
        ("body", "allowed"),
        [
            ('{"name": "get_weather", "arguments": {"city": "Oslo"}}', True),
            ('{ "name" : "get_weather",\t"arguments": {"city": "Oslo"}}', True),
            ('{"name":"get_weather","arguments":{"city":"Oslo"}}', True),
            ('[{"name": "get_weather", "arguments": {"city": "Oslo"}}]', True),
            (
                '{\n  "name": "weather in Oslo",\n  "arguments": {\n    "city": "Oslo"\n  }\n}',
                False,
            ),
            ('{ "name" : "wind", "arguments": {}}', False),
            ('{\t"name": "wind", "arguments": {}}', False),
            ('[{"name": "wind", "arguments": {}}]', False),
            (
                '[\n  {"name": "get_weather", "arguments": {"city": "Oslo"}},\n  {"name": "wind"}]',
                False,
            ),
            ('{\n  "name": "get_weather",\n  "arguments": {\n    "town": "Oslo"\n  }\n}', False),
            ('{\n  "name": "get_weather",\n  "city": "Oslo"\n}', False),
            ('{"city": "Oslo"}', True),
            ('["Oslo", {"name": "weather in Oslo"}]', True),
        ],
    )
    def test_a_fenced_object_with_a_name_is_a_call_of_a_listed_tool(
        self, fence: str, body: str, allowed: bool
    ) -> None:
        text = f"Certainly! Here it is:\n{fence}{body}\n```"
        assert (engine().refused(grammar(TOOLS, engine().special), text) == "") == allowed
        assert engine().refused(grammar(TOOLS, engine().special, must_call=True), text)

    def test_as_many_calls_after_words_as_it_is_told(self) -> None:
        call = json.dumps({"name": "get_weather", "arguments": {"city": "Oslo"}})
        for count in (1, 2, 3, 4):
            text = f"Here:\n```json\n[{', '.join([call] * count)}]\n```"
            rules = grammar(TOOLS, engine().special, "fenced", max_calls=3)
            assert (engine().refused(rules, text) == "") == (count <= 3)

    @pytest.mark.parametrize("call_format", ["tagged", "mistral", "mistral-args"])
    def test_words_may_come_to_a_call_that_a_token_marks(self, call_format: CallFormat) -> None:
        special = engine().special
        text = "I look it up.\n" + write([OSLO], call_format, TOOLS)
        marked = call_format == "tagged"  # its tags are tokens here, [TOOL_CALLS] is not
        rules = grammar(TOOLS, special, call_format)
        assert ("words_" in rules.lark) == marked
        if marked:
            assert engine().refused(rules, text, special) == ""
            assert engine().refused(rules, text.replace("get_weather", "get_wind"), special)

    @pytest.mark.parametrize("opening", ["<", "[", "{", "`", " ", "\n"])
    def test_plain_words_do_not_open_like_a_call(self, opening: str) -> None:
        assert engine().refused(grammar(TOOLS, engine().special, None), opening + "words")

    @pytest.mark.parametrize(
        "text",
        [
            '[{"name": "get_weather", "arguments": {"city": 5}}]',
            '[{"name": "get_weather", "arguments": {"city": "x", "days": 15}}]',
            '[{"name": "get_weather", "arguments": {"city": "x", "days": "2"}}]',
            '[{"name": "get_weather", "arguments": {"city": "x", "unit": "kelvin"}}]',
            '[{"name": "get_weather", "arguments": {"days": 2}}]',
            '[{"name":"get_weather","arguments":{"city":"x"}}]',
            '[{"name": "get_weather", "arguments": {"city": "x"}}',
            '[{"arguments": {"city": "x"}, "name": "get_weather"}]',
            '{"name": "get_weather", "arguments": {"city": "x"}}',
            "[]",
        ],
    )
    def test_refuses(self, text: str) -> None:
        assert engine().refused(grammar(TOOLS, engine().special, "json"), text)
        good = '[{"name": "get_weather", "arguments": {"city": "x", "days": 14}}]'
        assert engine().refused(grammar(TOOLS, engine().special, "json"), good) == ""

    @pytest.mark.parametrize("call_format", FORMATS)
    @pytest.mark.parametrize("most", [1, 3])
    def test_allows_no_more_calls_than_it_is_told(self, call_format: CallFormat, most: int) -> None:
        rules = grammar(TOOLS, engine().special, call_format, max_calls=most)
        for count in range(1, most + 1):
            assert engine().refused(rules, write([TEA] * count, call_format, TOOLS)) == ""
        assert engine().refused(rules, write([TEA] * (most + 1), call_format, TOOLS))

    def test_a_tag_that_is_a_token_is_produced_as_that_token(self) -> None:
        text = write([OSLO], "tagged", TOOLS)
        special = engine().special
        assert engine().refused(grammar(TOOLS, special, "tagged"), text, special) == ""
        assert engine().refused(grammar(TOOLS, special, "tagged"), text, {})
        assert engine().refused(grammar(TOOLS, {}, "tagged"), text, {}) == ""

    @pytest.mark.parametrize(
        "schema",
        [
            {"$defs": {"p": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/p"}}},
            {
                "definitions": {"p": {"type": "string"}},
                "properties": {"a": {"$ref": "#/definitions/p"}},
            },
            {"properties": {"b": {"type": "string"}, "a": {"$ref": "#/properties/b"}}},
        ],
    )
    def test_references_inside_a_schema_are_its_own(self, schema: dict[str, Any]) -> None:
        """Pydantic writes nested models as $defs; each tool's `#` is its own schema."""
        other = {"$defs": {"p": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/p"}}}
        tools = [
            Tool.parse({"name": "g", "parameters": other}),
            Tool.parse({"name": "f", "parameters": schema}),
        ]
        rules = grammar(tools, engine().special, "json")
        assert engine().refused(rules, write([call(a="x")], "json", tools)) == ""
        assert engine().refused(rules, write([call("g", a=1)], "json", tools)) == ""
        assert engine().refused(rules, write([call(a=1)], "json", tools))

    def test_a_schema_may_hold_itself(self) -> None:
        node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
        schema = {"$defs": {"node": node}, "properties": {"head": {"$ref": "#/$defs/node"}}}
        tools = [Tool.parse({"name": "f", "parameters": schema})]
        text = write([call(head={"next": {"next": {}}})], "json", tools)
        assert engine().refused(grammar(tools, engine().special, "json"), text) == ""

    @settings(COSTLY, max_examples=30)
    @given(valid_calls(), st.sampled_from(FORMATS), st.randoms(use_true_random=False))
    def test_what_it_lets_a_model_say_is_read_as_valid_calls(
        self,
        valid: tuple[list[Tool], list[ToolCall]],
        call_format: CallFormat,
        chance: random.Random,
    ) -> None:
        tools, _ = valid
        said = babble(grammar(tools, engine().special, call_format), call_format, chance)
        assume(said is not None)
        reply, found = read(said or "", tools)
        assert found == call_format
        assert reply.content == ""
        assert reply.tool_calls
        assert [problem(c, tools) for c in reply.tool_calls] == [None] * len(reply.tool_calls)


OPENINGS: dict[CallFormat, str] = {
    "tagged": "<tool_call>",
    "fenced": "```json",
    "json": "[",
    "llama": '{"name',
    "python": "[",
    "mistral": "[TOOL_CALLS]",
    "mistral-args": "[TOOL_CALLS]",
}


def babble(rules: Grammar, call_format: CallFormat, chance: random.Random) -> str | None:
    """What a model of pure chance says under the grammar, once it has opened a call."""
    matcher = engine().matcher(rules)
    opening = OPENINGS[call_format]
    ids = engine().ids(opening, engine().special)
    assert matcher.try_consume_tokens(ids) == len(ids)
    closing = set(engine().letters.encode('",}])`').ids)
    while not matcher.is_stopped() and len(ids) < 500:
        if matcher.is_accepting() and chance.random() < 0.5:
            break
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist()
        allowed = [token for token in allowed if token != engine().whole.eos_token_id]
        soon = [token for token in allowed if token in closing]
        ids.append(chance.choice(soon if soon and chance.random() < 0.6 else allowed))
        assert matcher.consume_token(ids[-1])
    return engine().whole.decode(ids) if matcher.is_accepting() else None


class TestValueGrammar:
    @COSTLY
    @given(typed())
    def test_accepts_a_value_written_as_write_writes_it(
        self, pair: tuple[dict[str, Any], Any]
    ) -> None:
        schema, value = pair
        tools = [tool(a=schema)]
        text = write([call(a=value)], "json", tools)
        text = text.removeprefix('[{"name": "f", "arguments": {"a": ').removesuffix("}}]")
        rules = value_grammar(schema)
        assert engine().refused(rules, text) == ""
        assert engine().refused(rules, text + "!")
        assert engine().refused(rules, " " + text)


@pytest.mark.parametrize("loop", ["[", "{", '{"a":', "[f(", "[f(a=1,", '[f(a="""', "[TOOL_CALLS]["])
def test_an_answer_that_repeats_itself_is_read_in_time(loop: str) -> None:
    start = time.process_time()
    assert not read(loop * 3000, TOOLS)[0].tool_calls
    assert time.process_time() - start < 5
