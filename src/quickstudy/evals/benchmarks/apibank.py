"""API-Bank (arXiv 2304.08244) as Hammer publishes it: a dialogue, and one call that is due.

    {"query": [{"role": "user", "content": "Book a table for two at Nora's."},
               {"role": "agent", "content": "What is your name?"},
               {"role": "user", "content": "Ada."},
               {"role": "assistant", "content": "```[{\\"name\\": \\"FindGuest\\", ...}]```"},
               {"role": "tool", "content": "{'guest_id': 7}"},
               {"role": "agent", "content": "I book it now.\\nGenerate API Request:"}],
     "tools": [{"name": "BookTable", "description": "...",
                "parameters": {"guest_id": {"type": "int", "description": "..."}, ...},
                "return": {...}}],
     "answers": [{"name": "BookTable", "arguments": {"guest_id": "7", "people": "2"}}]}

Level 1 lists the tools; on level 2 a tool has to be searched for first. The role `agent` means
assistant. The ending `Generate API Request:` is stripped, and a turn that it empties is dropped.
Fenced JSON of the assistant becomes calls and `tool` turns their results, so that the model's
template renders them in its own way. Official scorer: Hammer's (`evals.official`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quickstudy.evals import official
from quickstudy.evals.benchmarks.benchmark import Benchmark, Row, hammer_file, read_tasks
from quickstudy.evals.task import Task

_ENDING = re.compile(r"\s*Generate API Request:\s*\Z")
_FENCED = re.compile(r"\s*```(?:json)?\s*(\[.*\])\s*```\s*", re.DOTALL)


def conversation(row: Row) -> Row:
    """The row with its dialogue in OpenAI form."""
    *before, last = row["query"]
    last = {**last, "content": _ENDING.sub("", last["content"])}
    messages: list[dict[str, Any]] = []
    calls: list[str] = []  # the ids of calls without a result yet
    for turn in [*before, last] if last["content"].strip() else before:
        message = _message(turn, len(messages), calls)
        if messages and messages[-1]["role"] == message["role"] == "assistant":
            _join(messages[-1], message)  # "I look it up." and the call are one turn
        else:
            messages.append(message)
    return {**row, "query": messages}


def _message(turn: Mapping[str, str], number: int, calls: list[str]) -> dict[str, Any]:
    role, content = turn["role"], turn["content"]
    fenced = _FENCED.fullmatch(content)
    if role == "assistant" and fenced:
        made = [
            {"id": f"call_{number}_{i}", "type": "function", "function": function}
            for i, function in enumerate(json.loads(fenced[1]))
        ]
        calls += [call["id"] for call in made]
        return {"role": "assistant", "content": "", "tool_calls": made}
    if role == "tool":
        return {"role": "tool", "content": content, "tool_call_id": calls.pop(0) if calls else ""}
    return {"role": "assistant" if role == "agent" else role, "content": content}


def _join(turn: dict[str, Any], more: dict[str, Any]) -> None:
    turn["content"] = "\n".join(filter(None, (turn["content"], more["content"])))
    turn.setdefault("tool_calls", []).extend(more.get("tool_calls", ()))


FILE_1 = hammer_file(
    "apibank_l1.json",
    399,
    "b6c129cd887da3e1965479bdbe56170adc0d315567c6a716a7c493de26887f19",
    conversation,
)
FILE_2 = hammer_file(
    "apibank_l2.json",
    127,
    "7476f8a5a514c64498de6ae0f457b0b342ba3571d08a556447dafad8d0be6544",
    conversation,
)


def load_1(folder: Path) -> list[Task]:
    return read_tasks(folder, FILE_1)


def load_2(folder: Path) -> list[Task]:
    return read_tasks(folder, FILE_2)


def load(folder: Path) -> list[Task]:
    return load_1(folder) + load_2(folder)


LEVEL_1 = Benchmark("apibank_l1", 399, (FILE_1,), load_1, official.hammer)
LEVEL_2 = Benchmark("apibank_l2", 127, (FILE_2,), load_2, official.hammer)
BENCHMARK = Benchmark("apibank", 526, (FILE_1, FILE_2), load, official.hammer)
