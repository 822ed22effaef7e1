"""The clients that agents use, against a running server."""

from __future__ import annotations

import asyncio
import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from serving import ASK, GREETED, GREETING, SAID, TOOLS, Running, config

from quickstudy.improve import Improver
from quickstudy.model import LanguageModel
from quickstudy.teaching.remote import RemoteTeacher

HI: Any = [{"role": "user", "content": GREETING}]
LIGHT: Any = [{"role": "user", "content": ASK}]
SPECS: Any = TOOLS


class TestOpenAI:
    def test_plain(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model="tiny:base", messages=HI)
        assert answer.choices[0].message.content == GREETED
        assert answer.model_extra is not None
        assert answer.model_extra["quickstudy"]["method"] == "base"

    def test_streaming(self, client: openai.OpenAI) -> None:
        with client.chat.completions.create(
            model="tiny:base", messages=HI, stream=True, stream_options={"include_usage": True}
        ) as stream:
            chunks = list(stream)
        words = [c.choices[0].delta.content or "" for c in chunks if c.choices]
        assert "".join(words) == GREETED
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == len(GREETED.encode())

    @pytest.mark.parametrize("model", ["tiny", "tiny:base"])
    def test_tools(self, client: openai.OpenAI, model: str) -> None:
        answer = client.chat.completions.create(model=model, messages=LIGHT, tools=SPECS)
        assert_called(answer.choices[0].message)
        # the way back: the client's own message, and a result
        calls = answer.choices[0].message.tool_calls
        assert calls
        turns = [
            *LIGHT,
            answer.choices[0].message,
            {"role": "tool", "tool_call_id": calls[0].id, "content": "done"},
        ]
        more = client.chat.completions.create(
            model=model, messages=turns, tools=SPECS, max_tokens=5
        )
        assert more.choices[0].finish_reason in ("length", "stop", "tool_calls")

    @pytest.mark.parametrize("model", ["tiny", "tiny:base"])
    def test_streamed_tools(self, client: openai.OpenAI, model: str) -> None:
        with client.chat.completions.stream(model=model, messages=LIGHT, tools=SPECS) as stream:
            for _ in stream:
                pass
            assert_called(stream.get_final_completion().choices[0].message)

    def test_many_at_once(self, server: Running) -> None:
        async def ask() -> list[Any]:
            async with openai.AsyncOpenAI(base_url=server.url, api_key="x") as client:
                create = client.chat.completions.create
                plain = [create(model="tiny:base", messages=HI) for _ in range(4)]
                called = [create(model="tiny", messages=LIGHT, tools=SPECS) for _ in range(2)]
                return await asyncio.gather(*plain, *called)

        *plain, one, two = asyncio.run(ask())
        assert {answer.choices[0].message.content for answer in plain} == {GREETED}
        assert_called(one.choices[0].message)
        assert_called(two.choices[0].message)

    def test_errors_have_their_classes(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-4", messages=HI)
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(model="tiny", messages=HI, logit_bias={"1": 5})
        assert error.value.param == "logit_bias"


def assert_called(message: Any) -> None:
    (call,) = message.tool_calls
    assert call.function.name == SAID.name
    assert json.loads(call.function.arguments) == SAID.arguments


class TestLangChain:
    def test_bound_tools(self, server: Running) -> None:
        chat = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
        messages = pytest.importorskip("langchain_core.messages")

        def set_light(level: int) -> str:
            """Sets the light."""
            return f"set to {level}"

        llm = chat.ChatOpenAI(model="tiny", base_url=server.url, api_key="x", max_retries=0)
        answer = llm.bind_tools(SPECS).invoke(ASK)
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("set_light", {"level": 40})
        forced = llm.bind_tools([set_light], tool_choice="any").invoke(ASK)
        assert forced.tool_calls[0]["name"] == "set_light"
        result = messages.ToolMessage(set_light(**call["args"]), tool_call_id=call["id"])
        turns = [messages.HumanMessage(ASK), answer, result]
        assert llm.bind(max_tokens=5).invoke(turns).type == "ai"

    def test_streaming(self, server: Running) -> None:
        chat = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
        llm = chat.ChatOpenAI(model="tiny:base", base_url=server.url, api_key="x")
        pieces = [piece.content for piece in llm.stream(GREETING)]
        assert "".join(pieces) == GREETED
        assert len(pieces) > 15


@pytest.mark.model
class TestSmolagents:
    def test_an_agent_with_two_real_tools_comes_to_its_end(self, smollm2: LanguageModel) -> None:
        smolagents = pytest.importorskip("smolagents", reason="smolagents is not installed")
        from smolagents.agents import EMPTY_PROMPT_TEMPLATES

        tool = smolagents.tool
        called: list[str] = []
        heating = {"kitchen": 17}

        @tool  # type: ignore[untyped-decorator]
        def get_temperature(room: str) -> str:
            """Reads a room's thermometer.

            Args:
                room: the room's name
            """
            called.append("get_temperature")
            return f"{heating.get(room, 18)} degrees"

        @tool  # type: ignore[untyped-decorator]
        def set_heating(room: str, degrees: int) -> str:
            """Sets a room's heating.

            Args:
                room: the room's name
                degrees: the wanted temperature
            """
            called.append("set_heating")
            heating[room] = degrees
            return "done"

        class Guided(smolagents.OpenAIModel):  # type: ignore[misc]
            """135M parameters see no end: what was called already is not to be called again."""

            def generate(self, *arguments: Any, **options: Any) -> Any:
                left = [n for n in ("get_temperature", "set_heating") if n not in called]
                if called:
                    name = (*left, "final_answer")[0]
                    options["tool_choice"] = {"type": "function", "function": {"name": name}}
                return super().generate(*arguments, **options)

        settings = config(awareness={"threshold": 0}, decoding={"max_new_tokens": 48})
        server = Running(Improver(smollm2, settings))
        try:
            templates = copy.deepcopy(EMPTY_PROMPT_TEMPLATES)
            templates["system_prompt"] = "You call one tool at a time."
            agent = smolagents.ToolCallingAgent(
                tools=[get_temperature, set_heating],
                model=Guided(model_id=server.name, api_base=server.url, api_key="x"),
                prompt_templates=templates,
                max_steps=4,
                verbosity_level=0,
            )
            run = agent.run("Set the kitchen's heating to 21 degrees.", return_full_result=True)
        finally:
            server.close()
        assert run.state == "success"
        assert sorted(called) == ["get_temperature", "set_heating"]
        assert heating["kitchen"] == 21
        assert run.output


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
class TestCurl:
    def run(self, *arguments: str) -> str:
        command = ["curl", "--silent", "--show-error", "--max-time", "20", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def test_a_call(self, server: Running) -> None:
        body = json.dumps({"model": "tiny", "messages": LIGHT, "tools": TOOLS})
        kind = "Content-Type: application/json"
        told = self.run(f"{server.url}/chat/completions", "-H", kind, "-d", body)
        function = json.loads(told)["choices"][0]["message"]["tool_calls"][0]["function"]
        assert function == {"name": "set_light", "arguments": '{"level": 40}'}

    def test_a_stream(self, server: Running) -> None:
        body = json.dumps({"model": "tiny:base", "messages": HI, "stream": True})
        kind = "Content-Type: application/json"
        told = self.run("-N", f"{server.url}/chat/completions", "-H", kind, "-d", body)
        assert told.endswith("data: [DONE]\n\n")


class TestTeacher:
    """quickstudy as the teacher of another quickstudy."""

    def teacher(self, server: Running, name: str = "tiny:base") -> RemoteTeacher:
        return RemoteTeacher(server.url, name, timeout=20, max_tokens=60)

    @pytest.mark.parametrize("name", ["tiny:base", "tiny"])
    def test_a_student_in_another_process_would_learn_from_it(
        self,
        server: Running,
        name: str,
        make_tiny: Callable[..., LanguageModel],
        taught: LanguageModel,
    ) -> None:
        student = make_tiny()
        student.network.load_state_dict(taught.network.state_dict())
        improver = Improver(student, config(method="tt-d"), self.teacher(server, name))
        answer = improver.answer(ASK, TOOLS)
        assert answer.episode.method == "tt-d"
        assert answer.episode.practised, answer.episode.fallback
        assert not any("taught itself" in note for note in answer.episode.notes)
        assert answer.tool_calls == (SAID,)

    def test_a_server_has_another_as_its_teacher(
        self, server: Running, start: Callable[..., Running]
    ) -> None:
        student = start(teacher=self.teacher(server))
        with openai.OpenAI(base_url=student.url, api_key="x", max_retries=0) as client:
            names = [model.id for model in client.models.list()]
            assert names == ["tiny", "tiny:base", "tiny:tt-si", "tiny:tt-d"]
            answer = client.chat.completions.create(model="tiny:tt-d", messages=LIGHT, tools=SPECS)
        assert answer.model_extra is not None
        cycle = answer.model_extra["quickstudy"]
        assert (cycle["method"], cycle["practised"]) == ("tt-d", True)
        assert not any("taught itself" in note for note in cycle["notes"])

    def test_a_server_may_be_its_own_teacher(self, start: Callable[..., Running]) -> None:
        """While it waits for its teacher, its model is free to be the teacher."""
        teacher = RemoteTeacher("http://127.0.0.1:1/v1", "tiny:base", timeout=20, max_tokens=60)
        itself = start(teacher=teacher)
        teacher.endpoint.url = itself.url
        with openai.OpenAI(base_url=itself.url, api_key="x", max_retries=0) as client:
            answer = client.chat.completions.create(model="tiny:tt-d", messages=LIGHT, tools=SPECS)
        assert answer.model_extra is not None
        assert answer.model_extra["quickstudy"]["practised"]
        assert not any("taught" in n for n in answer.model_extra["quickstudy"]["notes"])


def test_our_own_openapi(start: Callable[..., Running], tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    server = start(decoding={"max_new_tokens": 2}, serve={"max_tokens": 2})
    described = tmp_path / "openapi.json"
    described.write_bytes(httpx2.get(f"{server.host}/openapi.json", timeout=60).content)
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_schema_conformance,negative_data_rejection"
    )
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(described), "--url", server.host),
        *(
            "--checks",
            checks,
            "--max-examples",
            "5",
            "--seed",
            "1",
            "--phases",
            "coverage,fuzzing",
        ),
        *("--request-timeout", "20", "--no-color", "--exclude-path", "/metrics"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
