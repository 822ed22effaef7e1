"""No request sees another's adapter, cache or practice; places are bounded and come free."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx2
import pytest
import torch
import waiting
from alike import alike
from serving import ASK, GREETED, GREETING, TOOLS, Running

from quickstudy.model import LanguageModel
from quickstudy.serve.baton import Runner
from quickstudy.types import Request

LIGHT = [{"role": "user", "content": ASK}]
HI = [{"role": "user", "content": GREETING}]
DIM = [{"role": "user", "content": "Light to 75"}]
KINDS: tuple[dict[str, Any], ...] = (
    {"model": "tiny", "messages": LIGHT, "tools": TOOLS},  # practises
    {"model": "tiny", "messages": DIM, "tools": TOOLS, "seed": 3},  # practises otherwise
    {"model": "tiny", "messages": LIGHT, "tools": TOOLS, "quickstudy": {"threshold": 0}},
    {"model": "tiny", "messages": HI, "quickstudy": {"method": "base"}},
    {"model": "tiny:base", "messages": HI, "temperature": 1.5, "seed": 5, "n": 2},
    {"model": "tiny:base", "messages": LIGHT, "tools": TOOLS, "logprobs": True},
    {"model": "tiny:base", "messages": HI, "stream": True},
    {"model": "tiny:base", "messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 20},
)


def said(server: Running, body: dict[str, Any]) -> Any:
    """An answer without what differs from one to the next: ids and times."""
    answer = httpx2.post(f"{server.url}/chat/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    if body.get("stream"):
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
        return "".join(delta.get("content", "") for delta in deltas)
    told = answer.json()
    for choice in told["choices"]:
        for call in choice["message"].get("tool_calls", ()):
            del call["id"]
    cycle = told["quickstudy"]
    return told["choices"], told["usage"], cycle["certainty"], cycle["practised"], cycle["notes"]


def logits(model: LanguageModel) -> torch.Tensor:
    request = Request.parse(ASK, TOOLS)
    ids = model.render(request.messages, request.tools)
    with torch.no_grad():
        found: torch.Tensor = model.network(torch.tensor([ids]), use_cache=False).logits
    return found


@pytest.fixture
def quick(start: Callable[..., Running]) -> Running:
    return start(decoding={"max_new_tokens": 60}, learning={"epochs": 1})


def test_64_mixed_requests_are_answered_as_if_each_were_alone(
    quick: Running, taught: LanguageModel
) -> None:
    before = logits(taught)
    hooks = [len(module._forward_hooks) for module in taught.network.modules()]
    alone = [said(quick, body) for body in KINDS]
    assert alone[0][3] is alone[1][3] is True  # practised
    assert alone[0] != alone[2]
    numbers = list(range(len(KINDS))) * 8
    random.Random(0).shuffle(numbers)
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda number: said(quick, KINDS[number]), numbers))
    for number, answer in zip(numbers, together, strict=True):
        assert alike(answer, alone[number]), (number, answer, alone[number])
    assert torch.equal(logits(taught), before)
    assert [len(module._forward_hooks) for module in taught.network.modules()] == hooks
    assert all(parameter.grad is None for parameter in taught.network.parameters())


@pytest.fixture
def practising(start: Callable[..., Running]) -> Running:
    """Its practice takes minutes, if nobody stops it."""
    return start(
        learning={"epochs": 100_000, "learning_rate": 1e-5},
        serve={"queue": 3, "practice_queue": 2},
    )


until = partial(waiting.until, seconds=10)


def leave_alone(server: Running, count: int = 1, **more: Any) -> list[socket.socket]:
    """Sends unsure requests and does not wait for their answers."""
    body = json.dumps({"model": "tiny", "messages": LIGHT, "tools": TOOLS, **more}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sockets = []
    for _ in range(count):
        port = int(server.host.rpartition(":")[2])
        sockets.append(socket.create_connection(("127.0.0.1", port)))
        sockets[-1].sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return sockets


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_frees_the_place(practising: Running, stream: bool) -> None:
    scheduler = practising.server.scheduler
    sockets = leave_alone(practising, 2, stream=stream)
    until(lambda: scheduler.practising == 2)
    for one in sockets:
        one.close()
    until(lambda: not scheduler.jobs)


def test_sure_requests_wait_for_one_step_of_practice(
    practising: Running, taught: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = practising.server.scheduler
    waited: Counter[Runner] = Counter()  # through so many ends of a step
    steps = [0]
    pause = scheduler.baton.pause

    def noted(runner: Runner, until: float | None = None) -> None:
        if runner.practising:
            steps[0] += 1
            waited.update(scheduler.baton._waiting)
        pause(runner, until)

    monkeypatch.setattr(scheduler.baton, "pause", noted)
    sockets = leave_alone(practising)
    until(lambda: scheduler.practising == 1)
    sure = {"model": "tiny", "messages": HI, "quickstudy": {"method": "base"}}
    told = [said(practising, sure)[0] for _ in range(5)]
    still = scheduler.practising
    sockets[0].close()
    until(lambda: not scheduler.jobs)
    assert [choices[0]["message"]["content"] for choices in told] == [GREETED] * 5
    assert still == 1
    assert steps[0] > 5, "it goes on meanwhile"
    # as a step ends whoever waits is the next to compute, and no other step comes until it is told
    assert waited
    assert set(waited.values()) == {1}


def test_over_the_queue_there_is_429(practising: Running) -> None:
    scheduler = practising.server.scheduler
    sockets = leave_alone(practising, 2)
    until(lambda: scheduler.practising == 2)
    # a third that is unsure may not wait for practice: it gets its draft
    body = {"model": "tiny", "messages": LIGHT, "tools": TOOLS}
    answer = httpx2.post(f"{practising.url}/chat/completions", json=body, timeout=20).json()
    assert "already wait for practice" in answer["quickstudy"]["fallback"]
    endless = {"model": "tiny:base", "messages": LIGHT, "max_tokens": 3000}
    sockets += leave_alone(practising, **endless)
    until(lambda: len(scheduler.jobs) == 3)
    refused = httpx2.post(f"{practising.url}/chat/completions", json=body, timeout=20)
    if refused.status_code != 200:  # the third may have come to its end
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "queue_full"
    for one in sockets:
        one.close()
    until(lambda: not scheduler.jobs)


def test_the_end(start: Callable[..., Running]) -> None:
    """What is in work finishes within the grace time; the rest is refused."""
    server = start(learning={"epochs": 30}, serve={"grace": 20})
    answers: list[httpx2.Response] = []

    def ask() -> None:
        body = {"model": "tiny", "messages": LIGHT, "tools": TOOLS}
        answers.append(httpx2.post(f"{server.url}/chat/completions", json=body, timeout=30))

    thread = threading.Thread(target=ask)
    with httpx2.Client(base_url=server.host) as client:
        client.get("/health/live")
        thread.start()
        until(lambda: server.server.scheduler.practising == 1)
        server.terminate()
        assert client.get("/health/ready").status_code == 503
        body = {"model": "tiny:base", "messages": HI}
        refused = client.post("/v1/chat/completions", json=body)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "shutting_down"
    thread.join(20)
    assert answers[0].status_code == 200
    assert answers[0].json()["quickstudy"]["practised"]
    server.thread.join(10)
    assert not server.thread.is_alive()


def test_what_does_not_finish_in_time_is_told_so(start: Callable[..., Running]) -> None:
    server = start(learning={"epochs": 100_000}, serve={"grace": 0.2})
    with ThreadPoolExecutor() as pool:
        body = {"model": "tiny", "messages": LIGHT, "tools": TOOLS}
        url = f"{server.url}/chat/completions"
        asked = pool.submit(httpx2.post, url, json=body, timeout=30)
        until(lambda: server.server.scheduler.practising == 1)
        server.terminate()
        answer = asked.result(20)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "shutting_down"
    server.thread.join(10)
    assert not server.thread.is_alive()
