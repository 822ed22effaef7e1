"""Kinds of tokens, written under the text: s structure, n tool name, a argument name, v value."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.awareness.kinds import character_kinds, choice_kinds, value_span
from quickstudy.decoding import Choice, Generation
from quickstudy.types import ToolCall

CHEAP = settings(deadline=None, max_examples=300)
LETTER = {
    "structure": "s",
    "tool_name": "n",
    "argument_name": "a",
    "argument_value": "v",
    "words": "w",
}


def letters(text: str, *calls: ToolCall) -> str:
    """A letter a character; spaces stay as they are, whose kind is of no use."""
    kinds = character_kinds(text, calls)
    return "".join(
        " " if c.isspace() else LETTER[kind] for c, kind in zip(text, kinds, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'[{"name": "dim", "arguments": {"room": "attic", "level": 5}}]',
          'sssssssss nnnnns ssssssssssss saaaaaas vvvvvvvs aaaaaaas vsss'),
        (r'<tool_call> {"name": "f", "arguments": {}} </tool_call> Done now.',
          'sssssssssss ssssssss nnns ssssssssssss sss ssssssssssss wwww wwww'),
        (r'```json {"name": "f", "arguments": {"x": null}} ```',
          'sssssss ssssssss nnns ssssssssssss saaas vvvvss sss'),
        # a value is a value however deep, and its keys as well
        (r'{"arguments": {"x": {"name": ["y", 1]}, "z": "}\""}, "name": "f"}',
          'sssssssssssss saaas vvvvvvvv vvvvv vvvs aaas vvvvvss sssssss nnns'),
        # OpenAI's shape; arguments as one string of JSON
        (r'{"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}',
          'ssssssss sssssssssss sssssssssss ssssssss nnns ssssssssssss vvvvvvvv vvvss'),
        # cut off: in a name, in a value, in a key
        (r'[{"name": "di',
          'sssssssss nnn'),
        (r'[{"name": "dim", "arguments": {"room": "att',
          'sssssssss nnnnns ssssssssssss saaaaaas vvvv'),
        (r'[{"na',
          'sssss'),
        # JSON that is no call, and brackets in words
        (r'{"room": "attic"}',
          'wwwwwwww wwwwwwww'),
        (r'See [1] and {x}.',
          'www www www wwww'),
        (r'Sure: {"name": "f", "arguments": {}} and <b>',
          'wwwww ssssssss nnns ssssssssssss sss www sss'),
    ],
)  # fmt: skip
def test_kinds_of_characters(text: str, expected: str) -> None:
    assert letters(text) == expected


def test_calls_in_another_shape_are_found_by_their_words() -> None:
    call = ToolCall("dim", {"room": "attic", "level": 5, "on": True})
    text = "[dim(room='attic', level=5, on=True)]"
    expected = "snnnsaaaasvvvvvvvs aaaaasvs aasvvvvss"
    assert letters(text, call) == expected


def test_a_call_that_is_not_in_the_text() -> None:
    assert letters("abc", ToolCall("x", {"y": 1})) == "sss"


def generation(text: str, starts: list[int]) -> Generation:
    """One token a character; choices at the given places."""
    choices = tuple(Choice(start, 0, -0.1, 1, -3.0) for start in starts)
    return Generation(tuple(map(ord, text)), text, choices, True)


def decode(ids: object) -> str:
    assert isinstance(ids, tuple)
    return "".join(map(chr, ids))


def test_kinds_of_choices() -> None:
    text = '[{"name": "dim", "arguments": {"room": "attic"}}]'
    draft = generation(text, [0, text.index("dim"), text.index("room"), text.index("tic"), 49])
    assert len(text) == 49
    assert choice_kinds(decode, draft) == [
        "structure",
        "tool_name",
        "argument_name",
        "argument_value",
        "structure",  # to stop
    ]


def test_words_and_their_end() -> None:
    assert choice_kinds(decode, generation("Hi!", [0, 3])) == ["words", "words"]
    assert choice_kinds(decode, generation("", [0])) == ["words"]


def test_a_token_is_of_the_kind_of_its_first_visible_character() -> None:
    pieces = ['{"name": "f", "arguments":', ' {"x', '": ', " 5", "}}"]
    choices = tuple(Choice(i, 0, -0.1, 1, -3.0) for i in range(5))
    draft = Generation((0, 1, 2, 3, 4), "".join(pieces), choices, True)
    kinds = choice_kinds(lambda ids: "".join(pieces[i] for i in ids), draft)
    assert kinds == ["structure", "structure", "argument_name", "argument_value", "structure"]


CALLISH = st.lists(
    st.sampled_from(list('{}[]:,"\\ \n')) | st.sampled_from(
        ['"name"', '"arguments"', "null", "1", "f", "<tool_call>", "```json", '{"name": "']
    ),
    max_size=30,
).map("".join)  # fmt: skip


@CHEAP
@given(st.text() | CALLISH, st.lists(st.integers(0, 40), max_size=5), st.text(max_size=3))
def test_any_text_has_kinds(text: str, starts: list[int], name: str) -> None:
    calls = [ToolCall(name, {name: text})]
    assert len(character_kinds(text, calls)) == len(text)
    draft = generation(text, [start for start in starts if start <= len(text)])
    assert len(choice_kinds(decode, draft, calls)) == len(draft.choices)


def test_hostile_text_takes_no_time() -> None:
    for text in ("[" * 50_000, "{ " * 20_000, '"' * 50_000, '{"name": ' * 5_000, "<" * 50_000):
        assert len(character_kinds(text)) == len(text)


@CHEAP
@given(
    st.text(min_size=1, max_size=8),
    st.dictionaries(st.text(max_size=4), st.text(max_size=6) | st.integers(), max_size=3),
)
def test_a_whole_call_is_marked_exactly(name: str, arguments: dict[str, str | int]) -> None:
    text = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    kinds = character_kinds(text)
    told = {
        kind: "".join(c for c, k in zip(text, kinds, strict=True) if k == kind)
        for kind in ("tool_name", "argument_name", "argument_value", "words")
    }

    def spelt(values: object) -> str:
        return "".join(json.dumps(value, ensure_ascii=False) for value in values)  # type: ignore[attr-defined]

    assert told["tool_name"] == spelt([name])
    assert told["argument_name"] == spelt(arguments)
    assert told["argument_value"] == spelt(arguments.values())
    assert told["words"] == ""


@pytest.mark.parametrize(
    ("text", "arguments", "places"),
    [
        ('{"name": "a", "arguments": {"name": "a", "b": "a"}}', {"name": "a", "b": "a"}, (37, 47)),
        (
            '{"name": "f", "arguments": {"a": [1, 2], "b": true}}',
            {"a": [1, 2], "b": True},
            (33, 46),
        ),
        ('{"name": "f", "arguments": {"a": "caf\\u00e9"}}', {"a": "caf\u00e9"}, (34,)),
        ("<think>b is 1</think>[get(b=True, a='b')]", {"b": True, "a": "b"}, (28, 37)),
        ('{"name": "f", "arguments": {"a": 1, "a": 2}}', {"a": 2}, (None,)),
        ("[f(a='it\\'s')]", {"a": "it's"}, (None,)),
        ("no call", {"a": "it"}, (None,)),
    ],
)
def test_where_a_value_stands(
    text: str, arguments: dict[str, object], places: tuple[int | None, ...]
) -> None:
    call = ToolCall("f" if "f" in text else "get", arguments)
    found = [value_span(text, call, name) for name in arguments]
    assert [span and span[0] for span in found] == list(places)


@CHEAP
@given(
    st.text(min_size=1, max_size=8),
    st.dictionaries(st.text(max_size=4), st.text(max_size=6) | st.integers(), max_size=3),
)
def test_a_value_is_found_whatever_it_is(name: str, arguments: dict[str, str | int]) -> None:
    text = json.dumps({"name": name, "arguments": arguments})
    for key, value in arguments.items():
        span = value_span(text, ToolCall(name, arguments), key)
        assert span
        start, end = span
        assert json.dumps(value) in (text[start:end], text[start - 1 : end + 1])
