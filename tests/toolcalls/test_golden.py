"""Output of real models, and of documented formats, is read as it was read when it was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quickstudy.toolcalls import COMMON_FORMATS, grammar, problem, read, write
from quickstudy.types import Tool

GOLDEN = Path(__file__).parent.parent / "golden"


def recorded() -> Iterator[Any]:
    for path in sorted(GOLDEN.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for i, one in enumerate(content.get("outputs", ())):
            label = one.get("family") or f"{i}-{'constrained' if one['constrained'] else 'free'}"
            yield pytest.param(content, one, id=f"{path.stem}: {label}")


@pytest.mark.parametrize(("content", "one"), recorded())
def test_reads_what_was_recorded(content: dict[str, Any], one: dict[str, Any]) -> None:
    tools = [Tool.parse(tool) for tool in content["tools"]]
    reply, call_format = read(one["output"], tools)
    assert reply.to_json() == one["reply"]
    assert call_format == one["format"]
    if call_format:
        again, told = read(write(reply.tool_calls, call_format, tools), tools)
        assert (again.tool_calls, told) == (reply.tool_calls, call_format)
    if one.get("constrained"):
        assert [problem(c, tools) for c in reply.tool_calls] == [None] * len(reply.tool_calls)


def test_every_recording_says_where_it_is_from() -> None:
    sources = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in GOLDEN.glob("*.json")
    }
    assert {"documented", "grammar", "smollm2"} <= sources.keys()
    for content in sources.values():
        assert content["source"]
        if content["source"] == "real output":
            assert content["model"] in content["command"]


def test_the_common_formats_decode_as_they_always_did() -> None:
    """Certainty is measured under this grammar: another one makes another threshold."""
    content = json.loads((GOLDEN / "grammar.json").read_text(encoding="utf-8"))
    tools = [Tool.parse(tool) for tool in content["tools"]]
    for one in content["grammars"]:
        for formats in ({}, {"formats": COMMON_FORMATS}):
            rules = grammar(tools, one["special"], one["only"], one["max_calls"], **formats)
            assert rules.lark == one["lark"]
