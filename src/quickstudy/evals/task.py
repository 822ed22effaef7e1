"""Benchmark rows as requests with a gold answer.

A row of the tool-calling benchmarks looks like

    {"query": "Tell me the engagement metrics for the Facebook post with the ID ...",
     "tools": [{"name": "retrievePostMetrics", "description": "...",
                "parameters": {"platform": {"type": "str", "required": true, ...}}}],
     "answers": [{"name": "getSocialMediaEngagement", "arguments": {"platform": "Facebook"}}]}

where a type is spelt in several ways. Rows in OpenAI form (`messages`, `tools`, `expected`) are
read as well; the demonstration ships such rows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from quickstudy.errors import RequestError
from quickstudy.types import Message, Request, ToolCall

_TYPES = {
    "str": "string", "string": "string", "text": "string", "char": "string",
    "int": "integer", "integer": "integer", "long": "integer",
    "float": "number", "number": "number", "double": "number",
    "bool": "boolean", "boolean": "boolean",
    "list": "array", "array": "array", "tuple": "array", "set": "array",
    "dict": "object", "object": "object",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A request and the set of calls that answers it (empty: no tool fits).

    `ignored` are arguments left out of the comparison, because nobody can give them.
    `ungradable` says why no answer to the row can be graded; such a row counts as unscored.
    """

    request: Request
    gold: tuple[ToolCall, ...]
    ignored: frozenset[str] = frozenset()
    ungradable: str | None = None

    @property
    def id(self) -> str:
        return str(self.request.id)

    @cached_property
    def query(self) -> str:
        """The same for rows that ask the same: what a bootstrap draws by. Tells nothing itself."""
        said = [message.to_openai() for message in self.request.messages]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def verbatim(self) -> bool:
        """Every gold value that is compared stands word for word in the conversation."""
        said = "\n".join(_said(message) for message in self.request.messages)
        return all(
            str(value) in said
            for call in self.gold
            for name, value in call.arguments.items()
            if name not in self.ignored
        )


def _said(message: Message) -> str:
    values = [value for call in message.tool_calls for value in call.arguments.values()]
    return "\n".join([message.content, *map(str, values)])


def sample(tasks: Sequence[Task], limit: int | None, seed: int, offset: int = 0) -> list[Task]:
    """The first `limit` tasks of a seeded order, after `offset` of them: the same for everybody.

    With an offset the tasks are fresh: no query is among them that a task before them asks. The
    order depends on seed and ids alone, not on Python's version or on what else is in the list.
    """
    order = sorted(tasks, key=lambda task: hashlib.sha256(f"{seed} {task.id}".encode()).digest())
    used = {task.query for task in order[:offset]}
    return [task for task in order[offset:] if task.query not in used][:limit]


def load(path: Path) -> list[Task]:
    """Reads a JSON list or JSON lines of rows.

    Raises:
        RequestError: names the file and the row.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if text.lstrip().startswith("[") else None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"cannot read {path}: {error}") from error
    # not splitlines(): it also splits at U+2028 and U+0085, which JSON strings may hold
    lines = [line for line in text.split("\n") if line.strip()] if rows is None else []
    tasks = []
    for number, row in enumerate(lines if rows is None else rows, 1):
        try:
            tasks.append(parse(json.loads(row) if rows is None else row, number))
        except RequestError as error:
            raise RequestError(f"{path}, row {number}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}"
            raise RequestError(f"{path}, row {number}: no benchmark row: {what}") from error
    return tasks


def parse(row: Mapping[str, Any], number: int) -> Task:
    identity = row.get("id", number)
    if "expected" in row:
        request = Request.parse(row["messages"], row.get("tools"), identity)
        gold = row["expected"]
    else:
        request = Request.parse(row["query"], [_tool(t) for t in row["tools"]], identity)
        gold = row["answers"]
    calls = [_call(raw) for raw in gold]
    message = Message.parse({"role": "assistant", "tool_calls": calls}, "gold")
    return Task(request, message.tool_calls)


def _call(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A gold call in OpenAI form."""
    raw = raw.get("function", raw)
    name = raw["name"] if "name" in raw else raw["tool"]
    return {"name": name, "arguments": raw.get("arguments", raw.get("parameters"))}


def _tool(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A benchmark's tool in OpenAI form."""
    properties, required = {}, list(raw.get("required") or ())
    for name, schema in (raw.get("parameters") or {}).items():
        properties[name] = _schema(schema)
        if schema.get("required") is True and name not in required:
            required.append(name)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    return {
        "name": raw["name"],
        "description": raw.get("description", ""),
        "parameters": parameters,
    }


def _schema(raw: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    kind = _TYPES.get(re.split(r"[\[(<]", str(raw.get("type", "")))[0].strip().lower())
    if kind:
        schema["type"] = kind
    for key in ("description", "enum", "items", "minimum", "maximum"):
        if raw.get(key) not in (None, ""):
            schema[key] = raw[key]
    if raw.get("default") is not None:
        schema["default"] = raw["default"]
    return schema
