"""The kinds of phrase, and which of them a parameter's value may be."""

from __future__ import annotations

from typing import Any

from quickstudy.grounding import amounts, contacts, names, temporal
from quickstudy.grounding.phrases import Kind, Schema
from quickstudy.grounding.spellings import Choices

_ALL: tuple[Kind, ...] = (temporal, amounts, names, contacts)


def of(schema: Schema) -> list[Kind]:
    """The kinds to try for a parameter, the most telling first."""
    members = schema.get("enum")
    listed = [m for m in members if isinstance(m, str)] if isinstance(members, list) else []
    own: list[Kind] = [Choices(listed)] if listed else []
    return [*own, *_ALL]


def wanted(schema: Schema) -> tuple[Kind, Any] | None:
    """The kind and format that a schema states."""
    found = ((kind, kind.stated_format(schema)) for kind in of(schema))
    return next(((kind, format) for kind, format in found if format is not None), None)
