"""Bodies that go out, as OpenAI spells them, and `quickstudy` beside them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quickstudy.types import Reply, ToolCall

Finish = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class TokenChance:
    """A token's text and log-probability (nats), and the likeliest other token's, if told."""

    text: str
    log_prob: float
    others: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        top = [_token(text, log_prob) for text, log_prob in self.others]
        return {**_token(self.text, self.log_prob), "top_logprobs": top}


@dataclass(frozen=True)
class Outcome:
    """One choice of an answer; `tokens` is its length."""

    reply: Reply
    finish: Finish
    tokens: int
    chances: tuple[TokenChance, ...] | None = None


@dataclass(frozen=True)
class Cycle:
    """What the field `quickstudy` of an answer says. `seconds` by stage, `queued` before them."""

    episode: str
    method: str
    certainty: float | None
    threshold: float | None
    practised: bool
    fallback: str | None
    examples: int
    queued: float
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Literal["base", "sure", "practised", "fallback"]:
        """How the answer came about, in one word."""
        if self.fallback is not None:
            return "fallback"
        if self.practised:
            return "practised"
        return "base" if self.method == "base" else "sure"

    def to_json(self) -> dict[str, Any]:
        return {
            "episode": self.episode,
            "method": self.method,
            "certainty": self.certainty,
            "threshold": self.threshold,
            "practised": self.practised,
            "fallback": self.fallback,
            "examples": self.examples,
            "notes": list(self.notes),
            "queued": round(self.queued, 4),
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
        }


@dataclass(frozen=True)
class Result:
    """A whole answer."""

    outcomes: tuple[Outcome, ...]
    prompt_tokens: int
    cycle: Cycle

    @property
    def completion_tokens(self) -> int:
        return sum(outcome.tokens for outcome in self.outcomes)

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass(frozen=True)
class Envelope:
    """What every body about one request says."""

    id: str
    model: str
    created: int

    def completion(self, result: Result) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": _message(outcome.reply),
                "logprobs": _logprobs(outcome),
                "finish_reason": outcome.finish,
            }
            for index, outcome in enumerate(result.outcomes)
        ]
        told = {"usage": result.usage, "quickstudy": result.cycle.to_json()}
        return {**self._head("chat.completion"), "choices": choices, **told}

    def piece(self, index: int, delta: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """A chunk of a stream."""
        choice = {"index": index, "delta": delta, "finish_reason": None, **more}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def last(self, result: Result, usage: bool) -> Iterator[dict[str, Any]]:
        """The chunks after the words: calls, the end of each choice, usage if wanted."""
        for index, outcome in enumerate(result.outcomes):
            if outcome.reply.reasoning:
                yield self.piece(index, {"reasoning_content": outcome.reply.reasoning})
            calls = _calls(outcome.reply.tool_calls)
            if calls:
                numbered = [{"index": i, **call} for i, call in enumerate(calls)]
                yield self.piece(index, {"tool_calls": numbered})
            if outcome.chances is not None:
                yield self.piece(index, {}, logprobs=_logprobs(outcome))
            end = self.piece(index, {}, finish_reason=outcome.finish)
            if index == len(result.outcomes) - 1:
                end["quickstudy"] = result.cycle.to_json()
            yield end
        if usage:
            head = self._head("chat.completion.chunk")
            yield {**head, "choices": [], "usage": result.usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def encode(value: object) -> bytes:
    """JSON as UTF-8; half a surrogate pair, which a client may have sent, becomes "?"."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def event(value: object) -> bytes:
    """A server-sent event."""
    return b"data: " + encode(value) + b"\n\n"


def _message(reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.content, "refusal": None}
    if reply.tool_calls:
        message["content"] = reply.content or None
        message["tool_calls"] = _calls(reply.tool_calls)
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    return message


def _calls(calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
            },
        }
        for call in calls
    ]


def _logprobs(outcome: Outcome) -> dict[str, Any] | None:
    if outcome.chances is None:
        return None
    return {"content": [chance.to_json() for chance in outcome.chances], "refusal": None}


def _token(text: str, log_prob: float) -> dict[str, Any]:
    # OpenAI's way to say "next to impossible"; JSON has no infinity
    return {
        "token": text,
        "logprob": max(log_prob, -9999.0),
        "bytes": None if "\ufffd" in text else list(text.encode("utf-8", "replace")),
    }
