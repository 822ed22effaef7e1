"""One example that calls nothing: only requests that no listed tool serves."""

from __future__ import annotations

import json
import random
from importlib import resources
from typing import Any

import pytest

from quickstudy.augmentation.no_tool import (
    NONE_FITS,
    begins_call,
    in_own_words,
    no_tool_example,
    says_enough,
)
from quickstudy.types import Example, Message, Reply, Request, ToolCall

BANK = resources.files("quickstudy").joinpath("data/everyday.jsonl").read_text(encoding="utf-8")
ROWS = [json.loads(line) for line in BANK.splitlines()]
SEEDS = range(40)


def tool(name: str, description: str = "", **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"name": name, "description": description, "parameters": parameters}


def given_(*tools: dict[str, Any], said: Any = "Do it") -> set[str]:
    """All requests that may be given for this list."""
    request = Request.parse(said, list(tools))
    made = (no_tool_example(request, random.Random(seed)) for seed in SEEDS)
    return {example.user_text for example in made if example is not None}


PIZZA = "Order a large pizza with mushrooms."


def test_an_example_in_plain_words_without_a_call() -> None:
    said = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    request = Request.parse(said, [tool("get_tide", "Tide tables")])
    example = no_tool_example(request, random.Random(0))
    assert example is not None
    assert (example.source, example.tool_calls) == ("no-tool", ())
    assert [m.role for m in example.messages] == ["system", "user"]
    row = next(row for row in ROWS if row["request"] == example.user_text)
    assert example.content == row.get("answer", NONE_FITS)
    assert example == no_tool_example(request, random.Random(0))


def test_requests_vary_with_the_seed() -> None:
    assert PIZZA in given_(tool("get_tide")) | given_(tool("x"))
    assert len(given_(tool("get_tide"))) > 15


@pytest.mark.parametrize(
    "listed",
    [
        tool("orderPizza"),
        tool("f", "Looks up restaurants nearby"),
        tool("f", a={"type": "string", "description": "the menu to read"}),
        tool("f", foods={"type": "string"}),
        tool("f", a={"type": "array", "items": {"enum": ["pizza", 3]}}),
        tool("f", a={"type": "object", "properties": {"delivery": {}}}),
        tool("f", "Purchasing goods"),
        tool("purchases_report"),
    ],
)
def test_a_word_in_common_takes_a_request_out(listed: dict[str, Any]) -> None:
    assert PIZZA not in given_(listed)
    assert given_(listed)


def test_what_the_user_asks_for_is_taken_out_too() -> None:
    assert PIZZA not in given_(tool("get_tide"), said="I want pizza")


@pytest.mark.parametrize(
    "listed",
    [
        tool("search"),
        tool("getInfo", "Information on a topic"),
        tool("lookup", "Search the web"),
        tool("runPython"),
        tool("all", " ".join(row["about"] for row in ROWS)),
    ],
)
def test_none_where_a_list_may_serve_anything(listed: dict[str, Any]) -> None:
    assert given_(tool("get_tide"), listed) == set()


def test_none_without_tools() -> None:
    assert given_() == set()


def test_the_bank_is_in_order() -> None:
    assert len({row["request"] for row in ROWS}) == len(ROWS) >= 30
    for row in ROWS:
        assert row.keys() - {"answer"} == {"request", "about"}
        assert len(row["about"].split()) >= 5


class TestOwnWords:
    ORDER = Example((Message("user", PIZZA),), (), "no-tool", NONE_FITS)
    JOKE = Example((Message("user", "Tell me a short joke."),), (), "no-tool", "Ha.")

    def test_small_talk_is_answered_as_the_model_does(self) -> None:
        made = in_own_words(self.JOKE, Reply("Why did the fox. cross? Nobody knows."))
        assert made.content == "Why did the fox."
        assert (made.messages, made.source) == (self.JOKE.messages, "no-tool")

    @pytest.mark.parametrize(
        "words",
        [
            "I'm sorry, I can't do that. But here is more",
            "None of these functions orders food.\nReally",
            "I am not able to order pizza.",
            "These tools don't support orders!",
        ],
    )
    def test_of_other_requests_only_declining_is_right(self, words: str) -> None:
        first = in_own_words(self.ORDER, Reply(words)).content
        assert words.startswith(first)
        assert first != NONE_FITS

    @pytest.mark.parametrize(
        "reply",
        [
            Reply("I have ordered a large pizza for you."),
            Reply("I'm sorry, I can't do that.", (ToolCall("f", {}),)),
            Reply("I'm sorry, but"),
            Reply("I'm sorry, " + "so " * 60 + "sorry."),
            Reply(""),
        ],
    )
    def test_else_the_fixed_sentence_is_the_lesson(self, reply: Reply) -> None:
        assert in_own_words(self.ORDER, reply) == self.ORDER


def test_nothing_that_was_asked_earlier_is_asked() -> None:
    said = [
        {"role": "user", "content": "Is there pizza with mushrooms?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "get_tide"}}]},
        {"role": "tool", "content": "low"},
    ]
    assert PIZZA not in given_(tool("get_tide"), said=said)


class TestSaysEnough:
    """What more would be said changes nothing; a moment before, it might."""

    @pytest.mark.parametrize(
        "words",
        [
            "I cannot. N",
            "None!\nO",
            "Hm\n\nm",
            "```json",
            " [",
            "{",
            "<tool",
            "Sure.\n{",
            "x" * 161,
        ],
    )
    def test_enough(self, words: str) -> None:
        assert says_enough(words)
        example = Example((Message("user", "?"),), (), "no-tool", NONE_FITS)
        said = [
            in_own_words(example, Reply(f"{words}{more}"))
            for more in ("", "No. It is not. ", '\n{"name": "f"}')
        ]
        assert said[0] == said[1] == said[2] or begins_call(words)

    @pytest.mark.parametrize("words", ["", "\n", "I can", "At 3.5", "None. ", "Hm\n", "x" * 160])
    def test_not_yet(self, words: str) -> None:
        assert not says_enough(words)
