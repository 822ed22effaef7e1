"""Certainty of a draft, on a tiny random model; every number is recomputed another way."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from quickstudy.awareness import rss
from quickstudy.awareness.estimators import (
    assess,
    forked_calls,
    name_log_probs,
    names,
    token_margin,
)
from quickstudy.config import Config, DecodingConfig
from quickstudy.decoding import Ask, Choice, Deadline, Decoder, Draft, Generation
from quickstudy.errors import BudgetSpent
from quickstudy.model import Context, LanguageModel
from quickstudy.toolcalls import CallFormat, Grammar, grammar, opening, read
from quickstudy.types import Certainty, Reply, Request

ROOM = {
    "type": "object",
    "properties": {"room": {"enum": ["hall", "attic"]}},
    "required": ["room"],
}
TOOLS = [{"name": name, "parameters": ROOM} for name in ("dim", "light", "heat")]


def spelt(parameter: str, value: str) -> Grammar:
    """One call of `dim`, its value spelt in several ways."""
    return Grammar(
        rf'start: "[{{\"name\": \"dim\", \"arguments\": {{\"{parameter}\": " VALUE "}}}}]"'
        f"\nVALUE: {value}"
    )


ROOM_SPELT = spelt("room", r'"\"hall\"" | " \"hall\""')
LEVEL_SPELT = spelt("level", '"5" | "5.0"')


def whole_sequence(model: LanguageModel, ids: Sequence[int], answer: int) -> float:
    """log P of the last `answer` tokens of `ids`: one pass over all of them, without a cache."""
    with torch.no_grad():
        logits = model.network(torch.tensor([list(ids)])).logits[0].double()
    told = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(list(ids[1:])).unsqueeze(1))
    return float(told[-answer:].sum())


def drafted(
    model: LanguageModel, rules: Grammar | None, tokens: int = 80, tools: int = 3
) -> tuple[Decoder, Context, Generation]:
    decoder = Decoder(model)
    context = model.prefill(Request.parse("Dim the attic", TOOLS[:tools]))
    (draft,) = decoder.decode(
        context.prefix, [Ask(context.turn, rules)], max_new_tokens=tokens, deadline=Deadline()
    )
    return decoder, context, draft


@pytest.fixture
def calls_only(tiny: LanguageModel) -> Grammar:
    """One call and no words, which a random model would never leave."""
    rules = grammar(Request.parse("x", TOOLS).tools, tiny.single_tokens, "json").lark
    call = next(line for line in rules.splitlines() if line.startswith("call:"))
    return Grammar(f'start: "[" call "]"\n{call}')


class TestMargin:
    def test_is_the_smallest_of_the_draft(self, tiny: LanguageModel, calls_only: Grammar) -> None:
        decoder, _, draft = drafted(tiny, calls_only)
        assert draft.finished
        assert len(draft.choices) == 2  # the tool's name and the room
        certainty = token_margin(decoder, draft)
        assert certainty.value == min(choice.margin for choice in draft.choices)
        assert 0 <= certainty.value < 1

    def test_candidates_are_the_two_ways_on(self, tiny: LanguageModel, calls_only: Grammar) -> None:
        decoder, _, draft = drafted(tiny, calls_only)
        least = min(draft.choices, key=lambda choice: choice.margin)
        taken, rival = token_margin(decoder, draft).candidates
        assert draft.text.startswith(taken.text) or least.index == len(draft.ids)
        assert taken.text != rival.text
        assert (taken.log_prob, rival.log_prob) == (least.log_prob, least.rival)

    def test_is_rss_over_the_two(self, tiny: LanguageModel) -> None:
        """With all mass on two tokens, p1 - p2 is RSS's u."""
        choice = Choice(0, 5, math.log(0.75), 6, math.log(0.25))
        draft = Generation((5,), "x", (choice,), True)
        certainty = token_margin(Decoder(tiny), draft)
        assert certainty.value == pytest.approx(0.5)
        assert rss.certainty([c.log_prob for c in certainty.candidates]) == pytest.approx(0.5)

    def test_a_draft_without_choices_is_certain(self, tiny: LanguageModel) -> None:
        draft = Generation((5,), "x", (), True)
        certainty = token_margin(Decoder(tiny), draft)
        assert (certainty.value, certainty.candidates) == (1.0, ())


class TestForkedCalls:
    @staticmethod
    def forked(
        decoder: Decoder, context: Context, draft: Generation, rules: Grammar | None, forks: int
    ) -> Certainty:
        decoding = DecodingConfig(max_new_tokens=max(len(draft.ids), 12))
        return forked_calls(decoder, context, draft, rules, forks, decoding, Deadline())

    def test_the_draft_comes_first_with_its_own_probability(
        self, tiny: LanguageModel, calls_only: Grammar
    ) -> None:
        decoder, context, draft = drafted(tiny, calls_only)
        certainty = self.forked(decoder, context, draft, calls_only, 3)
        first, *rivals = certainty.candidates
        assert first.text == draft.text
        assert first.log_prob == pytest.approx(draft.log_prob)
        assert 1 <= len(rivals) <= 3
        assert certainty.value == rss.certainty([c.log_prob for c in certainty.candidates])
        replies = [read(c.text, context.request.tools)[0] for c in certainty.candidates]
        assert len({json.dumps(reply.to_json()) for reply in replies}) == len(replies)

    def test_a_forks_probability_is_that_of_its_whole_sequence(self, tiny: LanguageModel) -> None:
        decoder, context, draft = drafted(tiny, None, tokens=12)
        certainty = self.forked(decoder, context, draft, None, 2)
        least = sorted(draft.choices, key=lambda choice: choice.margin)[:2]
        start = [*context.prefix.ids, *context.turn]
        expected = [whole_sequence(tiny, [*start, *draft.ids], len(draft.ids))]
        for choice in least:
            given = [*draft.ids[: choice.index], choice.runner_up]
            (rival,) = decoder.decode(
                context.prefix,
                [Ask(context.turn, None, given)],
                max_new_tokens=12,
                deadline=Deadline(),
            )
            ends = [tiny.tokenizer.eos_token_id] if rival.finished else []
            ids = [*start, *rival.ids, *ends]
            expected.append(whole_sequence(tiny, ids, len(rival.ids) + len(ends)))
        assert [c.log_prob for c in certainty.candidates] == pytest.approx(expected, abs=1e-3)

    @pytest.mark.parametrize("rules", [ROOM_SPELT, LEVEL_SPELT])
    def test_forks_with_equal_calls_are_one_candidate(
        self, tiny: LanguageModel, rules: Grammar
    ) -> None:
        decoder, context, draft = drafted(tiny, rules, tools=1)
        (choice,) = draft.choices
        assert 0 < choice.margin < 1
        certainty = self.forked(decoder, context, draft, rules, 3)
        (candidate,) = certainty.candidates
        assert candidate.text == draft.text
        # both spellings together are all that the grammar allows
        assert candidate.log_prob == pytest.approx(0, abs=1e-5)
        assert certainty.value == 1

    def test_a_draft_without_choices_is_certain(self, tiny: LanguageModel) -> None:
        decoder, context, _ = drafted(tiny, None, tokens=1)
        draft = Generation((5,), "x", (), True)
        certainty = self.forked(decoder, context, draft, None, 3)
        assert certainty.value == 1
        assert [c.text for c in certainty.candidates] == ["x"]

    def test_ends_with_the_time_budget(self, tiny: LanguageModel, calls_only: Grammar) -> None:
        decoder, context, draft = drafted(tiny, calls_only)
        with pytest.raises(BudgetSpent):
            forked_calls(decoder, context, draft, calls_only, 3, DecodingConfig(), Deadline(at=0.0))


class TestNames:
    @pytest.mark.parametrize("call_format", ["json", "fenced", "tagged"])
    def test_log_probs_are_those_of_the_whole_sequence(
        self, tiny: LanguageModel, call_format: CallFormat
    ) -> None:
        context = tiny.prefill(Request.parse("Dim the attic", TOOLS))
        listed = ["dim", "light", "heat"]
        told = name_log_probs(Decoder(tiny), context, list(context.turn), listed, call_format)
        start = [*context.prefix.ids, *context.turn]
        for name, log_prob in zip(listed, told, strict=True):
            answer = tiny.encode(opening(name, call_format))
            expected = whole_sequence(tiny, [*start, *answer], len(answer))
            assert log_prob == pytest.approx(expected, abs=1e-3)

    def test_certainty_is_rss_over_the_listed_names(
        self, tiny: LanguageModel, calls_only: Grammar
    ) -> None:
        decoder, context, draft = drafted(tiny, calls_only)
        certainty = names(decoder, context, draft)
        assert [c.text for c in certainty.candidates] == ["dim", "light", "heat"]
        told = name_log_probs(
            decoder, context, list(context.turn), ["dim", "light", "heat"], "json"
        )
        assert [c.log_prob for c in certainty.candidates] == pytest.approx(told)
        assert certainty.value == rss.certainty(told)

    def test_one_tool_has_no_rival(self, tiny: LanguageModel, calls_only: Grammar) -> None:
        decoder, context, draft = drafted(tiny, ROOM_SPELT, tools=1)
        assert names(decoder, context, draft).value == 1

    def test_words_name_no_tool(self, tiny: LanguageModel) -> None:
        decoder, context, _ = drafted(tiny, None, tokens=1)
        assert names(decoder, context, Generation((5,), "Hello", (), True)).value == 1

    def test_the_prefix_is_not_changed(self, tiny: LanguageModel) -> None:
        context = tiny.prefill(Request.parse("Dim the attic", TOOLS))
        once, again = (
            name_log_probs(Decoder(tiny), context, list(context.turn), ["dim", "heat"], "json")
            for _ in range(2)
        )
        assert once == again


@pytest.mark.parametrize("estimator", ["margin", "rss-calls", "rss-names"])
def test_assess_takes_the_configured_estimator(
    tiny: LanguageModel, calls_only: Grammar, estimator: Any
) -> None:
    decoder, context, draft = drafted(tiny, calls_only)
    decoding = DecodingConfig(max_new_tokens=len(draft.ids))
    expected = {
        "margin": lambda: token_margin(decoder, draft),
        "rss-names": lambda: names(decoder, context, draft),
        "rss-calls": lambda: forked_calls(
            decoder, context, draft, calls_only, 2, decoding, Deadline()
        ),
    }
    config = Config(awareness={"estimator": estimator, "forks": 2}, decoding=decoding)
    whole = Draft(context, draft, calls_only, Reply(draft.text), None, {})
    told = assess(decoder, whole, config, Deadline())
    assert told == expected[estimator]()
    assert len({f().value for f in expected.values()}) == 3
