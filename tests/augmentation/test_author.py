"""What is asked of the model for practice, and how what it writes is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickstudy.augmentation.author import Author, OwnWriter
from quickstudy.config import AugmentationConfig
from quickstudy.decoding import Ask, Deadline, Decoder, Generation
from quickstudy.errors import BudgetSpent
from quickstudy.model import LanguageModel, Prefix
from quickstudy.types import Tool, ToolCall

CALL = Tool.parse(
    {
        "name": "call",
        "description": "Call somebody",
        "parameters": {
            "type": "object",
            "properties": {
                "who": {"type": "string", "description": "name of the person"},
                "times": {"type": "integer", "minimum": 1, "maximum": 9},
                "loud": True,
            },
            "required": ["who"],
            "additionalProperties": True,
        },
    }
)


class Script:
    """Stands in for the decoder: writes given texts and remembers what it was asked."""

    def __init__(self, model: LanguageModel, *texts: str) -> None:
        self.model = model
        self.texts = list(texts)
        self.asked: list[Ask] = []
        self.options: dict[str, Any] = {}

    def fixed_prefix(self, prompts: object) -> Prefix:
        return self.model.empty_prefix()

    def decode(self, prefix: object, asks: Sequence[Ask], **options: Any) -> list[Generation]:
        assert prefix is None or not prefix.ids
        self.asked += asks
        self.options = options
        return [Generation((), self.texts.pop(0), (), True) for _ in asks]

    def prompts(self) -> list[str]:
        return [self.model.decode(ask.turn) for ask in self.asked]


def author(decoder: Any, seed: int = 0, deadline: Deadline | None = None) -> Author:
    return Author(OwnWriter(decoder, 0.8, seed, deadline or Deadline()))


class TestValues:
    def test_are_separated_by_semicolons_and_the_last_may_be_cut_off(
        self, tiny: LanguageModel
    ) -> None:
        script = Script(tiny, 'Ann; "Bob" ; Cleo.; Dor', "Zoe")
        written = author(script).values([("who", CALL, "Maria"), ("who", CALL, "Eve")])
        assert written == [["Ann", "Bob", "Cleo"], ["Zoe"]]

    def test_the_model_is_told_the_argument_its_meaning_and_the_value(
        self, tiny: LanguageModel
    ) -> None:
        script = Script(tiny, "Ann;", "x;")
        author(script).values([("who", CALL, "Maria"), ("loud", CALL, "yes")])
        first, second = script.prompts()
        assert "who (name of the person): Maria" in first
        assert "loud (Call somebody): yes" in second
        assert "Maria" not in second
        assert [ask.grammar for ask in script.asked] == [None, None]

    @settings(
        deadline=None,
        max_examples=100,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(text=st.text())
    def test_any_answer_is_read(self, tiny: LanguageModel, text: str) -> None:
        (written,) = author(Script(tiny, text)).values([("who", CALL, "Maria")])
        assert all(part.strip() for part in written)

    def test_nothing_to_ask_nothing_asked(self, tiny: LanguageModel) -> None:
        assert author(Script(tiny)).values([]) == []


class TestArguments:
    def test_are_an_object_or_nothing(self, tiny: LanguageModel) -> None:
        script = Script(tiny, '{"who": "Ann"}', '{"who": ', "[1]", "")
        assert author(script).arguments([(CALL, ["who"], "Maria")] * 4) == [
            {"who": "Ann"},
            {},
            {},
            {},
        ]

    def test_the_model_is_told_what_to_avoid(self, tiny: LanguageModel) -> None:
        script = Script(tiny, "{}")
        author(script).arguments([(CALL, ["who", "loud"], "Maria; 3")])
        (prompt,) = script.prompts()
        assert "Do not use: Maria; 3" in prompt
        assert "- who: name of the person" in prompt
        assert "times" not in prompt

    def test_names_that_the_schema_does_not_know_are_passed_over(self, tiny: LanguageModel) -> None:
        """A draft may hold them: by additionalProperties, or decoded without constraint."""
        script = Script(tiny, '{"who": "Ann"}')
        assert author(script).arguments([(CALL, ["who", "mood"], "")]) == [{"who": "Ann"}]
        assert "mood" not in script.prompts()[0]

    def test_are_decoded_under_the_schema(self, tiny: LanguageModel) -> None:
        """A random model writes just the wanted arguments, each as its schema has it."""
        written = author(Decoder(tiny)).arguments([(CALL, ["times"], "")] * 2)
        for arguments in written:
            assert arguments.keys() == {"times"}
            assert 1 <= arguments["times"] <= 9


class TestRequests:
    def test_one_for_each_call_in_the_users_style(self, tiny: LanguageModel) -> None:
        script = Script(tiny, " Ring Ann \n", "Ring Bob")
        calls = [ToolCall("call", {"who": "Ann", "times": 2}), ToolCall("call", {})]
        own = ToolCall("call", {"who": "Maria"})
        written = author(script).requests(calls, {"call": CALL}, own, "Hey, ring Maria!")
        assert written == ["Ring Ann", "Ring Bob"]
        first, second = script.prompts()
        for prompt in (first, second):
            assert "call (Call somebody): who = Maria" in prompt
            assert "Hey, ring Maria!" in prompt
        assert "call (Call somebody): who = Ann, times = 2" in first
        assert "call (Call somebody): no arguments" in second


class TestSampling:
    def test_is_seeded(self, tiny: LanguageModel) -> None:
        asks = [("who", CALL, "Maria")]
        once, again, other = (author(Decoder(tiny), seed).values(asks) for seed in (1, 1, 2))
        assert once == again != other

    def test_leaves_the_global_random_state_alone(self, tiny: LanguageModel) -> None:
        state = torch.random.get_rng_state()
        author(Decoder(tiny)).values([("who", CALL, "Maria")])
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_is_at_the_configured_temperature_and_one_line(self, tiny: LanguageModel) -> None:
        script = Script(tiny, "x;")
        author(script).values([("who", CALL, "Maria")])
        assert script.options["temperature"] == AugmentationConfig().temperature
        assert script.options["stop"] == "\n"

    def test_ends_with_the_time_budget(self, tiny: LanguageModel) -> None:
        with pytest.raises(BudgetSpent):
            author(Decoder(tiny), deadline=Deadline(0.0)).values([("who", CALL, "Maria")])

    def test_prompts_hold_no_tools(self, tiny: LanguageModel) -> None:
        script = Script(tiny, "x;")
        author(script).values([("who", CALL, "Maria")])
        assert "# Tools" not in script.prompts()[0]
        assert json.dumps(CALL.to_openai()) not in script.prompts()[0]
