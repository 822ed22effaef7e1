"""Prompt texts as data: Jinja2 templates beside this file, one a purpose."""

from functools import lru_cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template


@lru_cache
def _template(name: str) -> Template:
    text = resources.files(__package__).joinpath(f"{name}.jinja").read_text()
    return Environment(undefined=StrictUndefined, keep_trailing_newline=False).from_string(text)


def prompt(name: str, **values: Any) -> str:
    """Renders `name`.jinja; a value the template names but is not given fails."""
    return _template(name).render(**values)
