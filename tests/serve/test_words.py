"""What is told while an answer grows stays true when it is whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstudy import toolcalls
from quickstudy.model import LanguageModel
from quickstudy.serve.words import Listener, cut, held, sayable
from quickstudy.types import Tool

TOOL = Tool("set_light", "", {"type": "object", "properties": {"level": {"type": "integer"}}})
CALL = '{"name": "set_light", "arguments": {"level": 40}}'
PIECES = st.sampled_from(
    [
        *("Sure", ".", " ", "\n", "Hello you", "a(b)", "set_light", "set_light(level=40)", "x ("),
        *("[", CALL, f"[{CALL}]", f"<tool_call>\n{CALL}\n</tool_call>", f"```json\n{CALL}\n```"),
        *("```\ncode\n```", "{", "<b>", "ü", "  "),
    ]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


class TestSayable:
    @given(TEXTS, st.booleans())
    def test_it_is_the_beginning_of_the_whole_answers_words(self, text: str, tools: bool) -> None:
        reply, _ = toolcalls.read(text, [TOOL] if tools else [])
        for end in range(len(text) + 1):
            assert reply.content.startswith(sayable(text[:end], tools))

    @given(TEXTS, st.booleans())
    def test_it_only_grows(self, text: str, tools: bool) -> None:
        told = [sayable(text[:end], tools) for end in range(len(text) + 1)]
        assert all(after.startswith(before) for before, after in pairwise(told))

    @given(TEXTS)
    def test_without_tools_all_is_told(self, text: str) -> None:
        assert sayable(text, False) == toolcalls.read(text, [])[0].content

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("set_li", ""),
            ("Sure, I do", "Sure, I do"),
            ("two\nset_light", "two"),
            ("two\nset_light (level", "two"),
            ("Sure: [", "Sure:"),
            ("<tool_call>", ""),
        ],
    )
    def test_what_may_become_a_call_is_held_back(self, text: str, told: str) -> None:
        assert sayable(text, True) == told

    def test_reasoning_is_not_told(self) -> None:
        for text, opened in (("<think>hm</think>\nYes.", False), ("hm</think>\nYes.", True)):
            told = [sayable(text[:end], False, opened) for end in range(len(text) + 1)]
            assert "hm" not in "".join(told)
            assert told[-1] == "Yes."


class TestStops:
    def test_the_first_of_several_counts(self) -> None:
        assert cut("one two three", ["three", "two"]) == ("one ", True)
        assert cut("one", ["two"]) == ("one", False)
        assert cut("aba", ["aba", "b"]) == ("a", True)  # "b" was there first

    @given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
    def test_what_may_become_one_is_held_back(self, text: str, stops: list[str]) -> None:
        for end in range(len(text) + 1):
            words, found = cut(text[:end], stops)
            told = words if found else held(words, stops)
            assert cut(text, stops)[0].startswith(told)


class TestListener:
    @given(TEXTS, st.booleans(), st.lists(st.sampled_from(["you", ".", "lo y"]), max_size=2))
    def test_the_pieces_are_the_words(self, text: str, tools: bool, stops: list[str]) -> None:
        ids = list(text.encode())
        told: list[str] = []
        listener = Listener(_decode, stops, told.append, tools=tools, opened=False)
        heard = next((n for n in range(1, len(ids) + 1) if listener(ids[:n])), len(ids))
        reply, _ = toolcalls.read(_decode(ids[:heard]), [TOOL] if tools else [])
        content, _ = cut(reply.content, stops)
        listener.finish(content)
        assert "".join(told) == content

    def test_it_says_when_there_is_enough(self) -> None:
        listener = Listener(_decode, ["you"], None, tools=False, opened=False)
        ids = list(b"Hello you there")
        assert [listener(ids[:n]) for n in range(1, 10)] == [False] * 8 + [True]

    def test_no_half_characters(self, tiny: LanguageModel) -> None:
        told: list[str] = []
        listener = Listener(tiny.decode, [], told.append, tools=False, opened=False)
        ids = tiny.encode("Grüße ✓ 日本")
        for n in range(1, len(ids) + 1):
            listener(ids[:n])
        assert "".join(told) == "Grüße ✓ 日本"
        assert not any("\ufffd" in piece for piece in told)


def _decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")
