"""What of an unfinished answer can be told already, and where it has said enough.

Text only; knows no model. While an answer grows nobody knows yet whether it is going to be a
call: what could become one is held back until the answer is whole, plain words are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_CALL = re.compile(r"[\[{<`]|^[ \t]*[^\W\d][\w.-]*[ \t]*\(", re.MULTILINE)
_MAY_BECOME_CALL = re.compile(r"[ \t]*(?:[^\W\d][\w.-]*[ \t]*)?\Z")
_OPEN, _CLOSE = "<think>", "</think>"


def sayable(text: str, tools: bool, opened: bool = False) -> str:
    """The words at the beginning of an answer that stay what they are, however it goes on.

    Args:
        tools: whether the answer may hold calls.
        opened: whether the prompt has opened a block of reasoning.
    """
    begun = text.lstrip()
    if opened or begun.startswith(_OPEN):
        _, closed, text = text.partition(_CLOSE)
        if not closed:
            return ""
    elif _OPEN.startswith(begun):
        return ""
    text = text.lstrip()
    if tools:
        if match := _CALL.search(text):
            text = text[: match.start()]
        else:
            last = text.rfind("\n") + 1
            if _MAY_BECOME_CALL.fullmatch(text, last):
                text = text[:last]
    return text.rstrip()


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text up to the stop sequence that is complete first, and whether there is one."""
    ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(ends)[1]], True) if ends else (text, False)


def held(text: str, stops: Sequence[str]) -> str:
    """The text without an end that may be the beginning of a stop sequence."""
    longest = max((len(stop) for stop in stops), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-size:]) for stop in stops):
            return text[:-size]
    return text


class Listener:
    """Follows one answer token by token: tells its words, and stops it where it has said enough.

    `tell` gets each new piece of words; None: only stop sequences matter.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stops: Sequence[str],
        tell: Callable[[str], None] | None,
        *,
        tools: bool,
        opened: bool,
    ) -> None:
        self.decode, self.stops, self.tell = decode, stops, tell
        self.tools, self.opened = tools, opened
        self.text, self.told = "", ""
        self._start = self._read = 0  # tokens

    def __call__(self, ids: Sequence[int]) -> bool:
        """Hears all tokens there are. Returns whether the answer has said enough."""
        # decoded from a little before, because tokenizers join what they decode
        before = self.decode(ids[self._start : self._read])
        now = self.decode(ids[self._start :])
        if len(now) <= len(before) or now.endswith("\ufffd"):  # half a character
            return False
        self.text += now[len(before) :]
        self._start, self._read = self._read, len(ids)
        words, enough = cut(sayable(self.text, self.tools, self.opened), self.stops)
        self._say(words if enough else held(words, self.stops))
        return enough

    def finish(self, content: str) -> None:
        """Tells what was held back of the whole answer's words."""
        self._say(content)

    def _say(self, words: str) -> None:
        if self.tell and len(words) > len(self.told) and words.startswith(self.told):
            self.tell(words[len(self.told) :])
            self.told = words
