"""Requests from JSON text: one object, a list, or JSON lines. Bad ones become errors, not stops."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quickstudy.errors import RequestError
from quickstudy.types import Request

_KNOWN = frozenset({"id", "messages", "tools", "choices"})


@dataclass(frozen=True)
class BadRequest:
    """A request that could not be read."""

    id: str | int
    error: str

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "error": self.error}


def read_requests(text: str) -> list[Request | BadRequest]:
    """Reads every request in the text. A request's id is its own, else its number from 1.

    Warns once about fields that are not read.

    Raises:
        RequestError: if the text holds no request at all.
    """
    unknown: set[str] = set()
    requests = [read_request(number, raw, unknown) for number, raw in objects(text)]
    if not requests:
        raise RequestError('there is no request; give an object like {"messages": [...]}')
    if unknown:
        warnings.warn(f"fields ignored: {', '.join(sorted(unknown))}", stacklevel=2)
    return requests


def objects(text: str) -> Iterator[tuple[int, Any]]:
    """Yields (number from 1, value) of every row; what is no JSON is a RequestError as a value."""
    try:
        whole = json.loads(text)
    except RecursionError:
        fault = RequestError("it is nested too deeply")
    except ValueError as error:
        fault = RequestError(_told(error))
    else:
        yield from enumerate(whole if isinstance(whole, list) else [whole], 1)
        return
    lines = [_line(line, i) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    # one broken document over many lines is one fault; lines of requests have one each
    if text.lstrip().startswith("[") or not any(_is_request(line) for line in lines):
        lines = [fault] if lines else []
    yield from enumerate(lines, 1)


def _line(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        return RequestError(f"line {number} is nested too deeply")
    except ValueError as error:
        return RequestError(_told(error, number))


def _is_request(value: object) -> bool:
    return isinstance(value, Mapping) and "messages" in value


def _told(error: ValueError, line: int | None = None) -> str:
    """What is wrong and where; `line` is the number of the line that was read by itself."""
    if not isinstance(error, json.JSONDecodeError):  # a number of thousands of digits
        return f"line {line or 1} is no JSON: {error}"
    return f"line {line or error.lineno} is no JSON: {error.msg} at column {error.colno}"


def read_request(number: int, raw: Any, unknown: set[str]) -> Request | BadRequest:
    """Reads one row, and adds the names of the fields it passes over to `unknown`."""
    if isinstance(raw, RequestError):
        return BadRequest(number, str(raw))
    if not isinstance(raw, Mapping):
        return BadRequest(number, f"expected an object with messages, got {type(raw).__name__}")
    identity = raw.get("id", number)
    if not isinstance(identity, str | int) or isinstance(identity, bool):
        identity = number
    if "messages" not in raw:
        return BadRequest(identity, 'messages are missing; give {"messages": [...]}')
    unknown.update(str(key) for key in raw.keys() - _KNOWN)
    try:
        return Request.parse(raw["messages"], raw.get("tools"), identity, raw.get("choices"))
    except RequestError as error:
        return BadRequest(identity, str(error))
