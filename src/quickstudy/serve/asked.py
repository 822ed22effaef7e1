"""From a chat request's body to what the engine is to do; every limit is checked here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from quickstudy.config import ServeConfig
from quickstudy.errors import RequestError
from quickstudy.serve.faults import ApiError, invalid, unsupported
from quickstudy.serve.wire import ChatRequest, Chosen
from quickstudy.types import Request, Sampling, nesting

_COLDEST = 0.01  # a lower temperature is greedy: dividing by it would leave the numbers there are


@dataclass(frozen=True)
class Names:
    """The models the API knows: `name`, whose method is `default`, and `name:METHOD`."""

    name: str
    default: str
    methods: tuple[str, ...]

    @property
    def listed(self) -> tuple[str, ...]:
        return (self.name, *(f"{self.name}:{method}" for method in self.methods))

    def method(self, model: str) -> str:
        """Raises ApiError (404) for a name that is not listed."""
        if model not in self.listed:
            raise ApiError(
                404,
                f"there is no model {model!r} here; there are {', '.join(self.listed)}",
                param="model",
                code="model_not_found",
            )
        return self.default if model == self.name else model.removeprefix(f"{self.name}:")


@dataclass(frozen=True)
class Asked:
    """A chat request, checked. `limits` on practice are None where the server's own hold."""

    model: str
    method: str
    request: Request
    n: int
    max_tokens: int | None
    stops: tuple[str, ...]
    one_call: bool
    logprobs: int | None  # how many other tokens are told beside each; None: none is told
    schema: Mapping[str, Any] | None
    threshold: float | None
    budget_seconds: float | None
    stream: bool
    include_usage: bool


def read(body: ChatRequest, identity: str, names: Names, limits: ServeConfig) -> Asked:
    """Checks a body against what is served and against the operator's limits.

    Raises:
        ApiError: 404 for an unknown model, else 400; it names the field.
    """
    method = _method(body, names, limits)
    _check_sizes(body, limits)
    asked = Asked(
        model=body.model,
        method=method,
        request=_request(body, identity),
        n=body.n or 1,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stops=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        one_call=body.parallel_tool_calls is False,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        schema=_schema(body),
        threshold=body.quickstudy.threshold if body.quickstudy else None,
        budget_seconds=body.quickstudy.budget_seconds if body.quickstudy else None,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )
    _check_combinations(body, asked, names)
    return asked


def _method(body: ChatRequest, names: Names, limits: ServeConfig) -> str:
    method, wanted = names.method(body.model), body.quickstudy
    if wanted is None:
        return method
    given = wanted.model_dump(exclude_none=True)
    if given and not limits.overrides:
        raise unsupported(f"quickstudy.{next(iter(given))}")
    if wanted.threshold is not None and wanted.threshold > limits.max_threshold:
        raise invalid("quickstudy.threshold", f"{limits.max_threshold} is the most here")
    seconds = wanted.budget_seconds
    if seconds is not None and seconds > limits.max_budget_seconds:
        raise invalid("quickstudy.budget_seconds", f"{limits.max_budget_seconds} is the most here")
    if wanted.method is not None and wanted.method not in (names.default, *names.methods):
        raise unsupported("quickstudy.method", f"take one of {', '.join(names.methods)}")
    return wanted.method or method


def _check_sizes(body: ChatRequest, limits: ServeConfig) -> None:
    if len(body.messages) > limits.max_messages:
        raise invalid("messages", f"{limits.max_messages} is the most here")
    if len(body.tools or ()) > limits.max_tools:
        raise invalid("tools", f"{limits.max_tools} is the most here")
    for i, tool in enumerate(body.tools or ()):
        # a level of schema is two of JSON: "properties" and what is in it
        if nesting(tool.function.parameters) > 2 * limits.max_schema_depth:
            message = f"nested deeper than {limits.max_schema_depth} schemas"
            raise invalid(f"tools[{i}].function.parameters", message)
    for field in ("max_tokens", "max_completion_tokens"):
        if (getattr(body, field) or 0) > limits.max_tokens:
            raise invalid(field, f"{limits.max_tokens} is the most here")
    if (body.n or 1) > limits.max_choices:
        raise invalid("n", f"{limits.max_choices} is the most here")


def _check_combinations(body: ChatRequest, asked: Asked, names: Names) -> None:
    if asked.method != "base":
        judged = f"an answer that is judged first is one; ask {names.name}:base for it"
        for field, given in (
            ("n", asked.n > 1),
            ("logprobs", asked.logprobs is not None),
            ("response_format", asked.schema is not None),
        ):
            if given:
                raise unsupported(field, judged)
    if asked.schema is not None and asked.request.tools:
        raise unsupported("response_format", "with tools leave it out")
    if body.top_logprobs and not body.logprobs:
        raise invalid("top_logprobs", "set logprobs to true as well")
    if (asked.logprobs or 0) > 1:
        raise unsupported("top_logprobs", "only the likeliest token is known: take 0 or 1")
    if body.stream_options and not body.stream:
        raise invalid("stream_options", "set stream to true as well")


def _schema(body: ChatRequest) -> Mapping[str, Any] | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    return wanted.json_schema.schema_ if wanted.json_schema else {"type": "object"}


def _request(body: ChatRequest, identity: str) -> Request:
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    choice = body.tool_choice
    if isinstance(choice, Chosen):
        tools = [tool for tool in tools if tool["function"]["name"] == choice.function.name]
    if choice not in (None, "none", "auto") and not tools:
        raise invalid("tool_choice", "it names no tool that is listed")
    try:
        parsed = Request.parse(_messages(body), [] if choice == "none" else tools, identity)
    except RequestError as error:
        where = str(error).partition(":")[0]
        raise ApiError(400, str(error), param=where, code="invalid_value") from None
    temperature = body.temperature or 0.0
    return replace(
        parsed,
        must_call=choice not in (None, "none", "auto"),
        sampling=Sampling(
            temperature if temperature >= _COLDEST else 0.0,
            1.0 if body.top_p is None else body.top_p,
            body.seed or 0,
        ),
    )


def _messages(body: ChatRequest) -> list[dict[str, Any]]:
    """The messages, with all system messages at their head as one: templates know no second."""
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    head: list[str] = []
    while messages and messages[0]["role"] in ("system", "developer"):
        content = messages.pop(0).get("content", "")
        head.append(content if isinstance(content, str) else "".join(p["text"] for p in content))
    for message in messages:
        message["role"] = message["role"].replace("developer", "system")
    return [{"role": "system", "content": "\n\n".join(head)}, *messages] if head else messages
