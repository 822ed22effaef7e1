"""Asks the model to write parts of practice: fresh values, arguments, requests.

Small models asked under a system prompt that demands JSON write JSON where a sentence is
wanted, so each kind of writing has a short few-shot dialogue of its own (`prompts/`), without
tools. All that is asked at once is decoded as one batch. What comes back is unverified text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from quickstudy import prompts
from quickstudy.decoding import Ask, Deadline, Decoder
from quickstudy.prompts import dialogue
from quickstudy.toolcalls import value_grammar
from quickstudy.types import Message, Tool, ToolCall


class Writer(Protocol):
    """Continues dialogues: the model itself (TT-SI) or a teacher (TT-D)."""

    def write(
        self,
        dialogues: Sequence[Sequence[Message]],
        schemas: Sequence[Mapping[str, Any] | None],
        max_new_tokens: int,
        stop: str | None = "\n",
    ) -> list[str]:
        """The assistant's next turn of each dialogue, sampled, cut off at `stop`.

        Args:
            schemas: where one is given, the text is wanted as JSON under it. A teacher may not
                keep to it, so what comes back is unverified all the same.
        """
        ...


class OwnWriter:
    """The model itself writes, sampled from one seeded generator, all dialogues in one batch."""

    def __init__(self, decoder: Decoder, temperature: float, seed: int, deadline: Deadline) -> None:
        self.decoder = decoder
        self.temperature = temperature
        self.generator = torch.Generator().manual_seed(seed)
        self.deadline = deadline

    def write(
        self,
        dialogues: Sequence[Sequence[Message]],
        schemas: Sequence[Mapping[str, Any] | None],
        max_new_tokens: int,
        stop: str | None = "\n",
    ) -> list[str]:
        model = self.decoder.model
        rendered = [model.render(messages, ()) for messages in dialogues]
        prefix = None
        if all(prompts.is_fixed(messages) for messages in dialogues):
            another = model.render([*dialogues[0][:-1], Message("user", "?")], ())
            prefix = self.decoder.fixed_prefix([*rendered, another])
        turns = [prompt[len(prefix.ids) if prefix else 0 :] for prompt in rendered]
        asks = [
            # a sentence often goes on as the one it is to be like
            Ask(turn, value_grammar(schema) if schema else None, likely=turn)
            for turn, schema in zip(turns, schemas, strict=True)
        ]
        written = self.decoder.decode(
            prefix,
            asks,
            max_new_tokens=max_new_tokens,
            deadline=self.deadline,
            temperature=self.temperature,
            generator=self.generator,
            stop=stop,
        )
        return [generation.text.strip() for generation in written]


class Author:
    """Asks a writer for the parts of practice."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def values(self, asks: Sequence[tuple[str, Tool, str]]) -> list[list[str]]:
        """For each (argument, tool, value): other values of the same kind, best first."""
        dialogues = []
        for name, tool, value in asks:
            described = _described(tool.properties.get(name)) or tool.description
            dialogues.append(dialogue("values", name=name, description=described, value=value))
        lines = self._write(dialogues, [None] * len(asks), max_new_tokens=24)
        return [
            [part for piece in _whole(line.split(";")) if (part := piece.strip(' ."'))]
            for line in lines
        ]

    def arguments(self, asks: Sequence[tuple[Tool, Sequence[str], str]]) -> list[dict[str, Any]]:
        """For each (tool, argument names, values to avoid): an arguments object, or {}."""
        dialogues, schemas = [], []
        for tool, names, avoid in asks:
            properties = {n: tool.properties[n] for n in names if n in tool.properties}
            dialogues.append(dialogue("arguments", tool=tool, properties=properties, avoid=avoid))
            schema = {
                **tool.parameters,
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
            schemas.append(schema)
        texts = self._write(dialogues, schemas, max_new_tokens=96)
        return [_object(text) for text in texts]

    def requests(
        self, calls: Sequence[ToolCall], tools: Mapping[str, Tool], own: ToolCall, own_request: str
    ) -> list[str]:
        """For each call: a sentence a user might have said, in the style of `own_request`."""
        dialogues = [
            dialogue(
                "request",
                own_call=_told(own, tools),
                own_request=own_request,
                call=_told(call, tools),
            )
            for call in calls
        ]
        return self._write(dialogues, [None] * len(calls), max_new_tokens=64)

    def _write(
        self,
        dialogues: Sequence[Sequence[Message]],
        schemas: Sequence[Mapping[str, Any] | None],
        max_new_tokens: int,
    ) -> list[str]:
        return self.writer.write(dialogues, schemas, max_new_tokens) if dialogues else []


def _whole(pieces: list[str]) -> list[str]:
    """Without the last one if it may have been cut off; the only one stays."""
    whole = pieces[-1].rstrip().endswith(".") or len(pieces) == 3  # three were asked for
    return pieces if whole else pieces[:-1] or pieces


def _told(call: ToolCall, tools: Mapping[str, Tool]) -> str:
    tool = tools.get(call.name)
    described = f" ({tool.description})" if tool and tool.description else ""
    arguments = ", ".join(
        f"{name} = {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in call.arguments.items()
    )
    return f"{call.name}{described}: {arguments or 'no arguments'}"


def _described(schema: object) -> str:
    return str(schema.get("description", "")) if isinstance(schema, Mapping) else ""


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
