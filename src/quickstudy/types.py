"""The nouns of quickstudy: frozen values, parsed once at the edge.

Knows nothing about models or torch. Outside JSON (OpenAI chat format) becomes a `Request` in
`Request.parse`; an `Answer` becomes JSON again in `Answer.to_json`. Between the two there are
no loose dicts but the two that are data by nature: a tool's JSON Schema and a call's arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from quickstudy.errors import RequestError
from quickstudy.schemas import check_references

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
MAX_NESTING = 64  # of JSON from outside; what is deeper runs into Python's recursion limit


@dataclass(frozen=True)
class ToolCall:
    """One call of one tool; `arguments` are plain JSON values and are never changed in place."""

    name: str
    arguments: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "arguments": dict(self.arguments)}


@dataclass(frozen=True)
class Tool:
    """A tool the request lists. `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Any]:
        return cast(Mapping[str, Any], self.parameters.get("properties", {}))

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self.parameters.get("required", ()))

    def to_openai(self) -> dict[str, Any]:
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": function}

    @classmethod
    def parse(cls, raw: object, where: str = "tools") -> Tool:
        """Reads OpenAI's `{"type": "function", "function": {...}}` or the bare inner object."""
        if isinstance(raw, Mapping) and isinstance(raw.get("function"), Mapping):
            raw = raw["function"]
        if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str) or not raw["name"]:
            raise RequestError(
                f'{where}: expected {{"type": "function", "function": {{"name": ...}}}}, '
                f"got {_short(raw)}"
            )
        name = raw["name"]
        _check_json(raw, where)
        parameters = raw.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(parameters, Mapping):
            raise RequestError(f"{where}: parameters of {name!r} must be a JSON Schema object")
        try:
            _check_schema(json.dumps(parameters))
            check_references(parameters, f"{where}: parameters of {name!r}")
        except SchemaError as error:
            spot = ".".join(str(step) for step in error.absolute_path) or "the top"
            raise RequestError(
                f"{where}: parameters of {name!r} are no JSON Schema (at {spot}): {error.message}"
            ) from error
        except (RecursionError, OverflowError) as error:  # nested too deep; a{99999999999}
            raise RequestError(f"{where}: parameters of {name!r}: {error}") from error
        if parameters.get("type", "object") != "object":
            raise RequestError(
                f'{where}: parameters of {name!r} must have "type": "object", '
                f"got {parameters.get('type')!r}"
            )
        return cls(name, str(raw.get("description") or ""), dict(parameters))


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    `call_ids` are the ids of `tool_calls`, one each, or nothing; `tool_call_id` and `name` say
    which call, of which tool, a tool message is the result of.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    call_ids: tuple[str, ...] = ()
    tool_call_id: str = ""
    name: str = ""

    @classmethod
    def parse(cls, raw: object, where: str = "messages") -> Message:
        if not isinstance(raw, Mapping):
            raise RequestError(f"{where}: expected an object with role and content")
        _check_json(raw, where)
        role = raw.get("role")
        if role not in ROLES:
            raise RequestError(f"{where}: unknown role {role!r}; use one of {', '.join(ROLES)}")
        calls = raw.get("tool_calls") or ()
        if not isinstance(calls, Sequence) or isinstance(calls, str):
            raise RequestError(f"{where}: tool_calls must be a list")
        parsed = tuple(
            _parse_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)
        )
        ids = tuple(_parse_label(call, "id", where) for call in calls)
        return cls(
            role,
            _parse_content(raw.get("content"), where),
            parsed,
            ids if all(ids) else (),
            _parse_label(raw, "tool_call_id", where) if role == "tool" else "",
            _parse_label(raw, "name", where) if role == "tool" else "",
        )

    def to_openai(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [
                {"type": "function", "function": call.to_json()} for call in self.tool_calls
            ]
            for call, call_id in zip(message["tool_calls"], self.call_ids, strict=False):
                call["id"] = call_id
        for key in ("tool_call_id", "name"):
            if value := getattr(self, key):
                message[key] = value
        return message


@dataclass(frozen=True)
class Sampling:
    """How the tokens of the given answer are drawn: the likeliest ones unless told otherwise."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Request:
    """A conversation that waits for the assistant's next turn, and the tools it may call.

    `must_call`: plain words are no answer. `sampling` is that of the answer that is given; the
    draft that is judged, and falls back to, is the likeliest one.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    id: str | int | None = None
    choices: tuple[str, ...] = ()  # the answers to choose from; empty: any answer
    must_call: bool = False
    sampling: Sampling = Sampling()

    @classmethod
    def parse(
        cls,
        messages: object,
        tools: object = None,
        id: str | int | None = None,
        choices: object = None,
    ) -> Request:
        """Reads OpenAI chat JSON; `choices`, which OpenAI does not know, as a list of texts.

        Raises:
            RequestError: with the place of the first thing that is wrong.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not isinstance(messages, Sequence) or not messages:
            raise RequestError(
                'messages: expected a non-empty list like [{"role": "user", "content": "..."}]'
            )
        if tools is not None and (not isinstance(tools, Sequence) or isinstance(tools, str)):
            raise RequestError("tools: expected a list")
        parsed_tools = tuple(Tool.parse(t, f"tools[{i}]") for i, t in enumerate(tools or ()))
        names = [tool.name for tool in parsed_tools]
        for name in names:
            if names.count(name) > 1:
                raise RequestError(f"tools: {name!r} is listed twice; give each tool its own name")
        parsed = tuple(Message.parse(m, f"messages[{i}]") for i, m in enumerate(messages))
        if all(message.role == "system" for message in parsed):
            raise RequestError("messages: there is no turn to answer; add a user message")
        if any(message.role == "system" for message in parsed[1:]):
            raise RequestError("messages: a system message must come first")
        return cls(parsed, parsed_tools, id, _parse_choices(choices))

    @property
    def user_text(self) -> str:
        """All that was said to the model: user turns and tool results, a line each."""
        return "\n".join(m.content for m in self.messages if m.role in ("user", "tool"))

    @property
    def others_text(self) -> str:
        """What system and assistant said, the values of past calls included, a line each."""
        others = [m for m in self.messages if m.role in ("system", "assistant")]
        return "\n".join(
            part
            for message in others
            for part in (
                message.content,
                *(str(v) for c in message.tool_calls for v in c.arguments.values()),
            )
        )

    def tool(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)


@dataclass(frozen=True)
class Reply:
    """What the model said: plain words, tool calls, or both; and what it thought before."""

    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""

    def to_json(self) -> dict[str, Any]:
        """`reasoning` is told only where there is any."""
        thought = {"reasoning": self.reasoning} if self.reasoning else {}
        return {
            "content": self.content,
            "tool_calls": [call.to_json() for call in self.tool_calls],
            **thought,
        }


@dataclass(frozen=True)
class Candidate:
    """A rival answer that awareness weighed.

    `log_prob` in nats: summed or mean over its tokens, or the log of its share of the samples.
    """

    text: str
    log_prob: float

    def to_json(self) -> dict[str, Any]:
        # JSON has no infinity: an impossible candidate is written as null
        log_prob = self.log_prob if self.log_prob > float("-inf") else None
        return {"text": self.text, "log_prob": log_prob}


@dataclass(frozen=True)
class Certainty:
    """`value` is the paper's u in [0, 1], high when the model is sure."""

    value: float
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class Example:
    """A practice problem: a conversation like the user's and its answer, in calls or words."""

    messages: tuple[Message, ...]
    tool_calls: tuple[ToolCall, ...]
    source: str
    content: str = ""

    @property
    def user_text(self) -> str:
        return "\n".join(m.content for m in self.messages if m.role in ("user", "tool"))

    def to_json(self) -> dict[str, Any]:
        return {
            "request": self.messages[-1].content
            if self.messages[-1].role == "user"
            else self.user_text,
            "content": self.content,
            "tool_calls": [call.to_json() for call in self.tool_calls],
            "source": self.source,
        }


@dataclass(frozen=True)
class Rejected:
    """An example that was not practised, and why."""

    example: Example
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {**self.example.to_json(), "reason": self.reason}


STAGES = ("prefill", "draft", "awareness", "synthesis", "practice", "answer", "reset")


@dataclass(frozen=True)
class Episode:
    """The record of one request's cycle.

    `practised`: the answer was given under practice, in the weights or (tt-icl) in the context.
    `repaired`: what `repair` changed in the answer. `notes`: what else a reader should know (the
    teacher failed, practice came from memory). `seconds` has the stages that ran (`to_json`
    fills 0).
    """

    method: str
    certainty: float | None
    threshold: float
    practised: bool
    fallback: str | None
    draft: Reply
    candidates: tuple[Candidate, ...] = ()
    examples: tuple[Example, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    losses: tuple[float, ...] = ()
    repaired: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "certainty": self.certainty,
            "threshold": self.threshold,
            "practised": self.practised,
            "fallback": self.fallback,
            "draft": self.draft.to_json(),
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "examples": [example.to_json() for example in self.examples],
            "rejected": [rejected.to_json() for rejected in self.rejected],
            "losses": list(self.losses),
            "repaired": list(self.repaired),
            "notes": list(self.notes),
            "seconds": {stage: round(self.seconds.get(stage, 0.0), 4) for stage in STAGES},
        }


@dataclass(frozen=True)
class Answer:
    """The reply to give, and how it came about."""

    content: str
    tool_calls: tuple[ToolCall, ...]
    episode: Episode
    id: str | int | None = None
    reasoning: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            **Reply(self.content, self.tool_calls, self.reasoning).to_json(),
            "episode": self.episode.to_json(),
        }


def _parse_choices(raw: object) -> tuple[str, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, Sequence) or isinstance(raw, str) or len(raw) < 2:
        raise RequestError(
            f'choices: expected a list of two or more answers like ["A", "B"], got {_short(raw)}'
        )
    for number, choice in enumerate(raw):
        if not isinstance(choice, str) or not choice.strip():
            raise RequestError(f"choices[{number}]: expected text, got {_short(choice)}")
        if choice in raw[:number]:
            raise RequestError(f"choices: {_short(choice)} is listed twice")
    _check_json(raw, "choices")
    return tuple(raw)


def _parse_content(raw: object, where: str) -> str:
    if raw is None:
        return ""
    if isinstance(raw, str):
        return raw
    # OpenAI also spells content as a list of parts; only text parts can be read by a text model
    if isinstance(raw, Sequence) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in raw
    ):
        return "".join(part["text"] for part in raw)
    raise RequestError(f"{where}: content must be text, got {_short(raw)}")


def _parse_label(raw: object, key: str, where: str) -> str:
    """An id or a name, empty if there is none."""
    value = raw.get(key) if isinstance(raw, Mapping) else None
    if value is not None and not isinstance(value, str):
        raise RequestError(f"{where}: {key} must be text, got {_short(value)}")
    return value or ""


def _parse_call(raw: object, where: str) -> ToolCall:
    if isinstance(raw, Mapping) and isinstance(raw.get("function"), Mapping):
        raw = raw["function"]
    if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str):
        raise RequestError(f"{where}: expected a call with a name, got {_short(raw)}")
    arguments = raw.get("arguments") or {}
    if isinstance(arguments, str):  # OpenAI sends arguments as a JSON string
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{where}: arguments are no JSON: {error}") from error
        _check_json(arguments, where)
    if not isinstance(arguments, Mapping):
        raise RequestError(f"{where}: arguments must be an object, got {_short(arguments)}")
    return ToolCall(raw["name"], dict(arguments))


def nesting(value: object) -> int:
    """How deep lists and objects are nested, counted to one more than MAX_NESTING."""
    level, depth = [value], -1
    while level and depth <= MAX_NESTING:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, list | tuple | Mapping)
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
    return depth


@lru_cache(maxsize=4096)
def _check_schema(schema: str) -> None:
    """Cached: it takes milliseconds, and the same tools come with request after request."""
    Draft202012Validator.check_schema(json.loads(schema))


def _check_json(value: object, where: str) -> None:
    """Refuses what JSON in UTF-8 cannot hold (NaN, half a surrogate pair) and deep nesting."""
    if nesting(value) > MAX_NESTING:
        raise RequestError(f"{where}: nested more than {MAX_NESTING} deep")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False, default=dict).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"{where}: cannot be written as JSON: {error}") from error


def _short(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
