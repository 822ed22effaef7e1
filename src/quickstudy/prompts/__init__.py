"""Prompt texts as data: Jinja2 templates beside this file, one a purpose.

A dialogue's turns are headed by lines `=== system`, `=== user`, `=== assistant`.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, UndefinedError

from quickstudy.types import Message

_ENVIRONMENT = Environment(undefined=StrictUndefined)
# Jinja2's own filter sorts keys and escapes for HTML
_ENVIRONMENT.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)


def dialogue(name: str, /, **values: Any) -> list[Message]:
    """Renders `name`.jinja as a few-shot dialogue; fails if a value it names is not given."""
    return [
        Message.parse({"role": role, "content": turn.render(**values).strip()})
        for role, turn in _turns(name)
    ]


def is_fixed(messages: Sequence[Message]) -> bool:
    """Whether all but the last turn are the same whatever is asked: a constant of this package."""
    told = tuple(message.content for message in messages[:-1])
    return told in _fixed()


@lru_cache
def _fixed() -> frozenset[tuple[str, ...]]:
    """The turns before the last of every dialogue that needs no value there."""
    found = set()
    for file in resources.files(__package__).iterdir():
        if file.name.endswith(".jinja"):
            *before, _ = _turns(file.name.removesuffix(".jinja"))
            with suppress(UndefinedError):
                found.add(tuple(turn.render().strip() for _, turn in before))
    return frozenset(found)


@lru_cache
def _turns(name: str) -> list[tuple[str, Template]]:
    # split before rendering: no heading inside a value can start a turn
    text = resources.files(__package__).joinpath(f"{name}.jinja").read_text(encoding="utf-8")
    _, *parts = re.split(r"^=== (system|user|assistant)\n", text, flags=re.MULTILINE)
    return [
        (role, _ENVIRONMENT.from_string(turn))
        for role, turn in zip(parts[::2], parts[1::2], strict=True)
    ]
