"""Reasoning is kept apart from words and calls, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.toolcalls import read
from quickstudy.types import Reply, Tool, ToolCall

SHOW = Tool.parse({"name": "show", "parameters": {"properties": {"a": {}}}})
CALL = '<tool_call>\n{"name": "show", "arguments": {"a": 1}}\n</tool_call>'
CALLED = (ToolCall("show", {"a": 1}),)


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (f"<think>\nHm.\n</think>\n\n{CALL}", Reply("", CALLED, "Hm.")),
        (f"Hm.\n</think>\n\n{CALL}", Reply("", CALLED, "Hm.")),
        (f"<think>\n{CALL}\n</think>\n\nNo.", Reply("No.", (), CALL)),
        (f"{CALL}\n</think>\n\nNo.", Reply("No.", (), CALL)),
        (f"<think>\n{CALL}", Reply("", (), CALL)),
        ("<think>\n\n</think>\n\nYes.", Reply("Yes.")),
        ("<think>1</think>Yes.\n<think>2</think>\nNo.", Reply("Yes.\n\nNo.", (), "1\n\n2")),
        ("One.\n</think>\nYes.\n<think>\nTwo.", Reply("Yes.", (), "One.\n\nTwo.")),
        ("Hm.\n</think>", Reply("", (), "Hm.")),
        ("a <think> is a tag", Reply("a <think> is a tag")),
        ('[{"name": "show", "arguments": {"a": "<think>x</think>"}}]',
         Reply("", (ToolCall("show", {"a": "<think>x</think>"}),))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tools", [[SHOW], []])
def test_is_split_off(text: str, reply: Reply, tools: list[Tool]) -> None:
    if not tools and reply.tool_calls:
        assert read(text, tools)[0].reasoning == reply.reasoning
    else:
        assert read(text, tools)[0] == reply


@given(st.text("ab {}[]\"'\n", max_size=20))
def test_whatever_is_thought_calls_nothing(thought: str) -> None:
    for text in (f"<think>{thought}{CALL}{thought}</think>\nYes", f"<think>{thought}{CALL}"):
        reply, _ = read(text, [SHOW])
        assert reply.tool_calls == ()
        assert CALL in reply.reasoning


def test_is_told_only_where_there_is_any() -> None:
    assert Reply("x").to_json() == {"content": "x", "tool_calls": []}
    assert Reply("x", (), "y").to_json() == {"content": "x", "tool_calls": [], "reasoning": "y"}
