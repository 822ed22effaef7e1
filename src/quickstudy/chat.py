"""A model's chat template: conversations to text, and what the template tells of the model.

Templates are programs: they refuse what they do not like, and leave out what they do not know.
A conversation is therefore told in one of several *styles*, the first that the template takes:

    native     as it is: tools, calls and tool results in the template's own way
    numbered   with fresh ids of nine letters (Mistral's templates insist on that length)
    single     several calls of one turn become a turn each (Llama 3.x knows one call a turn)
    told       tools, past calls and tool results in plain words
    merged     told, and neighbouring turns of one role become one (Gemma wants them to alternate)

Knows the tokenizer but no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, get_args

from quickstudy.errors import RequestError
from quickstudy.prompts import dialogue
from quickstudy.toolcalls import COMMON_FORMATS, CallFormat, ReasoningStart, write
from quickstudy.types import Message, Tool

Style = Literal["native", "numbered", "single", "told", "merged"]
STYLES: tuple[Style, ...] = get_args(Style)
_PYTHON_CALLS = re.compile(r"func_name|<\|python_start\|>|```tool_code|pythonic")
_LLAMA_CALLS = re.compile(r"<\|python_tag\|>|\\?\"parameters\\?\": dictionary of argument name")


class Chat:
    """Renders conversations with a tokenizer's chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def knows_tools(self) -> bool:
        """The template lists tools."""
        probe = Tool("probe_tool", "", {"type": "object", "properties": {}})
        return "probe_tool" in self._probe([{"role": "user", "content": "x"}], tools=[probe])

    @cached_property
    def takes_system(self) -> bool:
        """The template has a place for a system prompt."""
        ask = [{"role": "system", "content": "probe_system"}, {"role": "user", "content": "x"}]
        return "probe_system" in self._probe(ask)

    @cached_property
    def turn_end(self) -> str:
        """What the template writes behind an assistant's answer; empty if it writes nothing."""
        told = self._probe(
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": "probe_answer"}],
            prompt=False,
        )
        return told.rpartition("probe_answer")[2] if "probe_answer" in told else ""

    @cached_property
    def call_formats(self) -> tuple[CallFormat, ...]:
        """Formats offered to the model: the common ones, and those its template or tokens name."""
        source = str(self.tokenizer.chat_template)
        tokens = {str(token) for token in self.tokenizer.added_tokens_decoder.values()}
        own: list[CallFormat] = []
        if _LLAMA_CALLS.search(source) or "<|python_tag|>" in tokens:
            own.append("llama")
        if _PYTHON_CALLS.search(source) or "<|python_start|>" in tokens:
            own.append("python")
        if "[TOOL_CALLS]" in source:
            own.append("mistral-args" if "[ARGS]" in source else "mistral")
        elif "[TOOL_CALLS]" in tokens:
            own.append("mistral-args" if "[ARGS]" in tokens else "mistral")
        return (*COMMON_FORMATS, *own)

    def reasoning_start(self, thinking: bool) -> ReasoningStart:
        """How an answer to a prompt of this template may begin."""
        return self._reasoning[thinking]

    @cached_property
    def _reasoning(self) -> dict[bool, ReasoningStart]:
        tokens = {str(token) for token in self.tokenizer.added_tokens_decoder.values()}
        known = "<think>" in tokens or "<think>" in str(self.tokenizer.chat_template)
        starts: dict[bool, ReasoningStart] = {}
        for thinking in (False, True):
            prompt = self._probe([{"role": "user", "content": "x"}], thinking=thinking).rstrip()
            if prompt.endswith("<think>"):
                starts[thinking] = "opened"
            elif prompt.endswith("</think>") or not known:
                starts[thinking] = "none"
            else:
                starts[thinking] = "optional"
        return starts

    def styles(self, tools: Sequence[Tool]) -> tuple[Style, ...]:
        """The styles that can be tried, the best first."""
        return STYLES[3:] if tools and not self.knows_tools else STYLES

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        style: Style,
        call_format: CallFormat = "json",
        thinking: bool = False,
    ) -> str:
        """The prompt's text, up to where the assistant begins.

        Args:
            call_format: how past calls are written where they are told in words.

        Raises:
            RequestError: if the template refuses.
        """
        if style in ("told", "merged"):
            messages = list(_told(messages, tools, call_format))
            tools = ()
        if style == "single":
            messages = list(_one_call_a_turn(messages))
        if style == "merged":
            messages = list(_merged(messages))
        if messages[0].role == "system" and not self.takes_system:
            messages = list(_without_system(messages))
        numbered = _numbered(messages, fresh=style == "numbered")
        return self._apply([m.to_openai() for m in numbered], tools, thinking=thinking)

    def _probe(
        self,
        messages: list[dict[str, Any]],
        tools: Sequence[Tool] = (),
        prompt: bool = True,
        thinking: bool = False,
    ) -> str:
        try:
            return self._apply(messages, tools, prompt, thinking)
        except RequestError:
            return ""

    def _apply(
        self,
        messages: list[dict[str, Any]],
        tools: Sequence[Tool],
        prompt: bool = True,
        thinking: bool = False,
    ) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    tools=[tool.to_openai() for tool in tools] or None,
                    add_generation_prompt=prompt,
                    tokenize=False,
                    enable_thinking=thinking,
                )
            )
        except Exception as error:  # templates are programs and raise what they like
            raise RequestError(
                f"the model's chat template refuses the messages: {error}"
            ) from error


def _told(
    messages: Sequence[Message], tools: Sequence[Tool], call_format: CallFormat
) -> Iterator[Message]:
    """Tools, past calls and results in words, for templates that know none of them."""
    rest = list(messages)
    if tools:
        told = dialogue("tools", tools=[tool.to_openai()["function"] for tool in tools])
        if rest[0].role == "system":
            told[0] = Message("system", f"{rest.pop(0).content}\n\n{told[0].content}")
        yield from told
    for message in rest:
        if message.tool_calls:
            calls = write(message.tool_calls, call_format, tools)
            yield Message("assistant", f"{message.content}\n{calls}".strip())
        elif message.role == "tool":
            yield Message("user", f"Tool result: {message.content}")
        else:
            yield message


def _one_call_a_turn(messages: Sequence[Message]) -> Iterator[Message]:
    """Each call in a turn of its own, followed by its result."""
    waiting: list[tuple[str, Message]] = []
    for message in _numbered(messages, fresh=False):
        if len(message.tool_calls) > 1:
            yield from (turn for _, turn in waiting)
            waiting = [
                (call_id, replace(message, tool_calls=(call,), call_ids=(call_id,),
                                  content="" if i else message.content))
                for i, (call, call_id) in enumerate(
                    zip(message.tool_calls, message.call_ids, strict=True)
                )
            ]  # fmt: skip
            continue
        if message.role == "tool":
            called = next((pair for pair in waiting if pair[0] == message.tool_call_id), None)
            if called:
                waiting.remove(called)
                yield called[1]
        elif waiting:
            yield from (turn for _, turn in waiting)
            waiting = []
        yield message
    yield from (turn for _, turn in waiting)


def _merged(messages: Sequence[Message]) -> Iterator[Message]:
    """Neighbouring turns of one role as one turn."""
    last: Message | None = None
    for message in messages:
        if last is not None and last.role == message.role:
            last = replace(last, content=f"{last.content}\n\n{message.content}")
            continue
        if last is not None:
            yield last
        last = message
    if last is not None:
        yield last


def _without_system(messages: Sequence[Message]) -> Iterator[Message]:
    """The system prompt as the beginning of the first user turn."""
    system, *rest = messages
    at = next((i for i, message in enumerate(rest) if message.role == "user"), None)
    if at is None:
        yield Message("user", system.content)
    for i, message in enumerate(rest):
        if i == at:
            message = replace(message, content=f"{system.content}\n\n{message.content}")
        yield message


def _numbered(messages: Sequence[Message], fresh: bool) -> Iterator[Message]:
    """Every call with an id and every result with its call's id and name.

    Ids of nine letters are made where there are none, or for all if `fresh`.
    """
    count, waiting = 0, []
    renamed: dict[str, str] = {}
    names: dict[str, str] = {}
    for message in messages:
        if message.tool_calls:
            ids = []
            for i, call in enumerate(message.tool_calls):
                own = message.call_ids[i] if message.call_ids else ""
                call_id = f"call{count:05d}" if fresh or not own else own
                count += 1
                renamed[own or call_id] = call_id
                names[call_id] = call.name
                ids.append(call_id)
            waiting += ids
            message = replace(message, call_ids=tuple(ids))
        elif message.role == "tool":
            call_id = renamed.get(message.tool_call_id, message.tool_call_id)
            if not call_id and waiting:
                call_id = waiting[0]
            if call_id in waiting:
                waiting.remove(call_id)
            name = message.name or names.get(call_id, "")
            message = replace(message, tool_call_id=call_id, name=name)
        yield message
