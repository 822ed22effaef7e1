"""Formats are held to what the grammar holds them to; no pattern hangs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from quickstudy.toolcalls import problem
from quickstudy.types import Tool, ToolCall


def wrong(schema: dict[str, Any], value: Any, **more: Any) -> str | None:
    tool = Tool.parse({"name": "f", "parameters": {"properties": {"a": schema}, **more}})
    return problem(ToolCall("f", {"a": value}), [tool])


@pytest.mark.parametrize(
    ("kind", "right", "bad"),
    [
        ("date", "2023-03-25", "March 25th"),
        ("date", "2024-02-29", "2023-02-29"),
        ("time", "14:00:00Z", "2 pm"),
        ("time", "14:00:00.5+01:00", "14:00"),
        ("date-time", "2023-03-25T14:00:00Z", "2023-03-25"),
        ("date-time", "2023-03-25T14:00:00-05:00", "2023-02-30T14:00:00Z"),
        ("email", "a@b.org", "nobody"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
        ("ipv6", "::1", "1:2"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
    ],
)
def test_formats(kind: str, right: str, bad: str) -> None:
    schema = {"type": "string", "format": kind}
    assert wrong(schema, right) is None
    assert repr(bad) in (wrong(schema, bad) or "")


def test_other_formats_are_no_rule() -> None:
    assert wrong({"type": "string", "format": "city"}, "anything") is None
    assert wrong({"format": "date"}, 5) is None


EVIL, SLOW = "^(a|aa)+$", "a" * 60 + "!"


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({"properties": {"a": {"pattern": EVIL}}}, {"a": SLOW}),
        ({"properties": {"a": {}}, "patternProperties": {EVIL: {}}}, {SLOW: 1}),
        ({"patternProperties": {EVIL: {}}, "additionalProperties": False}, {SLOW: 1}),
        (
            {"patternProperties": {EVIL: {}}, "additionalProperties": True,
             "unevaluatedProperties": False},
            {SLOW: 1},
        ),
    ],
)  # fmt: skip
def test_a_pattern_that_takes_too_long_is_a_fact_about_the_schema(
    schema: dict[str, Any], arguments: dict[str, Any]
) -> None:
    tool = Tool.parse({"name": "f", "parameters": schema})
    start = time.monotonic()
    assert "takes too long" in (problem(ToolCall("f", arguments), [tool]) or "")
    assert time.monotonic() - start < 5


def test_patterns_count() -> None:
    assert wrong({"pattern": "^a"}, "abc") is None
    assert "'cba' does not match '^a'" in (wrong({"pattern": "^a"}, "cba") or "")
    assert wrong({"pattern": "^a"}, 5) is None
    keyed = {"patternProperties": {"^x": {"type": "integer"}}}
    tool = Tool.parse({"name": "f", "parameters": {**keyed, "additionalProperties": False}})
    assert problem(ToolCall("f", {"x1": 1}), [tool]) is None
    assert "'one' is not of type" in (problem(ToolCall("f", {"x1": "one"}), [tool]) or "")
    assert "'y' was unexpected" in (problem(ToolCall("f", {"y": 1}), [tool]) or "")
