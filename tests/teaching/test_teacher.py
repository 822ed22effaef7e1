"""Teachers: a server that misbehaves in every way, and a second local model."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from naughty import MODES, NaughtyServer, closed_port

from quickstudy.augmentation.author import Author
from quickstudy.config import Config, DecodingConfig
from quickstudy.decoding import Deadline, Decoder, Generation
from quickstudy.errors import BudgetSpent, ConfigError, ModelError, TeacherFailed
from quickstudy.model import LanguageModel
from quickstudy.teaching.endpoint import base_url
from quickstudy.teaching.remote import RemoteTeacher
from quickstudy.teaching.teacher import LocalTeacher, load_teacher, parse_teacher
from quickstudy.types import Message, Reply, Request, Tool, ToolCall

Start = Callable[..., NaughtyServer]
KEY = "sk-very-secret-42"
ASK = [Message("user", "a city; another: PRIVATE")]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "parameters": SCHEMA}
REQUEST = Request.parse("Weather in Oslo?", [WEATHER])


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def remote(url: str, **settings: Any) -> RemoteTeacher:
    return RemoteTeacher(url, "big", **{"timeout": 5.0, "retries": 0, **settings})


def written(teacher: RemoteTeacher, schema: dict[str, Any] | None = None, **options: Any) -> str:
    (text,) = teacher.write([ASK], [schema], 24, **options)
    return text


def failure(teacher: RemoteTeacher) -> str:
    with pytest.raises(TeacherFailed) as caught:
        written(teacher)
    told = str(caught.value)
    assert told.startswith(f"the teacher big at {teacher.endpoint.url} ")
    assert "\n" not in told
    assert len(told) < 400
    return told


# --- a server that behaves ---


def test_dialogues_are_written_together_in_their_order(naughty_server: Start) -> None:
    meet = threading.Barrier(3, timeout=5)  # broken unless all three are asked at once

    def echo(body: dict[str, Any]) -> str:
        meet.wait()
        return f"{body['messages'][-1]['content']}!\nand more"

    server = naughty_server(says=echo)
    asks = [[Message("system", "Be short."), Message("user", word)] for word in ("a", "b", "c")]
    assert remote(server.url).write(asks, [None] * 3, 24) == ["a!", "b!", "c!"]
    first = min(server.bodies, key=lambda body: body["messages"][-1]["content"])
    assert first == {
        "model": "big",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "a"},
        ],
        "temperature": 0.8,
        "seed": first["seed"],
        "max_tokens": 2048,
    }
    assert len({body["seed"] for body in server.bodies}) == 3
    assert set(server.paths) == {"/v1/chat/completions"}


def test_nothing_asked_is_nothing_sent() -> None:
    assert remote(closed_port()).write([], [], 24) == []


def test_text_is_stripped_before_the_stop_and_reasoning_is_dropped(naughty_server: Start) -> None:
    server = naughty_server(says="<think>hm\nhm</think>\n\nRome; Bonn\nIs that good?")
    assert written(remote(server.url)) == "Rome; Bonn"
    assert written(remote(server.url), stop=None) == "Rome; Bonn\nIs that good?"
    server.says = "hm\nhm</think>Rome"  # the block was opened in the prompt
    assert written(remote(server.url)) == "Rome"
    server.says = "Rome \ud800"
    assert written(remote(server.url)) == "Rome ?"


def test_it_works_inside_a_running_event_loop(naughty_server: Start) -> None:
    async def notebook() -> str:
        return written(remote(server.url))

    server = naughty_server()
    assert asyncio.run(notebook()) == "Paris"


def test_seeds_come_from_the_request(naughty_server: Start) -> None:
    server = naughty_server()
    teacher = remote(server.url)
    for _ in range(2):
        bound = teacher.for_request(7, Deadline())
        written(bound)
        written(bound)
    seeds = [body["seed"] for body in server.bodies]
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]


# --- JSON under a schema ---


@pytest.mark.parametrize(
    "said",
    [
        '{"city": "Rome"}',
        '```json\n{\n  "city": "Rome"\n}\n```',
        'Sure {really}! Here: {"city": "Rome"} - or {"city": "Bonn"}.',
        '<think>{"city": "Bonn"}?</think>{"city": "Rome"}',
    ],
)
def test_json_is_unwrapped(naughty_server: Start, said: str) -> None:
    server = naughty_server(says=said)
    assert written(remote(server.url), SCHEMA) == '{"city": "Rome"}'
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert server.bodies[0]["response_format"] == wanted


def test_lists_and_wild_values_are_unwrapped(naughty_server: Start) -> None:
    server = naughty_server(says='{"no": 1} [1, "a\\nb", "\\ud800"]')
    assert written(remote(server.url), {"type": "array"}) == '[1, "a\\nb", "?"]'
    server.says = '{"city": NaN} {"city": "Rome"}'
    assert written(remote(server.url), SCHEMA) == '{"city": "Rome"}'


@pytest.mark.parametrize(
    "said",
    ["Rome", '{"city": "Ro', '{"a":' * 1000, '{"a":' * 100 + "1" + "}" * 100, "{" * 30_000],
)
def test_no_json_is_a_failure(naughty_server: Start, said: str) -> None:
    teacher = remote(naughty_server(says=said).url)
    with pytest.raises(TeacherFailed, match="writes no JSON"):
        written(teacher, SCHEMA)


def test_cut_off_json_says_what_to_raise(naughty_server: Start) -> None:
    teacher = remote(naughty_server(says='{"city": "Ro', finish="length").url, max_tokens=99)
    with pytest.raises(TeacherFailed, match=r"cut off at 99 tokens; raise teacher\.max_tokens"):
        written(teacher, SCHEMA)


def test_a_server_without_schemas_is_asked_again_and_remembered(naughty_server: Start) -> None:
    server = naughty_server("no-schema", says='{"city": "Rome"}')
    teacher = remote(server.url)
    for _ in range(2):
        assert written(teacher.for_request(0, Deadline()), SCHEMA) == '{"city": "Rome"}'
    assert ["response_format" in body for body in server.bodies] == [True, False, False]


@pytest.mark.parametrize("name", ["temperature", "max_tokens"])
def test_settings_that_a_server_refuses_are_left_out(naughty_server: Start, name: str) -> None:
    server = naughty_server(f"no-{name.replace('_', '-')}", says='{"city": "Rome"}')
    assert written(remote(server.url), SCHEMA) == '{"city": "Rome"}'
    refused, taken = server.bodies
    assert refused.keys() - taken.keys() == {name}
    assert taken.get("max_completion_tokens") == (2048 if name == "max_tokens" else None)


def test_a_server_that_refuses_everything_is_not_asked_for_ever(naughty_server: Start) -> None:
    server = naughty_server("400")
    teacher = remote(server.url)
    with pytest.raises(TeacherFailed, match="HTTP 400: never"):
        written(teacher, SCHEMA)
    assert len(server.bodies) == 2  # with and without the schema
    server.answer, server.says = MODES["good"], '{"city": "Rome"}'
    assert written(teacher, SCHEMA) == '{"city": "Rome"}'
    assert "response_format" in server.bodies[-1]  # what was not the schema's fault


def test_a_loop_that_cannot_be_made_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(asyncio.events, "new_event_loop", fail)
    with pytest.raises(OSError, match="too many open files"):
        written(remote(closed_port()))


# --- a server that does not behave ---


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("401", "wants a key (HTTP 401): set OPENAI_API_KEY, which is not set"),
        ("404", "HTTP 404; is the base URL right, and the model's name?: no"),
        ("500", "HTTP 500: it burns"),
        ("400", "HTTP 400: never"),
        ("truncated", "answers with application/json that is no JSON"),
        ("html", "answers with text/html that is no JSON; is the base URL right? Most end in /v1"),
        ("deep", "no JSON"),
        ("no-object", "no chat completion"),
        ("no-choices", "no chat completion"),
        ("choices-wrong", "no chat completion"),
        ("message-wrong", "no chat completion"),
        ("content-wrong", "no chat completion"),
        ("calls-wrong", "no chat completion"),
        ("huge", "more than 1 MiB"),
        ("huge-500", "more than 1 MiB"),
        ("bomb", "compressed"),
        ("reset", "cannot be reached"),
    ],
)
def test_what_fails_is_told(naughty_server: Start, mode: str, told: str) -> None:
    started = time.monotonic()
    assert told in failure(remote(naughty_server(mode).url))
    assert time.monotonic() - started < 2


def test_nobody_listens() -> None:
    assert "cannot be reached (" in failure(remote(closed_port()))


@pytest.mark.parametrize("said", [None, "", "  \n", "<think>hm"])
def test_saying_nothing_is_a_failure(naughty_server: Start, said: str | None) -> None:
    assert "says nothing" in failure(remote(naughty_server(says=said).url))


@pytest.mark.parametrize("mode", ["slow", "drip", "busy-long"])
def test_an_answer_is_bounded_in_time(naughty_server: Start, mode: str) -> None:
    started = time.monotonic()
    told = failure(remote(naughty_server(mode).url, timeout=0.3, retries=2))
    assert "no answer within 0.3 s (teacher.timeout)" in told
    assert 0.25 < time.monotonic() - started < 1


@pytest.mark.parametrize("mode", ["slow", "drip"])
def test_the_requests_deadline_comes_first(naughty_server: Start, mode: str) -> None:
    teacher = remote(naughty_server(mode).url)
    with pytest.raises(BudgetSpent):
        written(teacher.for_request(0, Deadline.after(0.2)))
    started = time.monotonic()
    with pytest.raises(BudgetSpent):
        written(teacher.for_request(0, Deadline(started - 1)))
    assert time.monotonic() - started < 0.1


def test_a_hung_name_look_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        released.wait(10)
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    started = time.monotonic()
    try:
        assert "no answer within 0.2 s" in failure(remote("http://far.example/v1", timeout=0.2))
        assert time.monotonic() - started < 1
    finally:
        released.set()


def test_a_busy_server_is_tried_again(naughty_server: Start) -> None:
    server = naughty_server("busy-once")
    assert written(remote(server.url, retries=1)) == "Paris"
    assert len(server.bodies) == 2


def test_where_some_answers_fail_the_others_stand(
    naughty_server: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = naughty_server("fail-first")
    texts = remote(server.url).write([ASK, ASK, ASK], [None] * 3, 24)
    assert sorted(texts) == ["", "Paris", "Paris"]
    assert "1 of 3 answers of the teacher failed" in caplog.text


# --- secrets ---


def test_the_key_goes_out_and_a_placeholder_without_one(
    naughty_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = naughty_server()
    teacher = remote(server.url, api_key_env="TEACHER_KEY")
    written(teacher)
    monkeypatch.setenv("TEACHER_KEY", f"{KEY}\n")
    written(teacher)
    sent = [headers["Authorization"] for headers in server.headers]
    assert sent == ["Bearer none", f"Bearer {KEY}"]


@pytest.mark.parametrize("mode", ["good", "echo-400", "echo-401", "echo-500", "echo-kind"])
def test_the_key_is_told_nowhere(
    naughty_server: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    mode: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server = naughty_server(mode)
    teacher = remote(server.url, retries=1 if mode == "echo-500" else 0)
    told = ""
    try:
        assert written(teacher) == "Paris"
    except TeacherFailed as error:
        assert error.__context__ is None
        told = repr(error) + "".join(traceback.format_exception(error))
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
    assert told or mode == "good"
    assert "[key]" in told or mode in ("good", "echo-401")  # an echo is blotted out, not lost
    logged = "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "HTTP" in logged  # the client does log
    for place in (told, repr(vars(teacher)), repr(vars(teacher.endpoint)), *capfd.readouterr()):
        assert KEY not in place
        assert KEY[:9] not in place
    assert KEY not in logged
    assert "PRIVATE" not in logged


def test_a_refused_key_is_told_by_its_variable(
    naughty_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    told = failure(remote(naughty_server("401").url, api_key_env="TEACHER_KEY"))
    assert "set TEACHER_KEY, which holds one that it refuses" in told


@pytest.mark.parametrize("key", ["schlüssel", "a\nb"])
def test_a_key_that_fits_no_header(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    told = failure(remote(closed_port()))
    assert "what OPENAI_API_KEY holds fits no HTTP header" in told
    assert key not in told


def test_redirects_are_not_followed(naughty_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    other = naughty_server()
    there = f"http://user:{KEY}@{other.host.removeprefix('http://')}/v1/x?key={KEY}"
    told = failure(remote(naughty_server("redirect", says=there).url))
    assert f"redirects (HTTP 307) to {other.host}/v1/x;" in told
    assert other.bodies == []


# --- the teacher's own answer ---


def openai_call(name: object, arguments: object) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: object, content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


WEATHER_CALL = {"type": "function", "function": {"name": "weather", "arguments": "{}"}}
OSLO = ToolCall("weather", {"city": "Oslo"})


@pytest.mark.parametrize(
    ("says", "reply"),
    [
        (calling(openai_call("weather", '{"city": "Oslo"}')), Reply("", (OSLO,))),
        (calling(openai_call("weather", {"city": "Oslo"}), content="So:"), Reply("So:", (OSLO,))),
        (
            calling(openai_call("weather", "{"), openai_call("weather", '{"city": "Oslo"}')),
            Reply("", (OSLO,)),
        ),
        ('<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
         Reply("", (OSLO,))),
        ("I cannot say.", Reply("I cannot say.")),
    ],
)  # fmt: skip
def test_answers_are_read(naughty_server: Start, says: Any, reply: Reply) -> None:
    server = naughty_server(says=says)
    assert remote(server.url).answer(REQUEST) == reply
    assert server.bodies[0]["tools"] == [REQUEST.tools[0].to_openai()]
    assert server.bodies[0]["temperature"] == 0


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (calling(openai_call("weather", '{"city": ')), "call that cannot be read"),
        (calling(openai_call("weather", "[]"), content="x"), "call that cannot be read"),
        (calling(openai_call(7, "{}")), "call that cannot be read"),
        (calling(None), "call that cannot be read"),
        (calling(json.loads("[" * 80 + "]" * 80)), "no chat completion"),
        (None, "says nothing"),
    ],
)
def test_answers_that_cannot_be_read(naughty_server: Start, says: Any, told: str) -> None:
    with pytest.raises(TeacherFailed, match=told):
        remote(naughty_server(says=says).url).answer(REQUEST)


def test_a_cut_off_answer_is_none(naughty_server: Start) -> None:
    says = calling(openai_call("weather", '{"city": "Oslo"}'))
    with pytest.raises(TeacherFailed, match="cut off"):
        remote(naughty_server(says=says, finish="length").url).answer(REQUEST)


def test_a_failed_answer_raises(naughty_server: Start) -> None:
    with pytest.raises(TeacherFailed, match="HTTP 500"):
        remote(naughty_server("500").url).answer(REQUEST)


def test_past_calls_and_results_are_sent_as_servers_want_them(naughty_server: Start) -> None:
    server = naughty_server()
    past = (
        Message("user", "Weather in Oslo and Bonn?"),
        Message("assistant", "", (OSLO, ToolCall("weather", {"city": "Köln"}))),
        Message("tool", "rain"),
        Message("tool", "sun"),
        Message("tool", "of no call"),
    )
    remote(server.url).answer(Request(past))
    _, assistant, rain, sun, stray = server.bodies[0]["messages"]
    first, second = assistant["tool_calls"]
    assert second["type"] == "function"
    assert second["function"] == {"name": "weather", "arguments": '{"city": "Köln"}'}
    assert first["id"] != second["id"]
    assert [rain["tool_call_id"], sun["tool_call_id"]] == [first["id"], second["id"]]
    assert stray == {"role": "user", "content": "Tool result: of no call"}
    assert "tools" not in server.bodies[0]


def test_results_name_the_calls_that_they_answer(naughty_server: Start) -> None:
    """Parallel calls may be answered in any order."""
    server = naughty_server()
    calls = [{"id": name, **WEATHER_CALL} for name in ("a", "b")]
    past = [
        {"role": "user", "content": "Weather here and there?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "b", "content": "sun"},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
    ]
    remote(server.url).answer(Request.parse(past))
    _, assistant, sun, rain = server.bodies[0]["messages"]
    assert [call["id"] for call in assistant["tool_calls"]] == ["a", "b"]
    assert [sun["tool_call_id"], rain["tool_call_id"]] == ["b", "a"]


# --- names and settings ---


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("https://h/v1/", "https://h/v1"),
        ("https://h/api/v3", "https://h/api/v3"),
        (" http://h/v1/chat/completions", "http://h/v1"),
    ],
)
def test_base_urls_are_completed(given: str, meant: str) -> None:
    assert base_url(given) == meant


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h/v1",
        "ftp://h/v1",
        "http://",
        "http://h:99999/v1",
        "http://[::1",
        "http://h\n/v1",
        "http://user:s3cret@h/v1",
        "http://s3cret@h/v1",
        "user:s3cret@h/v1",
        "http://h/v1?key=s3cret",
    ],
)
def test_base_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="the teacher's URL") as caught:
        remote(url)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError):
        load_teacher(Config.load(overrides=[f"teacher.url={url or '-'}", "teacher.model=m"]))


def test_the_teachers_spelling() -> None:
    assert parse_teacher("http://127.0.0.1:8000#qwen2.5-7b") == {
        "url": "http://127.0.0.1:8000/v1",
        "model": "qwen2.5-7b",
    }
    for spec in ("smollm2", "Qwen/Qwen2.5-1.5B-Instruct", "/models/c#/x.gguf", "C:\\x.gguf"):
        assert parse_teacher(spec) == {"url": None, "model": spec}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (" ", "empty"),
        ("http://127.0.0.1:8000/v1", "wants the model's name after the URL and a #"),
        ("http://127.0.0.1:8000/v1#", "wants the model's name after the URL and a #"),
        ("localhost:8000/v1#m", "wants http:// or https:// before"),
        ("ftp://h#m", "no http:// or https:// address"),
        ("http://me:s3cret@h#m", "user name or a password"),
    ],
)
def test_teachers_spelt_wrongly(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse_teacher(text)
    assert "s3cret" not in str(caught.value)


def test_a_server_is_loaded_from_settings(naughty_server: Start) -> None:
    server = naughty_server()
    given = {"url": server.url, "model": "big", "max_tokens": 77, "timeout": 3, "retries": 0}
    config = Config.load(teacher=given, seed=5, overrides=["augmentation.temperature=0.3"])
    teacher = load_teacher(config)
    assert teacher.name == f"big at {server.url}"
    assert teacher.write([ASK], [None], 24) == ["Paris"]
    (body,) = server.bodies
    assert (body["max_tokens"], body["temperature"]) == (77, 0.3)
    assert (teacher.endpoint.timeout, teacher.endpoint.retries) == (3, 0)


def test_no_teacher_is_told() -> None:
    with pytest.raises(ConfigError, match="no teacher; name a model, or --teacher http"):
        load_teacher(Config())


def test_a_local_teacher_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="no model at"):
        load_teacher(Config.load(teacher={"model": "/no/such.gguf"}))


# --- a second local model ---


def local(model: LanguageModel, **settings: Any) -> LocalTeacher:
    return LocalTeacher(Decoder(model), DecodingConfig(), **settings)


def test_a_local_teacher_writes_as_the_model_itself_does(tiny: LanguageModel) -> None:
    teacher = local(tiny, seed=3)
    tool = Tool.parse(WEATHER)
    (made,) = Author(teacher).arguments([(tool, ["city"], "Oslo")])
    again = Author(teacher.for_request(3, Deadline())).arguments([(tool, ["city"], "Oslo")])
    assert again == [made]


class Spy(Decoder):
    """Remembers what it was asked, and decodes it or gives a text instead."""

    text: str | None = None

    def decode(self, *args: Any, **options: Any) -> list[Generation]:
        self.asks, self.options = args[1], options
        if self.text is not None:
            return [Generation((), self.text, (), finished=True)]
        return super().decode(*args, **options)


def test_a_local_teacher_answers_greedily_under_the_grammar(tiny: LanguageModel) -> None:
    spy = Spy(tiny)
    spy.text = '```json\n{"name": "weather", "arguments": {"city": "Oslo"}}\n```'
    assert LocalTeacher(spy, DecodingConfig()).answer(REQUEST) == Reply("", (OSLO,))
    assert spy.asks[0].grammar is not None
    assert "weather" in spy.asks[0].grammar.lark
    assert spy.options.get("temperature", 0) == 0
    LocalTeacher(spy, DecodingConfig(constrained=False)).answer(REQUEST)
    assert spy.asks[0].grammar is None


def test_a_local_teacher_that_is_cut_off(tiny: LanguageModel) -> None:
    teacher = LocalTeacher(Decoder(tiny), DecodingConfig(max_new_tokens=3))
    with pytest.raises(TeacherFailed, match="the teacher tiny was cut off at 3 tokens"):
        teacher.answer(REQUEST)


def test_a_local_teacher_that_cannot_read_the_request(tiny: LanguageModel) -> None:
    with pytest.raises(TeacherFailed, match="the teacher tiny: the request has"):
        local(tiny).answer(Request.parse("x" * 5000))


def test_a_local_teacher_whose_template_refuses(tiny: LanguageModel) -> None:
    tiny.tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(TeacherFailed, match=r"the teacher tiny: .*no system role"):
        local(tiny).write([ASK], [None], 4)


def test_a_local_teacher_keeps_the_requests_deadline(tiny: LanguageModel) -> None:
    teacher = local(tiny).for_request(0, Deadline(time.monotonic() - 1))
    with pytest.raises(BudgetSpent):
        teacher.answer(REQUEST)
    with pytest.raises(BudgetSpent):
        teacher.write([ASK], [None], 4)
