"""Prompt texts as data: Jinja2 templates beside this file, one a purpose.

A dialogue's turns are headed by lines `=== system`, `=== user`, `=== assistant`.
"""

import re
from functools import lru_cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from quickstudy.types import Message


@lru_cache
def _template(name: str) -> Template:
    text = resources.files(__package__).joinpath(f"{name}.jinja").read_text()
    return Environment(undefined=StrictUndefined, keep_trailing_newline=False).from_string(text)


def dialogue(name: str, /, **values: Any) -> list[Message]:
    """Renders `name`.jinja as a few-shot dialogue; fails if a value it names is not given."""
    # values come from requests: a heading inside one must not start a turn
    safe = {key: _escape(value) for key, value in values.items()}
    parts = re.split(
        r"^=== (system|user|assistant)\n", _template(name).render(**safe), flags=re.MULTILINE
    )
    return [
        Message.parse({"role": role, "content": content.strip()})
        for role, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _escape(value: Any) -> Any:
    return re.sub(r"^===", "= ==", value, flags=re.MULTILINE) if isinstance(value, str) else value
