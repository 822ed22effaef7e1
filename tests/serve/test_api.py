"""The API of a running server, as HTTP."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import ASK, GREETED, GREETING, TOOLS, Running

from quickstudy.decoding import Decoder
from quickstudy.serve import engine as engine_module
from quickstudy.serve import gate
from quickstudy.serve.keys import sha256
from quickstudy.serve.logs import JsonLines
from quickstudy.types import Sampling

Post = Callable[..., httpx2.Response]
HI = [{"role": "user", "content": GREETING}]
LIGHT = [{"role": "user", "content": ASK}]


@pytest.fixture
def http(server: Running) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.host, timeout=20) as client:
        yield client


@pytest.fixture
def post(http: httpx2.Client) -> Post:
    def send(**body: Any) -> httpx2.Response:
        return http.post("/v1/chat/completions", json={"model": "tiny", "messages": HI, **body})

    return send


def events(response: httpx2.Response) -> list[Any]:
    """The data of a stream's events; the last is [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    *data, done = (line.removeprefix("data: ") for line in lines)
    assert done == "[DONE]"
    return [json.loads(item) for item in data]


def error(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status
    told = response.json()
    assert list(told) == ["error"]
    assert list(told["error"]) == ["message", "type", "param", "code"]
    assert "Traceback" not in response.text
    return dict(told["error"])


class TestCompletions:
    def test_base(self, post: Post) -> None:
        told = post(model="tiny:base").json()
        assert told["object"] == "chat.completion"
        assert told["choices"][0]["message"]["content"] == GREETED
        assert told["choices"][0]["finish_reason"] == "stop"
        assert told["usage"]["completion_tokens"] == len(GREETED.encode())
        assert told["quickstudy"]["method"] == "base"
        assert told["quickstudy"]["certainty"] is None

    def test_practised(self, post: Post) -> None:
        told = post(messages=LIGHT, tools=TOOLS).json()
        (choice,) = told["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert call["function"] == {"name": "set_light", "arguments": '{"level": 40}'}
        assert call["id"].startswith("call_")
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
        cycle = told["quickstudy"]
        assert (cycle["method"], cycle["practised"], cycle["fallback"]) == ("tt-si", True, None)
        assert cycle["examples"] == 2
        assert 0 < cycle["certainty"] < 1
        assert cycle["seconds"]["practice"] > 0
        assert told["id"] == f"chatcmpl-{cycle['episode']}"

    def test_sure(self, post: Post) -> None:
        told = post(messages=LIGHT, tools=TOOLS, quickstudy={"threshold": 0}).json()["quickstudy"]
        assert (told["threshold"], told["practised"], told["examples"]) == (0, False, 0)
        assert "practice" not in told["seconds"]

    def test_a_method_for_one_request(self, post: Post) -> None:
        told = post(quickstudy={"method": "base"}).json()
        assert (told["model"], told["quickstudy"]["method"]) == ("tiny", "base")

    def test_a_time_budget_gives_the_draft(self, post: Post) -> None:
        told = post(messages=LIGHT, tools=TOOLS, quickstudy={"budget_seconds": 1e-6}).json()
        assert told["quickstudy"]["fallback"] == "the time budget is spent"
        assert told["choices"][0]["message"]["tool_calls"]

    def test_conversations_with_results(self, post: Post) -> None:
        call = {"id": "c", "type": "function"}
        call["function"] = {"name": "set_light", "arguments": '{"level": 40}'}  # type: ignore[assignment]
        turns = [
            *LIGHT,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        ]
        assert post(messages=turns, tools=TOOLS, max_tokens=8).status_code == 200

    @pytest.mark.parametrize("model", ["tiny", "tiny:base"])
    def test_max_tokens(self, post: Post, model: str) -> None:
        told = post(model=model, max_tokens=7).json()
        assert told["choices"][0]["finish_reason"] == "length"
        assert told["choices"][0]["message"]["content"] == GREETED[:7].strip()
        assert told["usage"]["completion_tokens"] == 7

    @pytest.mark.parametrize("model", ["tiny", "tiny:base"])
    @pytest.mark.parametrize("most", [1, 9, 20])
    def test_a_call_that_is_cut_off_is_not_told(self, post: Post, model: str, most: int) -> None:
        sent = {"messages": LIGHT, "tools": TOOLS, "max_tokens": most}
        told = post(model=model, quickstudy={"threshold": 0}, **sent).json()
        (choice,) = told["choices"]
        assert told["usage"]["completion_tokens"] == most
        assert choice["finish_reason"] == "length"
        assert not choice["message"]["content"]
        assert "tool_calls" not in choice["message"]

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("model", ["tiny", "tiny:base"])
    def test_stop(self, post: Post, model: str, stream: bool) -> None:
        answer = post(model=model, stop=["nothing", " are"], stream=stream)
        choice = whole(events(answer)) if stream else answer.json()["choices"][0]["message"]
        assert choice["content"] == "Hello. How"

    def test_stop_ends_the_work(self, post: Post) -> None:
        assert post(model="tiny:base", stop=".").json()["usage"]["completion_tokens"] == 6

    def test_sampling(self, post: Post) -> None:
        def said(**fields: Any) -> list[str]:
            told = post(model="tiny:base", max_tokens=12, temperature=2, n=3, **fields).json()
            return [choice["message"]["content"] for choice in told["choices"]]

        assert said(seed=1) == said(seed=1) != said(seed=2)
        assert said(seed=1, top_p=0.0) == [GREETED[:12].strip()] * 3
        assert len(set(said(seed=1))) > 1

    @pytest.mark.parametrize("threshold", [0, 1.01])
    def test_sampling_of_judged_answers(
        self, post: Post, threshold: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The draft is greedy; the answer is drawn, whether practised or not."""
        drawn: list[Sampling | None] = []
        real = Decoder.decode

        def watch(self: Decoder, *arguments: Any, **options: Any) -> Any:
            drawn.append(arguments[1][0].sampling)
            return real(self, *arguments, **options)

        monkeypatch.setattr(Decoder, "decode", watch)
        override = {"threshold": threshold}
        told = post(messages=LIGHT, tools=TOOLS, temperature=1, top_p=0.9, quickstudy=override)
        assert told.json()["quickstudy"]["practised"] is (threshold > 1)
        assert drawn[0] is None
        assert drawn[-1] == Sampling(1, 0.9, 0)

    def test_logprobs(self, post: Post) -> None:
        told = post(model="tiny:base", max_tokens=5, logprobs=True, top_logprobs=1).json()
        content = told["choices"][0]["logprobs"]["content"]
        assert "".join(token["token"] for token in content) == "Hello"
        assert all(token["logprob"] <= 0 for token in content)
        assert [t["top_logprobs"][0]["token"] for t in content] == list("Hello")

    def test_a_schema_for_the_answer(self, post: Post) -> None:
        schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        told = post(model="tiny:base", response_format=wanted, max_tokens=100).json()
        assert json.loads(told["choices"][0]["message"]["content"])["a"] in (1, 2)

    def test_a_schema_that_makes_no_grammar(self, post: Post) -> None:
        broken = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "y"}}}
        told = error(post(model="tiny:base", response_format=broken), 400)
        assert told["param"] == "response_format"

    @pytest.mark.parametrize("model", ["tiny", "tiny:base"])
    def test_a_call_can_be_required(self, post: Post, model: str) -> None:
        for choice in ("required", {"type": "function", "function": {"name": "set_light"}}):
            told = post(model=model, tools=TOOLS, tool_choice=choice).json()
            assert told["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "set_light"

    def test_a_call_cannot_be_required_without_a_grammar(self, post: Post) -> None:
        function = {"name": "f", "parameters": {"properties": {"a": {"pattern": "(?=x)y"}}}}
        function["parameters"]["properties"]["a"]["type"] = "string"  # type: ignore[index]
        tools = [{"type": "function", "function": function}]
        for model in ("tiny", "tiny:base"):
            told = post(model=model, tools=tools, tool_choice="required", max_tokens=5)
            assert error(told, 400)["param"] == "tool_choice"
            (note,) = post(model=model, tools=tools, max_tokens=5).json()["quickstudy"]["notes"]
            assert note.startswith("decoded without constraint")


def whole(chunks: list[Any]) -> dict[str, Any]:
    """A streamed message put together."""
    message: dict[str, Any] = {"content": ""}
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            if "role" in delta:
                assert "role" not in message
                message["role"] = delta["role"]
            if "tool_calls" in delta:
                message["tool_calls"] = delta["tool_calls"]
            if choice["finish_reason"]:
                message["finish_reason"] = choice["finish_reason"]
    return message


class TestStreams:
    def test_base_comes_token_by_token(self, post: Post) -> None:
        chunks = events(post(model="tiny:base", stream=True))
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert len(chunks) > 15
        assert whole(chunks) == {
            "role": "assistant",
            "content": GREETED,
            "finish_reason": "stop",
        }

    def test_base_comes_at_once(self, http: httpx2.Client) -> None:
        """The first words are there long before the last."""
        body = {"model": "tiny:base", "messages": HI, "stream": True}
        arrived = []
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                if "content" in line:
                    arrived.append(time.monotonic())
        assert len(arrived) > 15
        assert arrived[0] < arrived[-1]

    def test_several_choices(self, post: Post) -> None:
        chunks = events(post(model="tiny:base", stream=True, n=2))
        for index in (0, 1):
            own = [c for c in chunks if c["choices"][0]["index"] == index]
            assert whole(own)["content"] == GREETED

    def test_a_judged_answer_is_kept_alive(self, start: Callable[..., Running]) -> None:
        slow = start(learning={"epochs": 40}, serve={"keep_alive": 0.02})
        body = {"model": "tiny", "messages": LIGHT, "tools": TOOLS, "stream": True}
        answer = httpx2.post(f"{slow.url}/chat/completions", json=body, timeout=20)
        assert answer.text.startswith(": waiting\n\n")
        assert answer.headers["x-accel-buffering"] == "no"
        chunks = events(answer)
        assert whole(chunks)["tool_calls"][0]["index"] == 0
        assert whole(chunks)["finish_reason"] == "tool_calls"
        assert chunks[-1]["quickstudy"]["practised"]

    def test_usage_if_wanted(self, post: Post) -> None:
        chunks = events(post(stream=True, stream_options={"include_usage": True}))
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["total_tokens"] > 0
        assert all("usage" not in chunk for chunk in chunks[:-1])

    def test_what_fails_at_once_has_its_own_status(self, post: Post) -> None:
        long = [{"role": "user", "content": "x" * 5000}]
        assert "4096" in error(post(messages=long, stream=True), 400)["message"]


class TestErrors:
    @pytest.mark.parametrize(
        "body",
        [b"{", b"", b"null", b"[]", b"\xff", b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}"],
        ids=lambda body: repr(body[:10]),
    )
    def test_no_json(self, http: httpx2.Client, body: bytes) -> None:
        headers = {"content-type": "application/json"}
        error(http.post("/v1/chat/completions", content=body, headers=headers), 400)

    @pytest.mark.parametrize(
        ("field", "value", "param"),
        [
            ("stop", [""], "stop"),
            ("stop", ["a"] * 17, "stop"),
            ("messages", [{"role": "user", "content": [{"type": "image_url"}]}], "content"),
        ],
    )
    def test_a_wrong_field_is_named_as_it_is_spelt(
        self, post: Post, field: str, value: Any, param: str
    ) -> None:
        told = error(post(**{"messages": HI, field: value}), 400)
        assert re.fullmatch(rf"(messages\.0\.)?{param}(\.\d+(\.type)?)?", told["param"]), told

    def test_only_json(self, http: httpx2.Client) -> None:
        """A page in a browser may send text to any address, JSON it may not."""
        body = json.dumps({"model": "tiny:base", "messages": HI})
        headers = {"content-type": "text/plain"}
        error(http.post("/v1/chat/completions", content=body, headers=headers), 400)

    def test_half_a_surrogate_pair(self, http: httpx2.Client) -> None:
        for body in (
            '{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
            '{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
            '{"model": "tiny", "messages": [{"role": "user", "content": "x"}], "\\ud800": 1}',
        ):
            headers = {"content-type": "application/json"}
            error(http.post("/v1/chat/completions", content=body, headers=headers), 400)

    def test_unknown_paths_and_models(self, http: httpx2.Client, post: Post) -> None:
        error(http.get("/v1/nothing"), 404)
        error(http.get("/v1/chat/completions"), 405)
        error(http.get("/v1/models/nothing"), 404)
        assert error(post(model="gpt-4"), 404)["code"] == "model_not_found"

    def test_a_field_that_is_not_supported(self, post: Post) -> None:
        told = error(post(logit_bias={"5": 1}), 400)
        assert told["param"] == "logit_bias"
        assert "not supported" in told["message"]

    def test_a_large_body(self, start: Callable[..., Running]) -> None:
        small = start(serve={"max_body": 1000})
        url = f"{small.url}/chat/completions"
        error(httpx2.post(url, content=b" " * 1001), 413)
        error(httpx2.post(url, content=(b" " * 600 for _ in range(2))), 413)

    def test_a_body_that_does_not_come(
        self, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gate, "BODY_SECONDS", 0.1)
        port = int(server.host.rpartition(":")[2])
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(head)
            assert b" 408 " in slow.recv(1000)

    def test_a_fault_of_ours_shows_nothing(
        self, post: Post, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(engine_module.Engine, "answer", fail)
        answer = post()
        told = error(answer, 500)
        assert "secret" not in answer.text
        assert answer.headers["x-request-id"] in told["message"]
        assert "secret" not in post(stream=True).text

    def test_a_request_that_takes_too_long(self, start: Callable[..., Running]) -> None:
        hasty = start(serve={"timeout": 0.2}, decoding={"max_new_tokens": 4000})
        url, body = f"{hasty.url}/chat/completions", {"model": "tiny:base", "messages": LIGHT}
        body["response_format"] = {"type": "json_object"}
        assert error(httpx2.post(url, json=body, timeout=20), 504)["code"] == "timeout"
        until = time.monotonic() + 5
        while hasty.server.scheduler.jobs:
            assert time.monotonic() < until
            time.sleep(0.01)

    def test_unsure_requests_are_drafted_before_they_take_too_long(
        self, start: Callable[..., Running]
    ) -> None:
        hasty = start(serve={"timeout": 1}, learning={"epochs": 100_000})
        body = {"model": "tiny", "messages": LIGHT, "tools": TOOLS}
        told = httpx2.post(f"{hasty.url}/chat/completions", json=body, timeout=20).json()
        assert told["quickstudy"]["fallback"] == "the time budget is spent"


class TestAround:
    def test_models(self, http: httpx2.Client) -> None:
        told = http.get("/v1/models").json()
        assert [m["id"] for m in told["data"]] == ["tiny", "tiny:base", "tiny:tt-si"]
        assert http.get("/v1/models/tiny:base").json()["object"] == "model"

    def test_health(self, http: httpx2.Client) -> None:
        assert http.get("/health/live").json() == {"status": "ok"}
        assert http.get("/health/ready").json() == {"status": "ok", "model": "tiny"}

    def test_a_request_id_goes_through(self, http: httpx2.Client, post: Post) -> None:
        answer = http.get("/v1/models", headers={"X-Request-Id": "abc-1"})
        assert answer.headers["x-request-id"] == "abc-1"
        body = {"model": "tiny:base", "messages": HI}
        answer = http.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "abc-2"})
        assert answer.json()["quickstudy"]["episode"] == "abc-2"
        kind = {"accept": "application/openmetrics-text"}
        assert 'request_id="abc-2"' in http.get("/metrics", headers=kind).text

    def test_what_is_no_request_id_is_replaced(self, http: httpx2.Client) -> None:
        for given_id in ("", "a b", "x" * 65, "ü".encode()):
            answer = http.get("/v1/models", headers={"X-Request-Id": given_id})
            assert re.fullmatch("[0-9a-f]{24}", answer.headers["x-request-id"])

    def test_metrics(self, http: httpx2.Client, post: Post) -> None:
        post(messages=LIGHT, tools=TOOLS)
        post(model="tiny:base", stream=True)
        told = http.get("/metrics").text
        wanted = 'quickstudy_requests_total{key="anyone",path="practised",status="200"}'
        assert wanted in told
        for stream in ("true", "false"):
            assert f'stream="{stream}"' in told
        assert "quickstudy_first_token_seconds_count" in told
        assert 'quickstudy_stage_seconds_count{stage="practice"}' in told
        assert "quickstudy_requests_here 0.0" in told

    def test_docs(self, http: httpx2.Client) -> None:
        assert http.get("/docs").status_code == 200
        described = http.get("/openapi.json").json()
        responses = described["paths"]["/v1/chat/completions"]["post"]["responses"]
        assert "422" not in responses
        body = described["components"]["schemas"]["ChatRequest"]["properties"]
        assert body["model"]["enum"] == ["tiny", "tiny:base", "tiny:tt-si"]


@pytest.fixture
def guarded(start: Callable[..., Running]) -> Running:
    ann = {"name": "ann", "sha256": sha256("ann-key"), "requests_per_minute": 3}
    bob = {"name": "bob", "sha256": sha256("bob-key"), "practice_seconds_per_hour": 0}
    return start(serve={"keys": (ann, bob)})


class TestKeys:
    def test_whoever_has_none_is_told_nothing(self, guarded: Running) -> None:
        for path in ("/v1/models", "/v1/chat/completions", "/v1/anything"):
            answer = httpx2.get(f"{guarded.host}{path}")
            assert error(answer, 401)["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
        assert httpx2.get(f"{guarded.host}/health/live").status_code == 200

    def test_requests_a_minute(self, guarded: Running) -> None:
        with openai.OpenAI(base_url=guarded.url, api_key="ann-key", max_retries=0) as client:
            for _ in range(3):
                client.chat.completions.create(model="tiny:base", messages=HI, max_tokens=2)  # type: ignore[arg-type]
            client.models.list()
            with pytest.raises(openai.RateLimitError) as error:
                client.chat.completions.create(model="tiny:base", messages=HI)  # type: ignore[arg-type]
            assert int(error.value.response.headers["retry-after"]) > 10

    def test_a_key_that_may_not_practise_gets_drafts(self, guarded: Running) -> None:
        body = {"model": "tiny", "messages": LIGHT, "tools": TOOLS}
        told = httpx2.post(
            f"{guarded.url}/chat/completions",
            json=body,
            headers={"Authorization": "Bearer bob-key"},
            timeout=20,
        ).json()
        assert "used up" in told["quickstudy"]["fallback"]
        assert told["choices"][0]["message"]["tool_calls"]


class TestLogs:
    @pytest.fixture
    def lines(self) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonLines())
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
        root.removeHandler(handler)
        root.setLevel(level)

    def test_a_line_a_request(
        self, post: Post, http: httpx2.Client, lines: Callable[[], list[dict[str, Any]]]
    ) -> None:
        answer = post(messages=LIGHT, tools=TOOLS)
        time.sleep(0.05)
        (line,) = (one for one in lines() if one["logger"] == "quickstudy.serve.gate")
        assert line["request_id"] == answer.headers["x-request-id"]
        assert (line["event"], line["status"], line["answer"]) == ("request", 200, "practised")
        assert line["total_tokens"] > 0

    def test_neither_keys_nor_prompts(
        self,
        guarded: Running,
        lines: Callable[[], list[dict[str, Any]]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Whatever goes wrong, and however it is said."""

        def fail(request: Any, *_: Any, **__: Any) -> None:
            raise ValueError(f"cannot read {request}")

        url = f"{guarded.url}/chat/completions"
        key = {"Authorization": "Bearer bob-key"}
        canary = "CANARY-7"
        pattern = {"properties": {"a": {"type": "string", "pattern": f"(?={canary})"}}}
        tools = [{"type": "function", "function": {"name": canary, "parameters": pattern}}]
        messages = [{"role": "user", "content": canary}]
        body = {"model": "tiny", "messages": messages, "max_tokens": 5}
        for sent in (
            body,
            {**body, "tools": tools},
            {**body, canary: 1},
            {**body, "model": canary},
            {**body, "messages": canary},
        ):
            httpx2.post(url, json=sent, headers=key, timeout=20)
        httpx2.post(url, json=body, headers={"Authorization": f"Bearer {canary}"})
        httpx2.get(f"{guarded.host}/{canary}?x={canary}")
        monkeypatch.setattr("quickstudy.improve.assess", fail)
        told = httpx2.post(url, json=body, headers=key, timeout=20).json()
        assert "ValueError" in told["quickstudy"]["fallback"]
        monkeypatch.setattr("quickstudy.model.LanguageModel.prefill", fail)
        assert httpx2.post(url, json=body, headers=key, timeout=20).status_code == 500
        logged = json.dumps(lines())
        assert "decoded without constraint" in logged
        assert "ValueError" in logged
        assert canary not in logged
        assert "bob-key" not in logged


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = {
    "model": st.sampled_from(["tiny", "tiny:base", "x"]),
    "messages": st.sampled_from([HI, LIGHT]),
    "tools": st.sampled_from([TOOLS, []]),
    "tool_choice": st.sampled_from(["auto", "none", "required"]),
    "stream": st.booleans(),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "n": st.integers(1, 9),
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3),
    "seed": st.integers(),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 2),
    "quickstudy": st.fixed_dictionaries({}, optional={"threshold": st.floats(0, 1.01)}),
    "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
}


class TestWildBodies:
    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_no_body_makes_a_fault(self, http: httpx2.Client, data: st.DataObject) -> None:
        names = data.draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=5))
        body: dict[str, Any] = {"model": "tiny:base", "messages": HI}
        body |= {name: data.draw(FIELDS[name], name) for name in names}
        if data.draw(st.booleans()):
            place = data.draw(st.sampled_from([*FIELDS, "another"]))
            body[place] = data.draw(JSON)
        if body.get("max_tokens") is None:
            body["max_tokens"] = 4
        content = json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        answer = http.post("/v1/chat/completions", content=content, headers=headers)
        if answer.status_code == 200:
            if answer.headers["content-type"] == "application/json":
                assert answer.json()["choices"]
            else:
                assert all("error" not in event for event in events(answer))
        else:
            error(answer, answer.status_code)
            assert answer.status_code in (400, 404)
