"""Decoding is compared with a plain loop: the whole sequence, no cache, one row, one token."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from llguidance import LLMatcher
from torch import Tensor

from quickstudy import toolcalls
from quickstudy.decoding import Ask, Choice, Deadline, Decoder, Generation
from quickstudy.errors import BudgetSpent, PracticeFailed
from quickstudy.model import Context, LanguageModel
from quickstudy.toolcalls import Grammar
from quickstudy.types import Request

NEVER = Deadline()
TOOLS = [
    {
        "name": "set_light",
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"enum": ["kitchen", "attic", "hall"]},
                "level": {"type": "integer", "minimum": 0, "maximum": 99},
            },
            "required": ["room"],
        },
    },
    {
        "name": "play",
        "parameters": {
            "type": "object",
            "properties": {"loud": {"type": "boolean"}, "song": {"enum": ["Help", "Yesterday"]}},
            "required": ["loud", "song"],
        },
    },
]
TURNS = ("Light!", "Play something nice and slow, please", "a", "The hall to 7? " * 3)


class Whole(NamedTuple):
    """What a loop over whole sequences says: all tokens, and (place, token, log P) of choices."""

    ids: list[int]
    choices: list[tuple[int, int, float]]
    finished: bool


def request(text: str = TURNS[0]) -> Request:
    return Request.parse(text, TOOLS)


def calls_only(model: LanguageModel, *, many: bool = True) -> Grammar:
    """The tools' real calls without plain words, which a random model always prefers."""
    lark = toolcalls.grammar(request().tools, model.single_tokens, "json").lark
    (call,) = (line for line in lark.splitlines() if line.startswith("call:"))
    rest = '(", " call)*' if many else ""
    return Grammar(f'start: "[" call {rest} "]"\n{call}')


def last_logits(model: LanguageModel, ids: list[int]) -> Tensor:
    with torch.no_grad():
        output = model.network(torch.tensor([ids]), use_cache=False)
    return output.logits[0, -1].float()


def allowed_tokens(decoder: Decoder, grammar: Grammar, ids: list[int]) -> list[int]:
    """Each token tried in turn; not the bit mask that decoding uses."""
    matcher = LLMatcher(decoder.vocabulary, grammar.lark, log_level=0)
    assert matcher.consume_tokens(ids)
    size = decoder.model.network.config.vocab_size
    return [token for token in range(size) if matcher.validate_tokens([token]) == 1]


def masked_log_probs(
    decoder: Decoder, context: list[int], grammar: Grammar | None, ids: list[int]
) -> Tensor:
    logits = last_logits(decoder.model, [*context, *ids])
    if grammar is not None:
        masked = torch.full_like(logits, -torch.inf)
        keep = allowed_tokens(decoder, grammar, ids)
        masked[keep] = logits[keep]
        logits = masked
    return logits.log_softmax(-1)


def decode_whole(decoder: Decoder, context: list[int], grammar: Grammar | None, most: int) -> Whole:
    """Greedy decoding without a cache, without batches, without fast-forwarding."""
    ids: list[int] = []
    choices = []
    while len(ids) < most:
        if grammar is not None and not allowed_tokens(decoder, grammar, ids):
            return Whole(ids, choices, True)
        log_probs = masked_log_probs(decoder, context, grammar, ids)
        token = int(log_probs.argmax())
        if int(log_probs.isfinite().sum()) > 1:
            choices.append((len(ids), token, float(log_probs[token])))
        if token in decoder.model.eos_ids:
            return Whole(ids, choices, True)
        ids.append(token)
    return Whole(ids, choices, False)


@pytest.fixture
def decoder(tiny: LanguageModel) -> Decoder:
    return Decoder(tiny)


@pytest.fixture
def context(tiny: LanguageModel) -> Context:
    return tiny.prefill(request())


def turn(model: LanguageModel, context: Context, text: str) -> list[int]:
    ids = model.turn(context, request(text).messages, "json")
    assert ids is not None
    return ids


def one(
    decoder: Decoder,
    context: Context,
    grammar: Grammar | None = None,
    most: int = 24,
    *,
    given: Sequence[int] = (),
    deadline: Deadline = NEVER,
    **more: Any,
) -> Generation:
    ask = Ask(context.turn, grammar, given)
    return decoder.decode(context.prefix, [ask], max_new_tokens=most, deadline=deadline, **more)[0]


class TestCachedIsWhole:
    """float32: token for token, whatever is cached, batched, padded or fed at once."""

    @pytest.mark.parametrize("text", TURNS)
    @pytest.mark.parametrize("constrained", [False, True])
    def test_continuing_a_prefix(self, decoder: Decoder, text: str, constrained: bool) -> None:
        context = decoder.model.prefill(request(text))
        grammar = calls_only(decoder.model) if constrained else None
        got = one(decoder, context, grammar)
        expected = decode_whole(decoder, [*context.prefix.ids, *context.turn], grammar, 24)
        # fast-forwarding does not stop in the middle of what is forced, a plain loop does
        assert list(got.ids)[: len(expected.ids)] == expected.ids
        assert len(context.prefix.ids) > 100
        assert len(expected.ids) >= 20 or expected.finished

    def test_a_whole_call(self, decoder: Decoder, context: Context) -> None:
        grammar = calls_only(decoder.model, many=False)
        got = one(decoder, context, grammar, 120)
        expected = decode_whole(decoder, [*context.prefix.ids, *context.turn], grammar, 120)
        assert expected.finished
        assert got.finished
        assert list(got.ids) == expected.ids
        choices = [(choice.index, choice.token) for choice in got.choices]
        assert choices == [(index, token) for index, token, _ in expected.choices]
        assert len(choices) < len(got.ids) / 4, "most of a call is forced"
        assert got.log_prob == pytest.approx(sum(c[2] for c in expected.choices), abs=1e-4)

    def test_a_ragged_batch_is_each_row_alone(self, decoder: Decoder, context: Context) -> None:
        model, grammar = decoder.model, calls_only(decoder.model)
        given = model.encode('[{"name": "pl')
        asks = [
            Ask(turn(model, context, TURNS[0]), grammar),
            Ask(turn(model, context, TURNS[1]), None),
            Ask(turn(model, context, TURNS[2]), grammar, given),
            Ask(turn(model, context, TURNS[3]), Grammar('start: "no"')),
            Ask(turn(model, context, TURNS[0]), Grammar("start: /x{1,3}/")),
        ]
        together = decoder.decode(context.prefix, asks, max_new_tokens=40, deadline=NEVER)
        alone = [
            decoder.decode(context.prefix, [ask], max_new_tokens=40, deadline=NEVER)[0]
            for ask in asks
        ]
        assert [g.ids for g in together] == [g.ids for g in alone]
        assert [g.finished for g in together] == [g.finished for g in alone]
        for left, right in zip(together, alone, strict=True):
            assert left.log_prob == pytest.approx(right.log_prob, abs=1e-4)
        assert len({len(g.ids) for g in together}) > 2, "rows end at different times"

    def test_a_ragged_batch_without_a_prefix(self, decoder: Decoder) -> None:
        model = decoder.model
        asks = [Ask(model.encode(text)) for text in TURNS]
        together = decoder.decode(None, asks, max_new_tokens=16, deadline=NEVER)
        for ask, got in zip(asks, together, strict=True):
            assert list(got.ids) == decode_whole(decoder, list(ask.turn), None, 16).ids

    def test_equal_rows_give_equal_answers(self, decoder: Decoder, context: Context) -> None:
        asks = [Ask(context.turn)] * 3
        rows = decoder.decode(context.prefix, asks, max_new_tokens=16, deadline=NEVER)
        assert rows[0].ids == rows[1].ids == rows[2].ids


class TestChoices:
    @pytest.mark.parametrize("constrained", [False, True])
    def test_probabilities_are_those_of_the_allowed_tokens(
        self, decoder: Decoder, context: Context, constrained: bool
    ) -> None:
        grammar = calls_only(decoder.model) if constrained else None
        got = one(decoder, context, grammar, 120 if constrained else 12)
        assert len(got.choices) > 5
        for choice in got.choices:
            told = masked_log_probs(
                decoder,
                [*context.prefix.ids, *context.turn],
                grammar,
                list(got.ids[: choice.index]),
            )
            best = told.topk(2)
            assert (choice.token, choice.runner_up) == tuple(best.indices.tolist())
            assert choice.log_prob == pytest.approx(float(best.values[0]), abs=1e-4)
            assert choice.rival == pytest.approx(float(best.values[1]), abs=1e-4)
            first, second = best.values.exp().tolist()
            assert choice.margin == pytest.approx(first - second, abs=1e-4)
            if choice.index < len(got.ids):
                assert got.ids[choice.index] == choice.token

    def test_what_is_no_choice_was_forced(self, decoder: Decoder, context: Context) -> None:
        grammar = calls_only(decoder.model)
        got = one(decoder, context, grammar, 60)
        chosen = {choice.index for choice in got.choices}
        forced = [place for place in range(len(got.ids)) if place not in chosen]
        assert len(forced) > 20
        for place in forced:
            allowed = allowed_tokens(decoder, grammar, list(got.ids[:place]))
            assert allowed == [got.ids[place]]

    def test_stopping_is_a_choice_one_past_the_end(
        self, decoder: Decoder, context: Context
    ) -> None:
        """After `x` the model may stop or go on; stopping shows as a choice, not as a token."""
        outcomes = set()
        for seed in range(12):
            got = one(
                decoder,
                context,
                Grammar("start: /x{1,2}/"),
                temperature=1.0,
                generator=torch.Generator().manual_seed(seed),
            )
            assert got.finished
            assert got.text == "x" * len(got.ids)
            (choice,) = got.choices
            assert choice.index == 1
            assert (choice.token in decoder.model.eos_ids) == (len(got.ids) == 1)
            assert not decoder.model.eos_ids & set(got.ids)
            outcomes.add(got.text)
        assert outcomes == {"x", "xx"}

    def test_a_fully_forced_answer_has_no_choice(self, decoder: Decoder, context: Context) -> None:
        got = one(decoder, context, Grammar('start: "yes"'))
        assert got == Generation(tuple(decoder.model.encode("yes")), "yes", (), True)
        assert got.log_prob == 0

    def test_margin_of_a_sampled_outsider_is_zero(self) -> None:
        assert Choice(0, 1, math.log(0.1), 2, math.log(0.6)).margin == 0
        assert Choice(0, 1, math.log(0.6), 2, math.log(0.1)).margin == pytest.approx(0.5)
        assert Choice(0, 1, 0.0, 2, -math.inf).margin == 1


class TestGiven:
    def test_the_greedy_answer_goes_on_from_its_own_beginning(
        self, decoder: Decoder, context: Context
    ) -> None:
        grammar = calls_only(decoder.model)
        draft = one(decoder, context, grammar, 60)
        for cut in (1, 20, 41):
            again = one(decoder, context, grammar, 60, given=draft.ids[:cut])
            assert again.ids == draft.ids
            kept = [choice for choice in draft.choices if choice.index >= cut]
            assert [(c.index, c.token) for c in again.choices] == [(c.index, c.token) for c in kept]

    def test_another_beginning_is_kept(self, decoder: Decoder, context: Context) -> None:
        given = decoder.model.encode('[{"name": "play", "arguments": {"loud": f')
        got = one(decoder, context, calls_only(decoder.model), given=given)
        assert got.text.startswith('[{"name": "play", "arguments": {"loud": false, "song": "')
        assert min(choice.index for choice in got.choices) >= len(given)

    def test_tokens_outside_the_grammar_are_refused(
        self, decoder: Decoder, context: Context
    ) -> None:
        with pytest.raises(ValueError, match="refuses the given tokens"):
            one(decoder, context, calls_only(decoder.model), given=decoder.model.encode("Hello"))


class TestEnding:
    @pytest.mark.parametrize("constrained", [False, True])
    def test_a_cut_off_answer_is_not_finished(
        self, decoder: Decoder, context: Context, constrained: bool
    ) -> None:
        grammar = calls_only(decoder.model) if constrained else None
        got = one(decoder, context, grammar, 5)
        assert not got.finished
        assert len(got.ids) >= 5

    def test_plain_tokens_are_never_more_than_allowed(
        self, decoder: Decoder, context: Context
    ) -> None:
        assert len(one(decoder, context, None, 5).ids) == 5

    def test_a_grammar_that_ends_on_the_last_token_is_finished(
        self, decoder: Decoder, context: Context
    ) -> None:
        got = one(decoder, context, Grammar("start: /[xy]{3}/"), 3)
        assert len(got.ids) == 3
        assert got.finished

    def test_the_end_of_turn_token_ends_without_a_grammar(
        self, decoder: Decoder, context: Context
    ) -> None:
        rows = decoder.decode(
            context.prefix,
            [Ask(context.turn)] * 16,
            max_new_tokens=60,
            deadline=NEVER,
            temperature=3.0,
            generator=torch.Generator().manual_seed(0),
        )
        ended = [row for row in rows if row.finished]
        assert ended, "16 rows of 60 near-uniform tokens out of 261: some end by chance"
        for row in rows:
            assert not decoder.model.eos_ids & set(row.ids)
            assert row.finished == (row.choices[-1].index == len(row.ids))
            assert row.finished or len(row.ids) == 60

    def test_a_stop_text_ends_the_row_and_is_cut_off(
        self, decoder: Decoder, context: Context
    ) -> None:
        free = one(decoder, context, None, 24)
        stop = free.text[6:8]
        assert "\ufffd" not in stop
        got = one(decoder, context, None, 24, stop=stop)
        assert got.finished
        assert got.text == free.text.split(stop, 1)[0]
        assert len(got.ids) < len(free.ids)

    def test_no_time_left(self, decoder: Decoder, context: Context) -> None:
        with pytest.raises(BudgetSpent) as caught:
            one(decoder, context, deadline=Deadline(time.monotonic() - 1))
        assert isinstance(caught.value, PracticeFailed)

    def test_time_runs_out_on_the_way(self, decoder: Decoder, context: Context) -> None:
        with pytest.raises(BudgetSpent):
            one(decoder, context, None, 3000, deadline=Deadline.after(0.05))

    def test_a_deadline_that_is_not_reached(self, decoder: Decoder, context: Context) -> None:
        assert Deadline.after(None) == Deadline()
        got = one(decoder, context, None, 4, deadline=Deadline.after(600))
        assert got == one(decoder, context, None, 4)


class TestGrammar:
    def test_what_finishes_as_a_call_is_a_valid_call(self, decoder: Decoder) -> None:
        """A random model, sampled hot, made to open each format: what it says can be called."""
        model, tools = decoder.model, request().tools
        grammar = toolcalls.grammar(tools, model.single_tokens, None)
        openings = {"json": "[", "fenced": '```json\n[{"name', "tagged": "<tool_call>"}
        context = model.prefill(request())
        rows = decoder.decode(
            context.prefix,
            [Ask(context.turn, grammar, model.encode(text)) for text in openings.values()] * 8,
            max_new_tokens=160,
            deadline=NEVER,
            temperature=2.0,
            generator=torch.Generator().manual_seed(0),
        )
        spoken = []
        for row in rows:
            reply, call_format = toolcalls.read(row.text, tools)
            if row.finished and reply.tool_calls:
                spoken.append(call_format)
                for call in reply.tool_calls:
                    assert toolcalls.problem(call, tools) is None, row.text
        assert set(spoken) == set(openings)
        assert len(spoken) > 5

    def test_words_stay_possible(self, decoder: Decoder, context: Context) -> None:
        grammar = toolcalls.grammar(request().tools, decoder.model.single_tokens, None)
        got = one(decoder, context, grammar, given=decoder.model.encode("Sorry, "))
        assert got.text.startswith("Sorry, ")

    def test_a_broken_grammar_is_named(self, decoder: Decoder, context: Context) -> None:
        with pytest.raises(ValueError, match="no grammar"):
            one(decoder, context, Grammar("start: nowhere"))


class TestSampling:
    def test_one_seed_one_answer(self, decoder: Decoder, context: Context) -> None:
        def sample(seed: int) -> tuple[int, ...]:
            generator = torch.Generator().manual_seed(seed)
            return one(decoder, context, None, temperature=1.0, generator=generator).ids

        assert sample(3) == sample(3)
        assert len({sample(seed) for seed in range(4)}) == 4

    def test_no_temperature_is_greedy(self, decoder: Decoder, context: Context) -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        first, second = (one(decoder, context, None, generator=g).ids for g in generators)
        assert first == second

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_shares_follow_the_temperature(
        self, decoder: Decoder, context: Context, temperature: float
    ) -> None:
        """n draws of `a` against `b`; 4 standard deviations are allowed, the seed is fixed."""
        grammar, rows = Grammar('start: "a" | "b"'), 400
        whole = [*context.prefix.ids, *context.turn]
        pair = [decoder.model.encode(letter)[0] for letter in "ab"]
        share = float((last_logits(decoder.model, whole)[pair] / temperature).softmax(-1)[0])
        drawn = decoder.decode(
            context.prefix,
            [Ask(context.turn, grammar)] * rows,
            max_new_tokens=4,
            deadline=NEVER,
            temperature=temperature,
            generator=torch.Generator().manual_seed(1),
        )
        seen = sum(row.text == "a" for row in drawn) / rows
        assert abs(seen - share) < 4 * math.sqrt(share * (1 - share) / rows)
        # what is recorded is the model's own probability, whatever the temperature
        told = masked_log_probs(decoder, whole, grammar, [])
        for row in drawn[:20]:
            assert row.choices[0].log_prob == pytest.approx(float(told[row.ids[0]]), abs=1e-4)

    def test_global_random_state_is_not_used(self, decoder: Decoder, context: Context) -> None:
        before = torch.random.get_rng_state()
        generator = torch.Generator().manual_seed(0)
        one(decoder, context, None, 4, temperature=1.0, generator=generator)
        assert torch.equal(before, torch.random.get_rng_state())


class TestPrefixIsKept:
    def test_decoding_never_changes_it(self, decoder: Decoder, context: Context) -> None:
        layers = context.prefix.cache.layers
        before = [(layer.keys, layer.keys.clone(), layer.values.clone()) for layer in layers]
        asks = [Ask(turn(decoder.model, context, text)) for text in TURNS]
        decoder.decode(context.prefix, asks, max_new_tokens=8, deadline=NEVER)
        one(decoder, context, calls_only(decoder.model))
        assert context.prefix.cache.get_seq_length() == len(context.prefix.ids)
        for layer, (same, keys, values) in zip(context.prefix.cache.layers, before, strict=True):
            assert layer.keys is same
            assert torch.equal(layer.keys, keys)
            assert torch.equal(layer.values, values)
