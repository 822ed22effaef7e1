"""Reasoning blocks: what a model writes between `<think>` and `</think>` before it answers."""

from __future__ import annotations

import re
from typing import Literal

# how an answer may begin: never with a block, with one if the model likes, or inside one that
# the chat template has opened
ReasoningStart = Literal["none", "optional", "opened"]

OPEN, CLOSE = "<think>", "</think>"
# A tag begins or ends a line: inside calls line ends are escaped, so no argument looks like this.
_BLOCK = re.compile(r"^[ \t]*<think>(.*?)(?:</think>|\Z)", re.DOTALL | re.MULTILINE)
_END = re.compile(r"^[ \t]*</think>[ \t]*|</think>[ \t]*\n", re.MULTILINE)


def split(text: str) -> tuple[str, str]:
    """Reasoning and the rest of a text; both as written, the reasoning without its tags.

    A block may be cut off, and it may lack its beginning where the template opened it.
    """
    thoughts = []
    first_end = _END.search(text)
    if first_end and OPEN not in text[: first_end.start()]:
        thoughts.append(text[: first_end.start()])
        text = text[first_end.end() :]
    thoughts += [match[1] for match in _BLOCK.finditer(text)]
    rest = _BLOCK.sub("", text) if thoughts else text
    return "\n\n".join(thought.strip() for thought in thoughts if thought.strip()), rest
