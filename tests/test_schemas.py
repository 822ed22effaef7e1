"""References in tool schemas: recursion works; dead ends, fetches and circles are told."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy import toolcalls
from quickstudy.errors import RequestError
from quickstudy.types import Request, Tool, ToolCall

TREE = {
    "type": "object",
    "properties": {"tree": {"$ref": "#/$defs/node"}},
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name"],
        }
    },
}


def parse(value: Any, **more: Any) -> Tool:
    """A tool whose one argument has the schema `value`."""
    parameters = {"type": "object", "properties": {"x": value}, **more}
    return Request.parse("Hi", [{"name": "f", "parameters": parameters}]).tools[0]


def refusal(value: Any, **more: Any) -> str:
    with pytest.raises(RequestError) as caught:
        parse(value, **more)
    assert "tools[0]: parameters of 'f': " in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)


class TestLegal:
    def test_a_tree_of_trees_works(self) -> None:
        tool = Request.parse("Hi", [{"name": "f", "parameters": TREE}]).tools[0]
        good = {"tree": {"name": "a", "children": [{"name": "b", "children": []}]}}
        assert toolcalls.problem(ToolCall("f", good), [tool]) is None
        bad = {"tree": {"name": "a", "children": [{"children": []}]}}
        assert "'name' is a required property" in str(toolcalls.problem(ToolCall("f", bad), [tool]))

    @pytest.mark.parametrize(
        ("value", "more"),
        [
            ({"$ref": "#"}, {}),
            ({"$ref": "#here"}, {"$defs": {"a": {"$anchor": "here", "type": "string"}}}),
            ({"$ref": "#/properties/a%20b"}, {"$defs": {}, "properties": {"a b": True, "x": {}}}),
            ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, {}),
            (
                {"anyOf": [{"type": "null"}, {"properties": {"next": {"$ref": "#/properties/x"}}}]},
                {},
            ),
            ({"properties": {"$ref": {"type": "string"}}}, {}),
            ({"enum": [{"$ref": "#/nowhere"}]}, {}),
        ],
    )
    def test_others_too(self, value: Any, more: dict[str, Any]) -> None:
        parse(value, **more)

    def test_forks_in_a_row_take_no_time(self) -> None:
        last = 60
        fork = {str(i): {"anyOf": [{"$ref": f"#/$defs/{i + 1}"}] * 2} for i in range(last)}
        parse({"$ref": "#/$defs/0"}, **{"$defs": {**fork, str(last): {"type": "string"}}})


class TestRefused:
    @pytest.mark.parametrize(
        ("defined", "told"),
        [
            ({"a": {"$ref": "#/$defs/a"}}, "#/$defs/a"),
            ({"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "#/$defs/b -> #/$defs/a"),
            ({"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}}, "#/$defs/a"),
            ({"a": {"if": {}, "then": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "#/$defs/a"),
            ({"a": {"not": {"$ref": "#/$defs/a"}}}, "#/$defs/a"),
        ],
    )
    def test_a_circle_names_its_references(self, defined: dict[str, Any], told: str) -> None:
        error = refusal({"$ref": "#/$defs/a"}, **{"$defs": defined})
        assert f"{told} lead in a circle" in error

    @pytest.mark.parametrize(
        "reference", ["https://example.com/a.json", "file:///etc/passwd", "//host/x", "http://[bad"]
    )
    def test_what_is_elsewhere_is_not_fetched(self, reference: str) -> None:
        error = refusal({"items": {"$ref": reference}})
        assert f"{reference!r} leads out of the schema, and nothing is fetched" in error

    @pytest.mark.parametrize(
        "reference", ["#/$defs/none", "#none", "other.json", "#/properties/x/9"]
    )
    def test_what_is_nowhere(self, reference: str) -> None:
        assert f"{reference!r} leads nowhere" in refusal({"$ref": reference})

    def test_definitions_of_older_drafts_are_looked_into(self) -> None:
        lost = {"p": {"properties": {"q": {"$ref": "#/definitions/none"}}}}
        assert "leads nowhere" in refusal({"$ref": "#/definitions/p"}, definitions=lost)

    def test_what_is_no_schema(self) -> None:
        assert "no schema" in refusal({"$ref": "#/required"}, required=["x"])

    def test_a_chain_too_long_to_follow(self) -> None:
        chain = {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(1500)}
        refusal({"$ref": "#/$defs/0"}, **{"$defs": chain})


NAMES = st.sampled_from(["#/$defs/a", "#/$defs/b", "#", "#/properties/x", "#c", "//x", ""])
SCHEMAS = st.recursive(
    st.builds(lambda name: {"$ref": name}, NAMES) | st.just({"type": "string"}),
    lambda inner: (
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=2))
        | st.builds(lambda part: {"items": part}, inner)
        | st.builds(lambda part: {"not": part}, inner)
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=100)
@given(SCHEMAS, SCHEMAS, SCHEMAS)
def test_what_is_taken_can_be_applied(x: Any, a: Any, b: Any) -> None:
    try:
        tool = parse(x, **{"$defs": {"a": a, "b": b}})
    except RequestError:
        return
    for value in ("s", [["s"]], {"x": {"x": "s"}}):
        told = toolcalls.problem(ToolCall("f", {"x": value}), [tool])
        assert told is None or "cannot be applied" not in told
