"""A teacher behind an OpenAI-compatible URL."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from quickstudy import toolcalls
from quickstudy.decoding import Deadline
from quickstudy.errors import PracticeFailed
from quickstudy.teaching.endpoint import Endpoint
from quickstudy.teaching.wire import Said, first_json, to_wire
from quickstudy.types import Message, Reply, Request

log = logging.getLogger(__name__)


class RemoteTeacher:
    """Writes practice and answers requests at an endpoint. See `Teacher`."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 60.0,
        retries: int = 2,
        max_tokens: int = 2048,
        temperature: float = 0.8,
        seed: int = 0,
        deadline: Deadline | None = None,
    ) -> None:
        """Connects to nothing yet.

        Args:
            timeout: seconds for one answer, retries included.
            max_tokens: a teacher may think before it writes, so this bounds its answers rather
                than the few tokens that `write` is asked for.

        Raises:
            ConfigError: see `endpoint.base_url`.
        """
        self.endpoint = Endpoint(base_url, model, api_key_env, timeout, retries)
        self.name = f"{model} at {self.endpoint.url}"
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.seed = seed
        self.deadline = deadline or Deadline()

    def for_request(self, seed: int, deadline: Deadline) -> RemoteTeacher:
        bound = copy.copy(self)  # shares the endpoint and what that knows of its server
        bound.seed, bound.deadline = seed, deadline
        return bound

    def write(
        self,
        dialogues: Sequence[Sequence[Message]],
        schemas: Sequence[Mapping[str, Any] | None],
        max_new_tokens: int,
        stop: str | None = "\n",
    ) -> list[str]:
        """See `Writer`. Where only some answers fail, theirs are empty texts.

        `stop` is applied here and not sent: it would end reasoning, and fenced answers.

        Raises:
            TeacherFailed: if no answer could be read.
            BudgetSpent: if the request's time ran out.
        """
        bodies = [self._body(messages, self.temperature, max_new_tokens) for messages in dialogues]
        for body, schema in zip(bodies, schemas, strict=True):
            if schema:
                wanted = {"name": "answer", "schema": dict(schema)}
                body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        texts: list[str] = []
        failures: list[PracticeFailed] = []
        for outcome, schema in zip(self.endpoint.ask(bodies, self.deadline), schemas, strict=True):
            try:
                texts.append(self._text(self._heard(outcome), schema, stop))
            except PracticeFailed as failure:
                texts.append("")
                failures.append(failure)
        if failures and len(failures) == len(texts):
            raise failures[0]
        if failures:  # what they say is not logged: a server may quote the prompt
            log.warning("%d of %d answers of the teacher failed", len(failures), len(texts))
        return texts

    def answer(self, request: Request) -> Reply:
        """See `Teacher`.

        Raises:
            TeacherFailed, BudgetSpent: see `write`.
        """
        body = self._body(request.messages, 0.0, self.max_tokens)
        if request.tools:
            body["tools"] = [tool.to_openai() for tool in request.tools]
        said = self._heard(*self.endpoint.ask([body], self.deadline))
        if said.cut_off:
            raise self._cut_off()
        if said.calls:
            # a list of OpenAI calls is JSON that `read` knows
            called, _ = toolcalls.read(json.dumps(said.calls), request.tools)
            if called.tool_calls:
                return Reply(said.words, called.tool_calls)
            raise self.endpoint.failed("makes a call that cannot be read")
        if not said.words:
            raise self.endpoint.failed("says nothing")
        return toolcalls.read(said.words, request.tools)[0]

    def _body(self, messages: Sequence[Message], temperature: float, tokens: int) -> dict[str, Any]:
        self.seed += 1  # the same dialogue asked twice shall not come out the same
        return {
            "messages": to_wire(messages),
            "temperature": temperature,
            "seed": self.seed,
            "max_tokens": max(tokens, self.max_tokens),
        }

    def _heard(self, outcome: Said | PracticeFailed) -> Said:
        if isinstance(outcome, PracticeFailed):
            raise outcome
        return outcome

    def _text(self, said: Said, schema: Mapping[str, Any] | None, stop: str | None) -> str:
        text = first_json(said.words, schema) if schema else said.words
        if text:
            return text.split(stop, 1)[0].strip() if stop else text
        if said.cut_off:
            raise self._cut_off()
        raise self.endpoint.failed("writes no JSON" if said.words else "says nothing")

    def _cut_off(self) -> PracticeFailed:
        return self.endpoint.failed(
            f"was cut off at {self.max_tokens} tokens; raise teacher.max_tokens"
        )
