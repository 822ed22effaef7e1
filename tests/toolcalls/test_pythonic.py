"""Calls written as Python are read as data, never run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.toolcalls import problem, read, write
from quickstudy.toolcalls.formats import python_literal
from quickstudy.toolcalls.pythonic import literal
from quickstudy.types import Tool, ToolCall

TRIP = Tool.parse({
    "name": "book-trip",
    "parameters": {
        "type": "object",
        "properties": {
            "from": {"type": "string"},
            "to": {"type": "string"},
            "days": {"type": "integer"},
            "direct": {"type": "boolean"},
            "stops": {"type": "array", "items": {"type": "string"}},
        },
    },
})  # fmt: skip
SHOW = Tool.parse({"name": "show", "parameters": {"properties": {"a": {}, "b": {}}}})
TOOLS = [TRIP, SHOW]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a\"'", max_size=3), inner),
    max_leaves=6,
)  # fmt: skip

SHARDS = st.sampled_from([
    *("[", "]", "(", ")", "show", "show(", "a=", ",", "'", '"', '"""', "\\", "{", "}", ":", "1"),
    *("\n", "print(", "```python\n", "```", "#", "<think>", "</think>", "\n</think>\n", ";"),
    *("\ud800", "\x00"),
])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('[book-trip(from="Oslo", to="Rome")]', [("book-trip", {"from": "Oslo", "to": "Rome"})]),
        ("[show('a', b=2)]", [("show", {"a": "a", "b": 2})]),
        ("[show(1, 2)]", [("show", {"a": 1, "b": 2})]),
        ("[show(a=['x)', {'k': (True, None)}])]", [("show", {"a": ["x)", {"k": [True, None]}]})]),
        ("[show(a=true, b=null)]", [("show", {"a": True, "b": None})]),
        ("[show(a=-1.5), show()]", [("show", {"a": -1.5}), ("show", {})]),
        ('[show(a="it\'s", b=\'say "hi"\')]', [("show", {"a": "it's", "b": 'say "hi"'})]),
        ('[show(a="""two\nlines""")]', [("show", {"a": "two\nlines"})]),
        (r"[show(a='\d+\u00e9')]", [("show", {"a": r"\d+é"})]),
        ("[other(x=1)]", [("other", {"x": 1})]),
        ("show(a=1)", [("show", {"a": 1})]),
        ("show(a=1)\nshow(b=2)", [("show", {"a": 1}), ("show", {"b": 2})]),
        ("```\nshow(a=1)\n```", [("show", {"a": 1})]),
        ("```py\n# calls\nshow(a=1); show(b=2)\n```", [("show", {"a": 1}), ("show", {"b": 2})]),
        ("```tool_code\nprint(show(a=1))\n```", [("show", {"a": 1})]),
        ("```tool_code\n[show(a=1), show(b=2)]\n```", [("show", {"a": 1}), ("show", {"b": 2})]),
        ("```tool_code\nprint(default_api.show(a=1))\n```", [("show", {"a": 1})]),
        ("<|python_tag|>show.call(a=1)", [("show", {"a": 1})]),
        ('[show(a="[TOOL_CALLS] <tool_call>")]', [("show", {"a": "[TOOL_CALLS] <tool_call>"})]),
        ("""[show(a='[{"name": "show", "arguments": {}}]')]""",
         [("show", {"a": '[{"name": "show", "arguments": {}}]'})]),
    ],
)  # fmt: skip
def test_reads(text: str, calls: list[tuple[str, dict[str, object]]]) -> None:
    reply, call_format = read(text, TOOLS)
    assert [(c.name, dict(c.arguments)) for c in reply.tool_calls] == calls
    assert call_format == "python"
    assert reply.content == ""


@pytest.mark.parametrize(
    "text",
    [
        "[show(a=open('/etc/passwd').read())]",
        "[show(a=__import__('os').system('true'))]",
        "[show(a=1+2j)]",
        "[show(a=b'x')]",
        "[show(a={1: 2})]",
        "[show(a=1e999)]",
        "[show(a=x)]",
        "[show(a=1, a=2)]",
        "[show(1, 2, 3)]",
        "[other(1)]",
        "[show(a=1) show(b=2)]",
        "[show(a=1",
        "[show(a='1)]",
        "```python\nx = 5\nshow(a=x)\n```",
        "```python\nprint(1)\n```",
        "Use show(a=1) to see it.",
        "I will call other(a=1)",
        "a[f(x)]",
        "[show(a=(((1)]",
    ],
)
def test_what_is_no_call_stays_words(text: str) -> None:
    reply, call_format = read(text, TOOLS)
    assert (reply.tool_calls, call_format, reply.content) == ((), None, text)


def test_words_before_and_after_stay() -> None:
    reply, _ = read("Look:\n[show(a=1)]\nDone.", TOOLS)
    assert reply.content.split() == ["Look:", "Done."]
    assert reply.tool_calls == (ToolCall("show", {"a": 1}),)


def test_a_cut_off_list_has_the_calls_before_the_cut() -> None:
    reply, _ = read("[show(a=1), show(a=2), sho", TOOLS)
    assert [c.arguments for c in reply.tool_calls] == [{"a": 1}, {"a": 2}]


@settings(deadline=None, max_examples=100)
@given(VALUES)
def test_a_literal_is_read_back(value: object) -> None:
    assert literal(python_literal(value)) == value
    assert type(literal(python_literal(value))) is type(value)


@settings(deadline=None, max_examples=200)
@given(st.lists(SHARDS, max_size=14).map("".join))
def test_garbage_does_no_harm(text: str) -> None:
    reply, call_format = read(text, TOOLS)
    assert bool(reply.tool_calls) == (call_format is not None)
    for call in reply.tool_calls:
        problem(call, TOOLS)
    if reply.tool_calls:
        again = read(write(reply.tool_calls, "python", TOOLS), TOOLS)[0]
        assert again.tool_calls == reply.tool_calls
