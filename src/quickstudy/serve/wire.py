"""Bodies that come in, as OpenAI spells them, up to a checked `Asked`.

What is not known here is refused by name, unless it is null or says what holds anyway. Knows no
model: what the chat template or the schemas refuse is found out later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]

# fields that ask for what holds anyway
_NEUTRAL: dict[str, Sequence[Any]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "functions": ([],),
}
# labels for whoever bills or caches; no answer depends on them
_LABELS = ("user", "metadata", "safety_identifier", "prompt_cache_key")


class _Part(BaseModel):
    """A part of a message. Clients send answers back with fields that mean nothing to a model."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Text(_Part):
    type: Literal["text"]
    text: str


class CalledFunction(_Part):
    name: Name
    arguments: str | dict[str, Any] = "{}"


class Called(_Part):
    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(_Part):
    """One message; `developer` is what newer clients call `system`."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Text] | None = None
    name: str | None = None
    tool_calls: list[Called] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _knows_no_functions(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and raw.get("function_call") is not None:
            raise ValueError("function_call is not supported here; send tool_calls")
        return raw


class Function(_Part):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Listed(_Part):
    """A tool. `strict` is not read: calls are decoded under the schema anyway."""

    type: Literal["function"] = "function"
    function: Function


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ChosenFunction(_Strict):
    name: Name


class Chosen(_Strict):
    type: Literal["function"]
    function: ChosenFunction


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False  # there is none either way


class SchemaFormat(_Strict):
    name: str = "answer"
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class Format(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Format:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is wanted with type json_schema, and only there")
        return self


class Override(_Strict):
    """What a request may say about its own practice, within the operator's limits."""

    method: Literal["base", "tt-si", "tt-d", "tt-icl", "tt-si-paper"] | None = None
    threshold: float | None = Field(None, ge=0)
    budget_seconds: float | None = Field(None, gt=0)


class ChatRequest(_Strict):
    """`POST /v1/chat/completions`. Greedy unless `temperature` says otherwise."""

    model: Name
    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[Listed] | None = None
    tool_choice: Literal["none", "auto", "required"] | Chosen | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: Name | Annotated[list[Name], Field(max_length=16)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: Format | None = None
    quickstudy: Override | None = None

    @model_validator(mode="before")
    @classmethod
    def _says_nothing_more(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        known = cls.model_fields
        return {
            key: value
            for key, value in raw.items()
            if key in known
            or not (value is None or key in _LABELS or value in _NEUTRAL.get(key, ()))
        }
