"""The request is written from words for the value, so that practice teaches the value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from quickstudy.augmentation import call_first
from quickstudy.augmentation.author import Author
from quickstudy.augmentation.substitution import analyse
from quickstudy.augmentation.verify import reject
from quickstudy.types import Message, Request, ToolCall


class Writer:
    """Fills in these arguments, then says their words as it is told them."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = arguments
        self.told: list[Sequence[Message]] = []

    def write(
        self,
        dialogues: Sequence[Sequence[Message]],
        schemas: Sequence[Mapping[str, Any] | None],
        max_new_tokens: int,
        stop: str | None = "\n",
    ) -> list[str]:
        if schemas[0] is not None:
            return [json.dumps(self.arguments)] * len(dialogues)
        self.told = list(dialogues)
        told = [turns[-1].content.rpartition("): ")[2] for turns in dialogues]
        return [f"Please see to {words.partition(' = ')[2]}." for words in told]


@pytest.mark.parametrize(
    ("own", "drafted", "fresh", "schema", "words"),
    [
        (
            "March 25th, 2023",
            "2023-03-25",
            "2024-05-06",
            {"description": "YYYY-MM-DD"},
            "May 6th, 2024",
        ),
        (
            "the 3rd of May 2023",
            "03/05/2023",
            "06/05/2024",
            {"description": "DD/MM/YYYY"},
            "the 6th of May 2024",
        ),
        ("half past two", "14:30", "09:45", {"description": "HH:MM"}, "9:45 am"),
        (
            "two hours",
            120,
            90,
            {"type": "integer", "description": "in minutes"},
            "one and a half hours",
        ),
        ("Japan", "JP", "FR", {"description": "ISO 3166-1 alpha-2"}, "France"),
        ("tomorrow", "2023-03-25", "2024-05-06", {"description": "YYYY-MM-DD"}, "May 6th, 2024"),
    ],
)
def test_a_formatted_value_is_said_in_words(
    own: str, drafted: Any, fresh: Any, schema: dict[str, Any], words: str
) -> None:
    tool = {"name": "do", "description": "Does it", "parameters": {"properties": {"x": schema}}}
    asked = Request.parse(f"Do it for {own}, will you?", [tool])
    writer = Writer({"x": fresh})
    analysis = analyse(asked, [ToolCall("do", {"x": drafted})])
    (made,) = call_first.write_examples(Author(writer), asked, analysis, 1)
    assert made.user_text == f"Please see to {words}."
    assert made.tool_calls == (ToolCall("do", {"x": fresh}),)
    assert reject(made, asked, ()) is None
    shown = [turn.content for turn in writer.told[0]]
    assert shown[-2] == "Do it for " + own + ", will you?"
    if own != "tomorrow":  # the user's own words beside the user's own request
        assert f"x = {own}" in shown[-3]


def test_a_value_in_no_stated_format_is_said_as_it_is() -> None:
    asked = Request.parse(
        "Do it for Japan", [{"name": "do", "parameters": {"properties": {"x": {}}}}]
    )
    analysis = analyse(asked, [ToolCall("do", {"x": "JP"})])
    (made,) = call_first.write_examples(Author(Writer({"x": "FR"})), asked, analysis, 1)
    assert made.user_text.endswith("FR.")


def test_the_users_own_value_in_another_form_is_still_the_users_own() -> None:
    schema = {"description": "YYYY-MM-DD"}
    tool = {"name": "do", "parameters": {"properties": {"x": schema}}}
    asked = Request.parse("Book the room for the 25th of March 2023, please", [tool])
    analysis = analyse(asked, [ToolCall("do", {"x": "2023-03-25"})])
    (made,) = call_first.write_examples(Author(Writer({"x": "2023-03-25"})), asked, analysis, 1)
    assert "is the user's own value" in str(reject(made, asked, ()))
