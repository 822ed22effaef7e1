"""OpenAI chat completions as JSON: messages on their way out, an answer on its way in.

Text and data only; knows no network and no model. An answer is data: what cannot be read of it
is None or empty, never an exception.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn

from quickstudy.types import MAX_NESTING, Message, nesting

MOST_WORDS = 1 << 14  # characters of an answer's text that are read
_MOST_TRIES = 100  # brackets in prose before the JSON


@dataclass(frozen=True)
class Said:
    """One answer: its words without reasoning, its `tool_calls` as they came."""

    words: str
    calls: tuple[Any, ...]
    cut_off: bool


def to_wire(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as servers want them: calls have ids, and results name theirs, else in order."""
    sent: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in messages:
        wired: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            made = [f"call_{len(sent)}_{i}" for i in range(len(message.tool_calls))]
            waiting = list(message.call_ids) or made
            wired["tool_calls"] = [
                {
                    "id": identity,
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
                    },
                }
                for identity, call in zip(waiting, message.tool_calls, strict=True)
            ]
        elif message.role == "tool" and waiting:
            named = message.tool_call_id in waiting
            wired["tool_call_id"] = message.tool_call_id if named else waiting[0]
            waiting.remove(wired["tool_call_id"])
        elif message.role == "tool":  # servers refuse a result that no call asked for
            wired = {"role": "user", "content": f"Tool result: {message.content}"}
        sent.append(wired)
    return sent


def read_completion(body: object) -> Said | None:
    """The first choice of a `chat.completion`; None if that is not what it is."""
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return None
    words, calls = message.get("content"), message.get("tool_calls")
    if not isinstance(words, str | None) or not isinstance(calls, list | None):
        return None
    if nesting(calls) > MAX_NESTING:
        return None
    spoken = _utf8(_without_reasoning(words or ""))[:MOST_WORDS]
    return Said(spoken, tuple(calls or ()), choice.get("finish_reason") == "length")


def first_json(text: str, schema: Mapping[str, Any]) -> str:
    """The first JSON list (where the schema wants one) or object in a text; "" if there is none.

    It may stand in a fenced block or in prose, and comes back written on one line.
    """
    opening = r"\[" if schema.get("type") == "array" else r"\{"
    for match in islice(re.finditer(opening, text), _MOST_TRIES):
        try:
            value, _ = _DECODER.raw_decode(text, match.start())
        except ValueError:
            continue
        except RecursionError:
            break
        return "" if nesting(value) > MAX_NESTING else _utf8(json.dumps(value, ensure_ascii=False))
    return ""


def _without_reasoning(text: str) -> str:
    # some templates open the block in the prompt, so that only its end is in the answer
    text = text.rpartition("</think>")[2].strip()
    return "" if text.startswith("<think>") else text


def _utf8(text: str) -> str:
    """Half a surrogate pair, which JSON can spell and no tokenizer reads, becomes "?"."""
    return text.encode("utf-8", "replace").decode()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
