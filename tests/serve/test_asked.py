"""What a body may say, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from serving import TOOLS

from quickstudy.config import ServeConfig
from quickstudy.serve import asked
from quickstudy.serve.asked import Asked, Names
from quickstudy.serve.faults import ApiError
from quickstudy.serve.wire import ChatRequest

NAMES = Names("m", "tt-si", ("base", "tt-si"))


def read(limits: ServeConfig | None = None, names: Names = NAMES, **fields: Any) -> Asked:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return asked.read(ChatRequest.model_validate(body), "id", names, limits or ServeConfig())


def refused(limits: ServeConfig | None = None, names: Names = NAMES, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as error:
        read(limits, names, **fields)
    assert error.value.param
    assert error.value.param.split("[")[0].split(".")[0] in str(error.value)
    return error.value


class TestNames:
    def test_each_says_its_method(self) -> None:
        assert read(model="m").method == "tt-si"
        assert read(model="m:base").method == "base"

    @pytest.mark.parametrize("model", ["x", "m:", "m:tt-d", "m:base:base", "M", "base"])
    def test_no_other_is_known(self, model: str) -> None:
        error = refused(model=model)
        assert (error.status, error.code) == (404, "model_not_found")
        assert "m:base" in str(error)


class TestFields:
    @pytest.mark.parametrize(
        "field",
        [
            "logit_bias",
            "frequency_penalty",
            "audio",
            "functions",
            "store",
            "anything",
            "modalities",
        ],
    )
    def test_what_is_not_known_is_refused_by_name(self, field: str) -> None:
        with pytest.raises(ValidationError) as error:
            read(**{field: [1]})
        assert [fault["loc"] for fault in error.value.errors()] == [(field,)]

    def test_what_holds_anyway_may_be_said(self) -> None:
        read(
            frequency_penalty=0,
            presence_penalty=0.0,
            logit_bias={},
            store=False,
            audio=None,
            user="me",
            metadata={"a": "b"},
            service_tier="auto",
            response_format={"type": "text"},
        )

    @pytest.mark.parametrize(
        "fields",
        [
            {"temperature": 2.1},
            {"temperature": float("nan")},
            {"top_p": -0.1},
            {"max_tokens": 0},
            {"max_tokens": "5"},
            {"max_tokens": True},
            {"n": 0},
            {"stop": ""},
            {"stop": [""]},
            {"seed": 2**63},
            {"stream": "yes"},
            {"messages": []},
            {"messages": [{"role": "robot", "content": "Hi"}]},
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            {"messages": [{"role": "user", "function_call": {"name": "f"}}]},
            {"tool_choice": "always"},
            {"tools": [{"type": "web_search"}]},
            {"response_format": {"type": "json_schema"}},
            {"quickstudy": {"learning_rate": 1}},
        ],
        ids=str,
    )
    def test_what_is_malformed_is_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ValidationError) as error:
            read(**fields)
        assert error.value.errors()[0]["loc"][0] == next(iter(fields))

    def test_answers_that_clients_send_back_are_read(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        answered = {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": [],
            "audio": None,
            "function_call": None,
            "tool_calls": [call],
        }
        result = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "2"}]}
        messages = read(messages=[{"role": "user", "content": "Hi"}, answered, result]).request
        assert messages.messages[1].call_ids == ("c1",)
        assert messages.messages[1].tool_calls[0].arguments == {"a": 1}
        assert messages.messages[2].content == "2"

    def test_system_messages_at_the_head_become_one(self) -> None:
        said = [
            {"role": "developer", "content": "Be kind."},
            {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
            {"role": "user", "content": "Hi"},
        ]
        first, second = read(messages=said).request.messages
        assert (first.role, first.content) == ("system", "Be kind.\n\nBe short.")
        assert second.role == "user"

    def test_a_later_system_message_is_refused(self) -> None:
        said = [{"role": "user", "content": "Hi"}, {"role": "developer", "content": "x"}]
        assert refused(messages=said).status == 400


class TestSampling:
    def test_greedy_unless_asked(self) -> None:
        assert read().request.sampling.temperature == 0

    def test_is_read(self) -> None:
        sampling = read(temperature=1, top_p=0.5, seed=-3).request.sampling
        assert (sampling.temperature, sampling.top_p, sampling.seed) == (1, 0.5, -3)

    def test_next_to_nothing_is_greedy(self) -> None:
        assert read(temperature=1e-30).request.sampling.temperature == 0

    def test_stops(self) -> None:
        assert read(stop="a").stops == ("a",)
        assert read(stop=["a", "b"]).stops == ("a", "b")


class TestToolChoice:
    def test_none_lists_no_tools(self) -> None:
        assert not read(tools=TOOLS, tool_choice="none").request.tools

    def test_required(self) -> None:
        assert read(tools=TOOLS, tool_choice="required").request.must_call
        assert not read(tools=TOOLS, tool_choice="auto").request.must_call

    def test_one_by_name(self) -> None:
        other = {"type": "function", "function": {"name": "other"}}
        chosen = {"type": "function", "function": {"name": "other"}}
        request = read(tools=[*TOOLS, other], tool_choice=chosen).request
        assert request.must_call
        assert [tool.name for tool in request.tools] == ["other"]

    @pytest.mark.parametrize(
        "choice", ["required", {"type": "function", "function": {"name": "other"}}], ids=str
    )
    def test_of_nothing(self, choice: Any) -> None:
        refused(tool_choice=choice)

    def test_one_call_at_most(self) -> None:
        assert read(tools=TOOLS, parallel_tool_calls=False).one_call
        assert not read(tools=TOOLS, parallel_tool_calls=True).one_call


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "fields"),
        [
            ({"max_messages": 1}, {"messages": [{"role": "user", "content": "Hi"}] * 2}),
            ({"max_tools": 0 + 1}, {"tools": [*TOOLS, {"function": {"name": "b"}}]}),
            ({"max_tokens": 10}, {"max_tokens": 11}),
            ({"max_tokens": 10}, {"max_completion_tokens": 11}),
            ({"max_choices": 2}, {"model": "m:base", "n": 3}),
            ({"max_threshold": 0.5}, {"quickstudy": {"threshold": 0.6}}),
            ({"max_budget_seconds": 5}, {"quickstudy": {"budget_seconds": 6}}),
            ({"overrides": False}, {"quickstudy": {"method": "base"}}),
            ({}, {"quickstudy": {"method": "tt-d"}}),
            ({}, {"quickstudy": {"threshold": 1.02}}),
        ],
        ids=str,
    )
    def test_what_goes_over_is_refused(self, limits: Any, fields: dict[str, Any]) -> None:
        assert refused(ServeConfig(**limits), **fields).status == 400

    def test_up_to_them_all_goes(self) -> None:
        wanted = {"method": "base", "threshold": 0.5, "budget_seconds": 5}
        limits = ServeConfig(max_tokens=10, max_threshold=0.5, max_budget_seconds=5)
        found = read(limits, max_tokens=10, quickstudy=wanted)
        assert (found.method, found.threshold, found.budget_seconds) == ("base", 0.5, 5)
        assert found.max_tokens == 10

    def test_schemas_are_only_so_deep(self) -> None:
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(4):
            schema = {"type": "object", "properties": {"a": schema}}
        tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
        read(ServeConfig(max_schema_depth=5), tools=tools)
        refused(ServeConfig(max_schema_depth=4), tools=tools)

    @pytest.mark.parametrize(
        "schema",
        [{"type": "nonsense"}, {"type": "array"}, {"$ref": "file:///etc/passwd"}],
        ids=str,
    )
    def test_a_broken_schema_is_refused(self, schema: Any) -> None:
        tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
        refused(tools=tools)


class TestJudgedAnswers:
    @pytest.mark.parametrize(
        "fields", [{"n": 2}, {"logprobs": True}, {"response_format": {"type": "json_object"}}]
    )
    def test_are_one_and_plain(self, fields: dict[str, Any]) -> None:
        assert "m:base" in str(refused(**fields))
        read(model="m:base", **fields)

    def test_what_contradicts_itself(self) -> None:
        refused(model="m:base", top_logprobs=1)
        refused(model="m:base", logprobs=True, top_logprobs=2)
        refused(stream_options={"include_usage": True})
        refused(model="m:base", tools=TOOLS, response_format={"type": "json_object"})
