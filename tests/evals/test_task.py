"""Rows of the benchmarks, in every spelling they have, become requests with gold calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.errors import RequestError
from quickstudy.evals.task import Task, load, parse, sample
from quickstudy.toolcalls import problem
from quickstudy.types import ToolCall

SEALTOOL: dict[str, Any] = {
    "query": "What did the Facebook post 123 reach?",
    "tools": [
        {
            "name": "retrievePostMetrics",
            "description": "Metrics of a post",
            "parameters": {
                "platform": {"type": "str", "description": "Where it was posted"},
                "posts": {"type": "int", "description": "How many", "default": 1},
            },
            "required": ["platform"],
        }
    ],
    "answers": [{"name": "retrievePostMetrics", "arguments": {"platform": "Facebook"}}],
}
OPENAI: dict[str, Any] = {
    "id": "bedroom-heat",
    "messages": [{"role": "user", "content": "Make the bedroom 21 degrees."}],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "set_temperature",
                "description": "Set how warm a room is.",
                "parameters": {
                    "type": "object",
                    "properties": {"room": {"type": "string"}, "degrees": {"type": "number"}},
                    "required": ["room", "degrees"],
                },
            },
        }
    ],
    "expected": [{"name": "set_temperature", "arguments": {"room": "bedroom", "degrees": 21}}],
}


def with_parameter(schema: dict[str, Any], **tool: Any) -> dict[str, Any]:
    return {**SEALTOOL, "tools": [{"name": "f", "parameters": {"a": schema}, **tool}]}


class TestParse:
    def test_a_benchmark_row(self) -> None:
        task = parse(SEALTOOL, 7)
        (tool,) = task.request.tools
        assert task.request.id == 7
        assert task.request.user_text == SEALTOOL["query"]
        assert tool.name == "retrievePostMetrics"
        assert tool.description == "Metrics of a post"
        assert tool.parameters == {
            "type": "object",
            "properties": {
                "platform": {"type": "string", "description": "Where it was posted"},
                "posts": {"type": "integer", "description": "How many", "default": 1},
            },
            "required": ["platform"],
        }
        assert task.gold == (ToolCall("retrievePostMetrics", {"platform": "Facebook"}),)
        assert problem(task.gold[0], task.request.tools) is None

    def test_a_row_in_openai_form(self) -> None:
        task = parse(OPENAI, 1)
        assert task.request.id == "bedroom-heat"
        assert task.request.tools[0].to_openai() == OPENAI["tools"][0]
        assert task.gold == (ToolCall("set_temperature", {"room": "bedroom", "degrees": 21}),)

    def test_gold_calls_in_openai_form(self) -> None:
        function = {"name": "set_temperature", "arguments": '{"room": "bedroom", "degrees": 21}'}
        row = {**OPENAI, "expected": [{"type": "function", "function": function}]}
        assert parse(row, 1).gold == parse(OPENAI, 1).gold

    def test_a_row_that_no_tool_fits_has_no_gold(self) -> None:
        assert parse({**OPENAI, "expected": []}, 1).gold == ()
        assert parse({**SEALTOOL, "answers": []}, 1).gold == ()

    def test_a_conversation(self) -> None:
        turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
        task = parse({**SEALTOOL, "query": [*turns, {"role": "user", "content": "go"}]}, 1)
        assert [m.content for m in task.request.messages] == ["hi", "yes?", "go"]

    def test_calls_are_spelt_in_two_ways(self) -> None:
        answers = [{"tool": "retrievePostMetrics", "parameters": {"platform": "Facebook"}}]
        assert parse({**SEALTOOL, "answers": answers}, 1).gold == parse(SEALTOOL, 1).gold

    def test_a_call_without_arguments_has_none(self) -> None:
        """Whatever is missing, `arguments` is an object, never None."""
        for answer in ({"name": "f"}, {"name": "f", "arguments": None}, {"tool": "f"}):
            assert parse({**SEALTOOL, "answers": [answer]}, 1).gold == (ToolCall("f", {}),)

    @pytest.mark.parametrize(
        ("spelt", "kind"),
        [
            ("str", "string"),
            ("String", "string"),
            (" int ", "integer"),
            ("integer", "integer"),
            ("float", "number"),
            ("double", "number"),
            ("bool", "boolean"),
            ("list", "array"),
            ("List[int]", "array"),
            ("list(str)", "array"),
            ("list[str]", "array"),
            ("dict", "object"),
            ("Dict[str, int]", "object"),
            ("any", None),
            ("", None),
            (None, None),
        ],
    )
    def test_types_are_spelt_in_many_ways(self, spelt: Any, kind: str | None) -> None:
        (tool,) = parse(with_parameter({"type": spelt}), 1).request.tools
        assert tool.properties["a"].get("type") == kind

    def test_required_stands_on_the_parameter_or_in_a_list(self) -> None:
        on_it = parse(with_parameter({"type": "str", "required": True}), 1)
        listed = parse(with_parameter({"type": "str"}, required=["a"]), 1)
        both = parse(with_parameter({"type": "str", "required": True}, required=["a"]), 1)
        neither = parse(with_parameter({"type": "str", "required": False}), 1)
        for task in (on_it, listed, both):
            assert task.request.tools[0].parameters["required"] == ["a"]
        assert neither.request.tools[0].required == frozenset()

    def test_of_a_parameter_only_what_is_json_schema_is_kept(self) -> None:
        raw = {
            "type": "int",
            "description": "",
            "minimum": 0,
            "maximum": 9,
            "enum": [0, 9],
            "default": 0,
            "example": "5",
            "unit": "m",
        }
        (tool,) = parse(with_parameter(raw), 1).request.tools
        kept = {"type": "integer", "minimum": 0, "maximum": 9, "enum": [0, 9], "default": 0}
        assert tool.properties["a"] == kept

    def test_a_tool_without_parameters(self) -> None:
        for tool in ({"name": "f"}, {"name": "f", "parameters": None}):
            (parsed,) = parse({**SEALTOOL, "tools": [tool]}, 1).request.tools
            assert not parsed.properties


class TestTask:
    def test_rows_that_ask_the_same_have_one_query(self) -> None:
        other = parse({**SEALTOOL, "id": "b", "answers": []}, 2)
        assert parse(SEALTOOL, 1).query == other.query
        assert parse({**SEALTOOL, "query": "Why?"}, 1).query != other.query

    def test_a_past_call_is_part_of_the_query(self) -> None:
        said = [{"role": "user", "content": "go"}, {"role": "assistant", "content": ""}]
        called = [said[0], {**said[1], "tool_calls": [{"name": "f", "arguments": {"a": "Oslo"}}]}]
        assert (
            parse({**SEALTOOL, "query": said}, 1).query
            != parse({**SEALTOOL, "query": called}, 1).query
        )

    @pytest.mark.parametrize(
        ("arguments", "verbatim"),
        [
            ({"platform": "Facebook"}, True),
            ({"platform": "facebook"}, False),
            ({"posts": 123}, True),
            ({"posts": 124}, False),
            ({"platform": "Facebook", "posts": 124}, False),
            ({"deep": True}, False),
            ({}, True),
        ],
    )
    def test_verbatim(self, arguments: dict[str, Any], verbatim: bool) -> None:
        gold = [{"name": "retrievePostMetrics", "arguments": arguments}]
        assert parse({**SEALTOOL, "answers": gold}, 1).verbatim == verbatim

    def test_verbatim_looks_at_the_whole_conversation_and_not_at_ignored_arguments(self) -> None:
        call = {"name": "f", "arguments": {"a": "Oslo"}}
        query = [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        assert parse({**SEALTOOL, "query": query, "answers": [call]}, 1).verbatim
        task = parse({**SEALTOOL, "answers": [call]}, 1)
        assert not task.verbatim
        assert Task(task.request, task.gold, ignored=frozenset({"a"})).verbatim


class TestSample:
    TASKS = tuple(parse({**SEALTOOL, "query": f"Post {n // 2}?"}, n) for n in range(40))

    def test_everybody_gets_the_same_rows(self) -> None:
        ids = [task.id for task in sample(self.TASKS, 5, seed=3)]
        assert ids == [task.id for task in sample(self.TASKS[::-1], 5, seed=3)]
        assert ids == [task.id for task in sample(self.TASKS, None, seed=3)][:5]
        assert ids != [task.id for task in sample(self.TASKS, 5, seed=4)]

    def test_the_order_is_for_ever(self) -> None:
        """A run goes on with the same rows under another Python."""
        assert [task.id for task in sample(self.TASKS, 4, seed=0)] == ["38", "6", "34", "14"]

    def test_fresh_rows_ask_nothing_that_was_asked(self) -> None:
        used = sample(self.TASKS, 10, seed=0)
        fresh = sample(self.TASKS, None, seed=0, offset=10)
        assert not {task.query for task in used} & {task.query for task in fresh}
        assert len({task.query for task in [*used, *fresh]}) == 20
        assert [t.id for t in sample(self.TASKS, 3, seed=0, offset=10)] == [t.id for t in fresh[:3]]

    def test_more_than_there_are(self) -> None:
        assert len(sample(self.TASKS, 1000, seed=0)) == 40
        assert sample(self.TASKS, 0, seed=0) == []


class TestLoad:
    def file(self, folder: Path, text: str) -> Path:
        path = folder / "rows.json"
        path.write_text(text, encoding="utf-8")
        return path

    def test_a_list_and_lines_are_the_same_rows(self, tmp_path: Path) -> None:
        rows = [SEALTOOL, OPENAI]
        listed = load(self.file(tmp_path, "\n " + json.dumps(rows, indent=1)))
        lines = load(self.file(tmp_path, "\n\n".join(map(json.dumps, rows)) + "\n"))
        assert listed == lines
        assert [task.request.id for task in listed] == [1, "bedroom-heat"]
        assert all(isinstance(task, Task) for task in listed)

    def test_no_rows(self, tmp_path: Path) -> None:
        assert load(self.file(tmp_path, "")) == []
        assert load(self.file(tmp_path, "[]")) == []

    @pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "é"])
    def test_only_a_newline_ends_a_row(self, tmp_path: Path, separator: str) -> None:
        """str.splitlines ends lines at marks that may stand inside a JSON string."""
        query = f"one{separator}two"
        rows = [json.dumps({**SEALTOOL, "query": query}, ensure_ascii=False)] * 2
        for text in ("\n".join(rows), "\r\n".join(rows)):
            tasks = load(self.file(tmp_path, text))
            assert [task.request.user_text for task in tasks] == [query] * 2

    @pytest.mark.parametrize(
        "row",
        [
            "{bad",
            "5",
            "null",
            "[]",
            "{}",
            json.dumps({"query": "q"}),
            json.dumps({"query": "q", "tools": [], "answers": None}),
            json.dumps({"query": "q", "tools": [], "answers": [5]}),
            json.dumps({"query": "q", "tools": [], "answers": [{}]}),
            json.dumps({"query": "q", "tools": [], "answers": [{"name": "f", "arguments": [1]}]}),
            json.dumps({"query": "q", "tools": [], "answers": [{"name": "f", "arguments": "{"}]}),
            json.dumps({"query": "q", "tools": [5], "answers": []}),
            json.dumps({"query": "q", "tools": [{}], "answers": []}),
            json.dumps({"query": "q", "tools": [{"name": "f", "parameters": [1]}], "answers": []}),
            json.dumps(
                {"query": "q", "tools": [{"name": "f", "parameters": {"a": 5}}], "answers": []}
            ),
            json.dumps(with_parameter({"type": "int", "minimum": "a lot"})),
            json.dumps({"query": [], "tools": [], "answers": []}),
            json.dumps({"messages": [{"role": "agent"}], "expected": []}),
            json.dumps({"expected": []}),
        ],
    )
    def test_a_bad_row_is_named_with_its_file(self, tmp_path: Path, row: str) -> None:
        path = self.file(tmp_path, f"{json.dumps(SEALTOOL)}\n{row}\n")
        with pytest.raises(RequestError) as caught:
            load(path)
        assert f"{path}, row 2" in str(caught.value)

    @pytest.mark.parametrize("text", ["[", "[1", b"\xff"])
    def test_a_file_that_is_no_json_is_named(self, tmp_path: Path, text: str | bytes) -> None:
        path = tmp_path / "rows.json"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(RequestError) as caught:
            load(path)
        assert str(path) in str(caught.value)

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises((RequestError, OSError)) as caught:
            load(tmp_path / "missing.json")
        assert "missing.json" in str(caught.value)

    @settings(deadline=None, max_examples=100)
    @given(st.sampled_from([SEALTOOL, OPENAI]), st.data())
    def test_a_spoilt_row_is_read_or_named(
        self, tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any], data: st.DataObject
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "spoilt.json"
        path.write_text(json.dumps([SEALTOOL, spoil(row, data)]))
        try:
            tasks = load(path)
        except RequestError as error:
            message = str(error)
        else:
            message = f"{path}, row 2"
            assert all(isinstance(call.arguments, dict) for call in tasks[1].gold)
            assert all(isinstance(call.name, str) for call in tasks[1].gold)
        assert f"{path}, row 2" in message


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "str", "{}", "{"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=3,
)


def spoil(value: Any, data: st.DataObject) -> Any:
    """A copy in which one thing, somewhere, is something else or missing."""
    if not isinstance(value, dict | list) or not value or data.draw(st.integers(0, 4)) == 0:
        return data.draw(WRONG)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = data.draw(st.sampled_from(keys))
    copy = value.copy()
    if data.draw(st.integers(0, 4)) == 0:
        del copy[key]
    else:
        copy[key] = spoil(value[key], data)
    return copy
