"""Certainty of a draft, on a tiny random model; every number is recomputed another way."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from quickstudy.awareness import rss
from quickstudy.awareness.choices import choices
from quickstudy.awareness.estimators import assess, check, chosen
from quickstudy.awareness.forks import forked
from quickstudy.awareness.margin import token_margin
from quickstudy.awareness.merging import Likelihood, relative, same
from quickstudy.awareness.names import name_log_probs, names
from quickstudy.awareness.reference import Calibration, Reference, Threshold, deviation
from quickstudy.awareness.samples import sampled, scored
from quickstudy.config import THRESHOLD, AwarenessConfig, Config, DecodingConfig
from quickstudy.decoding import Ask, Choice, Deadline, Decoder, Draft, Generation
from quickstudy.errors import BudgetSpent, ConfigError
from quickstudy.model import LanguageModel
from quickstudy.toolcalls import CallFormat, Grammar, grammar, opening, read
from quickstudy.types import Certainty, Request

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
) -> tuple[Decoder, Draft]:
    decoder = Decoder(model)
    context = model.prefill(Request.parse("Dim the attic", TOOLS[:tools]))
    (said,) = decoder.decode(
        context.prefix, [Ask(context.turn, rules)], max_new_tokens=tokens, deadline=Deadline()
    )
    reply, call_format = read(said.text, context.request.tools)
    return decoder, Draft(context, said, rules, reply, call_format, {})


def settings(tokens: int = 80, seed: int = 0, **awareness: Any) -> Config:
    return Config(
        seed=seed,
        awareness=AwarenessConfig(**awareness),
        decoding=DecodingConfig(max_new_tokens=tokens),
    )


@pytest.fixture
def calls_only(tiny: LanguageModel) -> Grammar:
    """One call and no words, which a random model would never leave."""
    rules = grammar(Request.parse("x", TOOLS).tools, tiny.single_tokens, "json").lark
    call = next(line for line in rules.splitlines() if line.startswith("call:"))
    return Grammar(f'start: "[" call "]"\n{call}')


class TestMargin:
    def test_is_the_smallest_of_the_draft(self, tiny: LanguageModel, calls_only: Grammar) -> None:
        decoder, draft = drafted(tiny, calls_only)
        said = draft.generation
        assert said.finished
        assert len(said.choices) == 2  # the tool's name and the room
        certainty = token_margin(decoder, said)
        assert certainty.value == min(choice.margin for choice in said.choices)
        assert 0 <= certainty.value < 1

    def test_candidates_are_the_two_ways_on(self, tiny: LanguageModel, calls_only: Grammar) -> None:
        decoder, draft = drafted(tiny, calls_only)
        said = draft.generation
        least = min(said.choices, key=lambda choice: choice.margin)
        taken, rival = token_margin(decoder, said).candidates
        assert said.text.startswith(taken.text) or least.index == len(said.ids)
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
    def forked(decoder: Decoder, draft: Draft, forks: int, how: Likelihood = "sum") -> Certainty:
        limit = max(len(draft.generation.ids), 12)
        answers = forked(decoder, draft, settings(limit, forks=forks), Deadline())
        return relative(answers, draft.context.request.tools, how)

    def test_the_draft_comes_first_with_its_own_probability(
        self, tiny: LanguageModel, calls_only: Grammar
    ) -> None:
        decoder, draft = drafted(tiny, calls_only)
        certainty = self.forked(decoder, draft, 3)
        first, *rivals = certainty.candidates
        assert first.text == draft.generation.text
        assert first.log_prob == pytest.approx(draft.generation.log_prob)
        assert 1 <= len(rivals) <= 3
        assert certainty.value == rss.certainty([c.log_prob for c in certainty.candidates])
        tools = draft.context.request.tools
        replies = [read(c.text, tools)[0] for c in certainty.candidates]
        assert len({json.dumps(reply.to_json()) for reply in replies}) == len(replies)

    def test_a_forks_probability_is_that_of_its_whole_sequence(self, tiny: LanguageModel) -> None:
        decoder, draft = drafted(tiny, None, tokens=12)
        context, said = draft.context, draft.generation
        answers = forked(decoder, draft, settings(12, forks=2), Deadline())
        least = sorted(said.choices, key=lambda choice: choice.margin)[:2]
        start = [*context.prefix.ids, *context.turn]
        expected = [whole_sequence(tiny, [*start, *said.ids], len(said.ids))]
        lengths = [len(said.ids)]
        for choice in least:
            given = [*said.ids[: choice.index], choice.runner_up]
            (rival,) = decoder.decode(
                context.prefix,
                [Ask(context.turn, None, given)],
                max_new_tokens=12,
                deadline=Deadline(),
            )
            ends = [tiny.tokenizer.eos_token_id] if rival.finished else []
            ids = [*start, *rival.ids, *ends]
            lengths.append(len(rival.ids) + len(ends))
            expected.append(whole_sequence(tiny, ids, lengths[-1]))
        assert [answer.log_prob for answer in answers] == pytest.approx(expected, abs=1e-3)
        # without a grammar every token is chosen, so a mean is over all of them
        assert [answer.tokens for answer in answers] == lengths

    @pytest.mark.parametrize("rules", [ROOM_SPELT, LEVEL_SPELT])
    def test_forks_with_equal_calls_are_one_candidate(
        self, tiny: LanguageModel, rules: Grammar
    ) -> None:
        decoder, draft = drafted(tiny, rules, tools=1)
        (choice,) = draft.generation.choices
        assert 0 < choice.margin < 1
        certainty = self.forked(decoder, draft, 3)
        (candidate,) = certainty.candidates
        assert candidate.text == draft.generation.text
        # both spellings together are all that the grammar allows
        assert candidate.log_prob == pytest.approx(0, abs=1e-5)
        assert certainty.value == 1

    def test_a_mean_is_over_what_the_model_chose(
        self, tiny: LanguageModel, calls_only: Grammar
    ) -> None:
        decoder, draft = drafted(tiny, calls_only)
        total, mean = (self.forked(decoder, draft, 3, how) for how in ("sum", "mean"))
        # every call here has two choices, the name and the room
        assert [c.log_prob for c in mean.candidates] == pytest.approx(
            [c.log_prob / 2 for c in total.candidates]
        )
        assert mean.value < total.value

    def test_a_draft_without_choices_is_certain(self, tiny: LanguageModel) -> None:
        decoder, draft = drafted(tiny, None, tokens=1)
        draft = replace(draft, generation=Generation((5,), "x", (), True))
        certainty = self.forked(decoder, draft, 3)
        assert certainty.value == 1
        assert [c.text for c in certainty.candidates] == ["x"]

    def test_ends_with_the_time_budget(self, tiny: LanguageModel, calls_only: Grammar) -> None:
        decoder, draft = drafted(tiny, calls_only)
        with pytest.raises(BudgetSpent):
            forked(decoder, draft, settings(), Deadline(at=0.0))


class TestNames:
    @pytest.mark.parametrize("call_format", ["json", "fenced", "tagged"])
    def test_log_probs_are_those_of_the_whole_sequence(
        self, tiny: LanguageModel, call_format: CallFormat
    ) -> None:
        context = tiny.prefill(Request.parse("Dim the attic", TOOLS))
        listed = ["dim", "light", "heat"]
        told = name_log_probs(Decoder(tiny), context, context.turn, listed, call_format)
        start = [*context.prefix.ids, *context.turn]
        for name, log_prob in zip(listed, told, strict=True):
            answer = tiny.encode(opening(name, call_format))
            expected = whole_sequence(tiny, [*start, *answer], len(answer))
            assert log_prob == pytest.approx(expected, abs=1e-3)

    def test_certainty_is_rss_over_the_listed_names(
        self, tiny: LanguageModel, calls_only: Grammar
    ) -> None:
        decoder, draft = drafted(tiny, calls_only)
        certainty = names(decoder, draft)
        listed = ["dim", "light", "heat"]
        assert [c.text for c in certainty.candidates] == listed
        told = name_log_probs(decoder, draft.context, draft.context.turn, listed, "json")
        assert [c.log_prob for c in certainty.candidates] == pytest.approx(told)
        assert certainty.value == rss.certainty(told)

    def test_a_mean_is_over_the_tokens_that_differ(
        self, tiny: LanguageModel, calls_only: Grammar
    ) -> None:
        decoder, draft = drafted(tiny, calls_only)
        certainty = names(decoder, draft, "mean")
        start = [*draft.context.prefix.ids, *draft.context.turn]
        for candidate in certainty.candidates:
            answer = tiny.encode(opening(candidate.text, "json"))
            own = len(candidate.text) + len('",')  # one token a byte; no two names begin alike
            expected = whole_sequence(tiny, [*start, *answer], own) / own
            assert candidate.log_prob == pytest.approx(expected, abs=1e-3)
        assert certainty.value == rss.certainty([c.log_prob for c in certainty.candidates])

    def test_one_tool_has_no_rival(self, tiny: LanguageModel, calls_only: Grammar) -> None:
        decoder, draft = drafted(tiny, ROOM_SPELT, tools=1)
        assert draft.call_format
        assert names(decoder, draft).value == 1

    def test_words_name_no_tool(self, tiny: LanguageModel) -> None:
        decoder, draft = drafted(tiny, None, tokens=1)
        assert draft.call_format is None
        assert names(decoder, draft).value == 1

    def test_the_prefix_is_not_changed(self, tiny: LanguageModel) -> None:
        context = tiny.prefill(Request.parse("Dim the attic", TOOLS))
        once, again = (
            name_log_probs(Decoder(tiny), context, context.turn, ["dim", "heat"], "json")
            for _ in range(2)
        )
        assert once == again


class TestSamples:
    def test_one_seed_the_same_answers(self, tiny: LanguageModel, calls_only: Grammar) -> None:
        decoder, draft = drafted(tiny, calls_only)
        first, again, other = (
            [g.text for g in sampled(decoder, draft, settings(seed=seed, samples=5), Deadline())]
            for seed in (0, 0, 1)
        )
        assert len(first) == 5
        assert first == again
        assert first != other

    def test_each_distinct_call_competes_with_the_models_probability(
        self, tiny: LanguageModel, calls_only: Grammar
    ) -> None:
        decoder, draft = drafted(tiny, calls_only)
        drawn = sampled(decoder, draft, settings(samples=5), Deadline())
        certainty = relative(scored(draft.generation, drawn), draft.context.request.tools, "sum")
        texts = {g.text: g.log_prob for g in (draft.generation, *drawn)}
        assert 1 < len(texts) <= 6
        # no two texts are the same call, as the grammar spells each in one way
        assert {c.text: c.log_prob for c in certainty.candidates} == texts
        assert certainty.candidates[0].text == draft.generation.text
        assert certainty.value == rss.certainty(list(texts.values()))

    def test_spellings_of_one_call_are_one_candidate(self, tiny: LanguageModel) -> None:
        decoder, draft = drafted(tiny, ROOM_SPELT, tools=1)
        drawn = sampled(decoder, draft, settings(samples=30), Deadline())
        assert len({g.text for g in drawn}) == 2
        certainty = relative(scored(draft.generation, drawn), draft.context.request.tools, "sum")
        (candidate,) = certainty.candidates
        assert candidate.log_prob == pytest.approx(0, abs=1e-5)
        assert certainty.value == 1


def choosing(model: LanguageModel, *listed: str) -> tuple[Decoder, Draft]:
    decoder, draft = drafted(model, None, tokens=2)
    context = model.prefill(Request.parse("A or B?", choices=list(listed) or None))
    return decoder, replace(draft, context=context)


class TestChoices:
    @pytest.mark.parametrize("how", ["sum", "mean"])
    def test_whole_answers_compete(self, tiny: LanguageModel, how: Likelihood) -> None:
        listed = ["A", "B", "neither of them"]
        decoder, draft = choosing(tiny, *listed)
        certainty = choices(decoder, draft, how)
        start = [*draft.context.prefix.ids, *draft.context.turn]
        for text, candidate in zip(listed, certainty.candidates, strict=True):
            answer = [*tiny.encode(text), tiny.tokenizer.eos_token_id]
            expected = whole_sequence(tiny, [*start, *answer], len(answer))
            expected /= len(answer) if how == "mean" else 1
            assert candidate.text == text
            assert candidate.log_prob == pytest.approx(expected, abs=1e-3)
        assert certainty.value == rss.certainty([c.log_prob for c in certainty.candidates])

    def test_the_prefix_is_not_changed(self, tiny: LanguageModel) -> None:
        decoder, draft = choosing(tiny, "A", "B")
        before = draft.context.prefix.cache.get_seq_length()
        once, again = (choices(decoder, draft, "sum") for _ in range(2))
        assert once == again
        assert draft.context.prefix.cache.get_seq_length() == before

    def test_without_choices_the_margin_is_taken(self, tiny: LanguageModel) -> None:
        decoder, draft = choosing(tiny)
        assert choices(decoder, draft, "sum") == token_margin(decoder, draft.generation)


ESTIMATORS = ["margin", "reference", "rss-names", "rss-choices", "rss-calls", "rss-samples"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_assess_takes_the_configured_estimator(
    tiny: LanguageModel, calls_only: Grammar, estimator: str, tmp_path: Path
) -> None:
    decoder, draft = drafted(tiny, calls_only)
    asked = replace(draft.context.request, choices=("yes", "never"))
    draft = replace(draft, context=replace(draft.context, request=asked))
    known = Reference.of({"tool_name": [0.001, 0.9], "argument_value": [0.001, 0.9]})
    file = tmp_path / "calibration.json"
    file.write_text(
        Calibration(
            quickstudy="0",
            model="tiny",
            constrained=True,
            call_formats={},
            requests=2,
            known_good=2,
            deviations=1,
            margins=dict(known.margins),
            thresholds={"reference": Threshold(tau=0.25, practised=0, sure=2, wrong_and_sure=None)},
        ).dumps()
    )
    config = settings(
        len(draft.generation.ids),
        seed=7,
        estimator=estimator,
        score="mean",
        forks=2,
        samples=3,
        temperature=2.0,
        reference=file,
        deviations=1,
    )
    expected = {
        "margin": lambda: token_margin(decoder, draft.generation),
        "reference": lambda: deviation(decoder, draft, known, 1),
        "rss-names": lambda: names(decoder, draft, "mean"),
        "rss-choices": lambda: choices(decoder, draft, "mean"),
        "rss-calls": lambda: relative(
            forked(decoder, draft, config, Deadline()), asked.tools, "mean"
        ),
        "rss-samples": lambda: relative(
            scored(draft.generation, sampled(decoder, draft, config, Deadline())),
            asked.tools,
            "mean",
        ),
    }
    assert check(tiny, config) == (0.25 if estimator == "reference" else THRESHOLD)
    assert check(tiny, config.model_copy(update={"method": "base"})) == THRESHOLD
    assert assess(decoder, draft, config, Deadline()) == expected[estimator]()
    assert len({f().value for f in expected.values()}) == len(ESTIMATORS)


@pytest.mark.parametrize("estimator", ["rss-names", "rss-choices", "rss-calls", "rss-samples"])
def test_what_costs_time_ends_with_the_budget(
    tiny: LanguageModel, calls_only: Grammar, estimator: str
) -> None:
    decoder, draft = drafted(tiny, calls_only)
    with pytest.raises(BudgetSpent):
        assess(decoder, draft, settings(estimator=estimator), Deadline(at=0.0))


class TestAuto:
    def test_goes_by_the_kind_of_request(self) -> None:
        settings = AwarenessConfig(score="mean")
        assert settings.estimator == "auto"

        def taken(**request: Any) -> tuple[str, str]:
            told = chosen(settings, Request.parse("x", **request))
            return told.estimator, told.score

        assert taken(choices=["A", "B"]) == ("rss-choices", "mean")
        assert taken(choices=["A", "B"], tools=TOOLS) == ("rss-choices", "mean")
        assert taken(tools=TOOLS) == ("margin", "mean")
        assert taken() == ("rss-samples", "votes")

    def test_an_estimator_that_is_set_stays(self) -> None:
        settings = AwarenessConfig(estimator="rss-calls")
        assert chosen(settings, Request.parse("x", choices=["A", "B"])) == settings

    def test_of_calls_is_their_margin(self, tiny: LanguageModel, calls_only: Grammar) -> None:
        decoder, draft = drafted(tiny, calls_only)
        expected = token_margin(decoder, draft.generation)
        # and it costs nothing, so no deadline can end it
        assert assess(decoder, draft, settings(), Deadline(at=0.0)) == expected

    def test_of_choices_is_rss_over_them(self, tiny: LanguageModel) -> None:
        decoder, draft = choosing(tiny, "A", "B", "neither")
        assert assess(decoder, draft, settings(), Deadline()) == choices(decoder, draft, "sum")

    def test_of_a_plain_question_is_by_votes(self, tiny: LanguageModel) -> None:
        decoder, draft = drafted(tiny, spelt("level", '"5" | "5.0" | "6" | "7"'), tools=0)
        config = settings(samples=8)
        drawn = [g.text for g in sampled(decoder, draft, config, Deadline())]
        shares = sorted(
            (len(group) / 9 for group in same([draft.generation.text, *drawn])), reverse=True
        )
        assert len(shares) > 1
        certainty = assess(decoder, draft, config, Deadline())
        assert certainty.value == pytest.approx(shares[0] - shares[1])
        told = sorted((math.exp(c.log_prob) for c in certainty.candidates), reverse=True)
        assert told == pytest.approx(shares)


class TestCheck:
    def test_the_threshold_that_is_set_wins(self, tiny: LanguageModel) -> None:
        assert check(tiny, settings(threshold=0)) == 0
        assert check(tiny, settings()) == THRESHOLD

    def test_asks_for_the_calibration_file(self, tiny: LanguageModel) -> None:
        check(tiny, settings())
        with pytest.raises(ConfigError, match="quickstudy calibrate --requests"):
            check(tiny, settings(estimator="reference"))

    def test_base_needs_none(self, tiny: LanguageModel) -> None:
        check(tiny, Config(method="base", awareness=AwarenessConfig(estimator="reference")))
