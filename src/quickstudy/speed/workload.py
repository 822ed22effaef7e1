"""What is timed: fixed requests under fixed tool lists, and fixed practice for each list.

A row of `data/speed.jsonl` is a tool list with requests that are answered under it, all with the
calls that answer them:

    {"name": "short", "tools": [...], "requests": [{"text": "Convert 250 USD to JPY.",
     "calls": [{"name": "convert_currency", "arguments": {...}}]}], "practice": [...]}

`short`, `middle` and `long` begin with about 400, 1,500 and 3,000 tokens that their requests
share (Qwen2.5's tokenizer); each `list-...` has one request under a tool list of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from quickstudy import toolcalls
from quickstudy.learning.practice import Lesson
from quickstudy.model import Context, LanguageModel, Prefix
from quickstudy.types import Example, Request, ToolCall

LENGTHS = ("short", "middle", "long")
PRACTICE = 4  # fixed examples a tool list at most


@dataclass(frozen=True)
class Scenario:
    """One tool list: requests under it, the calls that answer them, practice examples."""

    name: str
    requests: tuple[Request, ...]
    calls: tuple[tuple[ToolCall, ...], ...]
    practice: tuple[Example, ...]


def scenarios() -> dict[str, Scenario]:
    """All tool lists by name, in the order of the file."""
    text = resources.files("quickstudy").joinpath("data/speed.jsonl").read_text(encoding="utf-8")
    read = [_scenario(json.loads(line)) for line in text.splitlines()]
    return {scenario.name: scenario for scenario in read}


def different() -> tuple[Request, ...]:
    """Eight requests, each under a tool list of its own."""
    found = scenarios().values()
    return tuple(s.requests[0] for s in found if s.name.startswith("list-"))


def fits(model: LanguageModel, scenario: Scenario, spare: int) -> bool:
    """Whether the model can read every request and `spare` tokens more."""
    longest = max(len(model.render(r.messages, r.tools)) for r in scenario.requests)
    return longest + spare < model.context_length


def lessons(model: LanguageModel, context: Context, examples: Sequence[Example]) -> list[Lesson]:
    """Practice examples as tokens that follow the context's prefix, as the cycle tells them."""
    call_format = model.call_formats[0]
    told = []
    for example in examples:
        turn = model.turn(context, example.messages, call_format)
        assert turn is not None, "fixed practice begins with its tool list"
        text = toolcalls.write(example.tool_calls, call_format, context.request.tools)
        told.append(Lesson(turn, model.answer_ids(text, context.thinking)))
    return told


def sequences(prefix: Prefix, told: Sequence[Lesson]) -> list[Lesson]:
    """Lessons that follow a prefix as whole sequences, with the prefix in each turn."""
    return [Lesson((*prefix.ids, *lesson.turn), lesson.answer) for lesson in told]


def _scenario(row: dict[str, Any]) -> Scenario:
    tools = row["tools"]
    requests = [
        Request.parse(asked["text"], tools, f"{row['name']}-{number}")
        for number, asked in enumerate(row["requests"])
    ]
    practice = [
        Example(Request.parse(asked["text"]).messages, _calls(asked), "fixed")
        for asked in row["practice"]
    ]
    calls = tuple(_calls(asked) for asked in row["requests"])
    return Scenario(row["name"], tuple(requests), calls, tuple(practice))


def _calls(asked: dict[str, Any]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(call["name"], call["arguments"]) for call in asked["calls"])
