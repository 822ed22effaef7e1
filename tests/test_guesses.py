"""What an answer may repeat changes the number of passes, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from conftest import tiny_model
from families import FAMILIES, network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quickstudy import decoding, toolcalls
from quickstudy.decoding import Ask, Deadline, Decoder, Generation, Order
from quickstudy.errors import BudgetSpent, PracticeFailed
from quickstudy.learning.lora import AdapterBank
from quickstudy.model import LanguageModel, remaining
from quickstudy.toolcalls import Grammar
from quickstudy.types import Request

TOOLS = [
    {
        "name": "set_light",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "level": {"type": "integer"}},
            "required": ["room", "level"],
        },
    }
]
MODEL = tiny_model()
DECODER = Decoder(MODEL)
CONTEXT = MODEL.prefill(Request.parse("Light!", TOOLS))
(CALL,) = (
    line
    for line in toolcalls.grammar(CONTEXT.request.tools, MODEL.single_tokens, "json")
    .lark.splitlines()
    if line.startswith("call:")
)  # fmt: skip
CALLS = Grammar(f'start: "[" call (", " call)* "]"\n{CALL}')
GRAMMARS = {"free": None, "constrained": CALLS}
TURNS = [list(CONTEXT.turn), MODEL.encode("a"), MODEL.encode("Something longer, please")]
MOST = 40


def decoded(
    likely: Sequence[Sequence[int]], grammars: Sequence[Grammar | None], **more: Any
) -> list[Generation]:
    asks = [
        Ask(turn, grammar, likely=told)
        for turn, grammar, told in zip(TURNS, grammars, likely, strict=False)
    ]
    return DECODER.decode(CONTEXT.prefix, asks, max_new_tokens=MOST, deadline=Deadline(), **more)


def assert_same(got: Generation, expected: Generation) -> None:
    assert got.ids == expected.ids
    assert (got.text, got.finished) == (expected.text, expected.finished)
    assert [(c.index, c.token, c.runner_up) for c in got.choices] == [
        (c.index, c.token, c.runner_up) for c in expected.choices
    ]
    for ours, theirs in zip(got.choices, expected.choices, strict=True):
        assert ours.margin == pytest.approx(theirs.margin, abs=1e-4)
        assert ours.log_prob == pytest.approx(theirs.log_prob, abs=1e-4)
        assert ours.entropy == pytest.approx(theirs.entropy, abs=1e-3)


MIXED = [None, CALLS, None]
PLAIN = decoded([(), (), ()], MIXED)
ANSWERS = [list(one.ids) for one in PLAIN]


@st.composite
def likely_texts(draw: st.DrawFn) -> list[int]:
    """Random tokens, right answers, parts of them, answers with faults, in any order."""
    pieces = []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["random", "answer", "part", "faulty"]))
        answer = draw(st.sampled_from(ANSWERS))
        if kind == "random":
            pieces += draw(st.lists(st.integers(0, 260), max_size=20))
        elif kind == "answer":
            pieces += answer
        else:
            first = draw(st.integers(0, len(answer) - 1))
            part = answer[first : draw(st.integers(first, len(answer)))]
            if kind == "faulty" and part:
                part[draw(st.integers(0, len(part) - 1))] = draw(st.integers(0, 260))
            pieces += part
    return pieces


class TestAnyGuess:
    @settings(max_examples=15, deadline=None)
    @given(st.lists(likely_texts(), min_size=3, max_size=3))
    def test_batches(self, likely: list[list[int]]) -> None:
        for got, expected in zip(decoded(likely, MIXED), PLAIN, strict=True):
            assert_same(got, expected)

    @settings(max_examples=15, deadline=None)
    @given(likely_texts(), st.sampled_from(sorted(GRAMMARS)))
    def test_single_rows(self, likely: list[int], kind: str) -> None:
        grammar = [GRAMMARS[kind]]
        (expected,) = decoded([()], grammar)
        (got,) = decoded([likely], grammar)
        assert_same(got, expected)

    @settings(max_examples=15, deadline=None)
    @given(likely_texts(), st.sampled_from(sorted(GRAMMARS)), st.integers(0, 3))
    def test_sampled(self, likely: list[int], kind: str, seed: int) -> None:
        def sample(told: Sequence[int]) -> Generation:
            generator = torch.Generator().manual_seed(seed)
            (made,) = decoded([told], [GRAMMARS[kind]], temperature=0.7, generator=generator)
            return made

        expected = sample(())
        assert_same(sample(likely), expected)
        assert_same(sample(expected.ids), expected)

    @pytest.mark.parametrize("cut", [1, 2, 5, 12, 13, 30])
    def test_an_answer_that_stops_within_a_guess(self, cut: int) -> None:
        stop = MODEL.decode(ANSWERS[0][cut - 1 : cut + 1])
        (expected,) = decoded([()], [None], stop=stop)
        (got,) = decoded([ANSWERS[0]], [None], stop=stop)
        assert_same(got, expected)

    def test_cut_off_within_a_guess(self) -> None:
        for most in (1, 7, 12, 13, 20):
            (row,) = DECODER.decode(
                CONTEXT.prefix,
                [Ask(TURNS[0], likely=ANSWERS[0])],
                max_new_tokens=most,
                deadline=Deadline(),
            )
            assert list(row.ids) == ANSWERS[0][:most]

    def test_windows(self) -> None:
        """A window of 16 tokens, for which wrong guesses are padding within a row."""
        tokenizer = FAMILIES["gemma3"].tokenizer()
        model = LanguageModel(network("gemma3", tokenizer), tokenizer, "gemma3")
        context = model.prefill(Request.parse("Light in the attic, and in the cellar, please!"))
        decoder = Decoder(model)

        def answers(*likely: Sequence[int]) -> list[Generation]:
            asks = [Ask(context.turn, likely=likely[0]), Ask(context.turn[-5:], likely=likely[1])]
            return decoder.decode(context.prefix, asks, max_new_tokens=40, deadline=Deadline())

        plain = answers((), ())
        ids = [list(one.ids) for one in plain]
        faulty = [*ids[0][:9], 7, *ids[0][10:20], 9, *ids[0][21:]]
        for likely in ((faulty, ()), (ids[0], faulty), (ids[1], ids[0]), (faulty, ids[1])):
            for got, expected in zip(answers(*likely), plain, strict=True):
                assert_same(got, expected)


class Watched(LanguageModel):
    """Counts passes, and looks at what the rows have seen before each."""

    feeds: list[list[list[int]]]
    seen: list[Tensor | None]
    rows: list[list[int]]  # of those asked for, which are in the batch

    def forward(self, feeds: Any, cache: Any, seen: Any, keep: int) -> tuple[Tensor, Tensor]:
        self.feeds.append([list(feed) for feed in feeds])
        self.seen.append(None if seen is None else seen.clone())
        left = remaining.get()
        self.rows.append(list(range(len(feeds))) if left is None else left.tolist())
        assert len(self.rows[-1]) == len(feeds)
        assert seen is None or seen.shape[1] == cache.get_seq_length()
        return super().forward(feeds, cache, seen, keep)


@pytest.fixture
def watched() -> Watched:
    made = Watched(MODEL.network, MODEL.tokenizer, "watched")
    made.feeds, made.seen, made.rows = [], [], []
    return made


def run(model: Watched, asks: list[Ask]) -> list[Generation]:
    model.feeds.clear()
    model.seen.clear()
    model.rows.clear()
    return Decoder(model).decode(CONTEXT.prefix, asks, max_new_tokens=MOST, deadline=Deadline())


class TestPasses:
    def test_a_right_guess_saves_them(self, watched: Watched) -> None:
        run(watched, [Ask(TURNS[0])])
        assert len(watched.feeds) == MOST
        run(watched, [Ask(TURNS[0], likely=ANSWERS[0])])
        # each pass confirms a whole guess and chooses one more token
        assert len(watched.feeds) <= -(-MOST // (decoding.GUESSED + 1)) + 1

    @pytest.mark.parametrize("grammar", [None, CALLS])
    def test_wrong_ones_leave_no_trace(self, watched: Watched, grammar: Grammar | None) -> None:
        """Before each pass a row has seen its prefix, its turn and what it said, no more."""
        row = 1 if grammar else 0
        right = [ANSWERS[0], ANSWERS[1]][row]
        wrong = [t for i in range(0, len(right), 3) for t in (*right[i : i + 3], 7, 7)]
        asks = [Ask(TURNS[row], grammar, likely=wrong), Ask(TURNS[2], likely=ANSWERS[2])]
        said = run(watched, asks)
        for place, ask in enumerate(asks):
            # what it has seen as real, told together: nothing twice, nothing wrong
            start = len(CONTEXT.prefix.ids)
            for feeds, seen, rows in zip(watched.feeds, watched.seen, watched.rows, strict=True):
                if seen is None or place not in rows or not feeds[rows.index(place)]:
                    continue
                there = rows.index(place)
                behind = int(seen[there].sum()) - start - len(ask.turn)
                if behind >= 0:
                    ids = said[place].ids
                    assert list(ids[behind : behind + 1]) == feeds[there][:1]

    def test_a_row_alone_keeps_its_cache_short(self, watched: Watched) -> None:
        wrong = [t for token in ANSWERS[0] for t in (token, 7)]
        run(watched, [Ask(TURNS[0], likely=[*ANSWERS[0][:2], *wrong])])
        for seen in watched.seen[1:]:
            assert seen is not None
            assert bool(seen.all()), "cut off, not hidden"

    def test_so_does_one_that_outlives_another(self, watched: Watched) -> None:
        """A row that has ended has no say in what is cut off."""
        wrong = [t for token in ANSWERS[0] for t in (token, 7)]
        first = Grammar('start: "a"')
        run(watched, [Ask(TURNS[1], first), Ask(TURNS[0], likely=[*ANSWERS[0][:2], *wrong])])
        assert len(watched.seen) > 5
        for seen in watched.seen[2:]:
            assert seen is not None
            assert bool(seen[-1, -1]), "what it saw last is a token of its own"


class TestEndedRows:
    """They leave the batch, and those that stay do not notice."""

    ENDS: ClassVar[list[str]] = ['"a"', '"abcdefgh"', "/[a-h]{9,14}/", "/[a-z]{30,38}/", "/[a-h]/"]

    def asks(self, order: Sequence[int]) -> list[Ask]:
        likely = [t for token in ANSWERS[0] for t in (token, 7)]
        turns = [*TURNS, MODEL.encode("Now"), MODEL.encode("What is it?")]
        return [Ask(turns[i], Grammar(f"start: {self.ENDS[i]}"), likely=likely) for i in order]

    @pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (3, 2, 4, 0, 1), (4, 3, 3, 2)])
    def test_each_is_as_alone(self, watched: Watched, order: tuple[int, ...]) -> None:
        said = run(watched, self.asks(order))
        sizes = list(map(len, watched.rows))
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] < sizes[0]
        for ask, together in zip(self.asks(order), said, strict=True):
            (alone,) = run(watched, [ask])
            assert_same(together, alone)

    def test_prefixes_of_other_lengths(self, watched: Watched) -> None:
        """The longest may be the first to end; what it alone has seen goes with it."""
        texts = ["Light! And much more to say before anything else is said.", "Hm", "Light"]
        prefixes = [watched.run(tuple(watched.encode(text))) for text in texts]
        for first in range(3):
            order = [first, 3, 2]
            said = Decoder(watched).decode(
                prefixes, self.asks(order), max_new_tokens=MOST, deadline=Deadline()
            )
            for ask, prefix, together in zip(self.asks(order), prefixes, said, strict=True):
                (alone,) = Decoder(watched).decode(
                    prefix, [ask], max_new_tokens=MOST, deadline=Deadline()
                )
                assert_same(together, alone)

    def test_the_next_batch_is_whole_again(self, watched: Watched) -> None:
        run(watched, self.asks((0, 1, 2, 3, 4)))
        assert remaining.get() is None

    def test_adapters_stay_with_their_rows(self) -> None:
        model = tiny_model()
        generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
        bank = AdapterBank(
            model.network, rank=4, alpha=64, targets="all-linear", generators=generators
        )
        for (_, part), values in bank.master.items():
            if part == "B":
                for n, generator in enumerate(generators):
                    values[n].normal_(0, 0.3 * n, generator=generator)
        bank.sync()
        order, adapters = (0, 3, 2, 3), [1, 2, 0, 1]
        decoder, prefix = Decoder(model), model.empty_prefix()
        with bank.attached():

            def said(rows: Sequence[int]) -> list[Generation]:
                bank.assign([adapters[row] for row in rows])
                asks = self.asks([order[row] for row in rows])
                return decoder.decode(prefix, asks, max_new_tokens=MOST, deadline=Deadline())

            together = said(range(4))
            assert together[1].ids != together[3].ids, "the adapters make the difference"
            for row, got in enumerate(together):
                assert_same(got, said([row])[0])


class TestOrders:
    """Rows that several wait for: each as alone, and one's end of time is its own."""

    def orders(self, *deadlines: Deadline) -> list[Order]:
        prefix, many = CONTEXT.prefix, [CONTEXT.prefix, CONTEXT.prefix]
        generator = torch.Generator().manual_seed(4)
        return [
            Order([prefix], [Ask(TURNS[0])], 40, deadlines[0]),
            Order(many, [Ask(TURNS[1], CALLS), Ask(TURNS[2])], 9, deadlines[1], stop="e"),
            # guesses hold here and there, and how many are fed depends on the others
            Order(
                many,
                [Ask(turn, likely=ANSWERS[0] + list(range(256))) for turn in TURNS[::2]],
                25,
                deadlines[2],
                0.8,
                generator,
            ),
        ]

    def test_each_is_as_alone(self) -> None:
        deadlines = [Deadline()] * 3
        together = DECODER.decode_orders(self.orders(*deadlines))
        for number, got in enumerate(together):
            (alone,) = DECODER.decode_orders([self.orders(*deadlines)[number]])
            assert not isinstance(got, PracticeFailed)
            assert not isinstance(alone, PracticeFailed)
            for one, other in zip(got, alone, strict=True):
                assert_same(one, other)

    @pytest.mark.parametrize("late", [0, 1, 2])
    def test_time_runs_out_for_one(self, late: int) -> None:
        deadlines = [Deadline.after(0 if n == late else 600) for n in range(3)]
        together = DECODER.decode_orders(self.orders(*deadlines))
        expected = DECODER.decode_orders(self.orders(*[Deadline()] * 3))
        for number, (got, whole) in enumerate(zip(together, expected, strict=True)):
            if number == late:
                assert isinstance(got, BudgetSpent)
                continue
            assert not isinstance(got, PracticeFailed)
            assert not isinstance(whole, PracticeFailed)
            for one, other in zip(got, whole, strict=True):
                assert_same(one, other)

    def test_who_has_ended_is_told_while_others_go_on(self) -> None:
        told: list[tuple[int, int, Any]] = []
        passes = [0]

        class Counting(Deadline):
            def check(self) -> None:
                passes[0] += 1

        orders = [
            replace(order, ended=lambda said, n=n: told.append((n, passes[0], said)))
            for n, order in enumerate(self.orders(*[Counting()] * 3))
        ]
        said = DECODER.decode_orders(orders)
        assert sorted(n for n, _, _ in told) == [0, 1, 2]
        assert told[0][0] == 1, "the one of 9 tokens"
        assert told[0][1] < told[-1][1]
        for n, _, one in told:
            assert one == said[n]

    def test_one_deadline_for_all(self) -> None:
        said = DECODER.decode_orders(self.orders(*[Deadline.after(0)] * 3))
        assert all(isinstance(one, BudgetSpent) for one in said)

    @settings(max_examples=25, deadline=None)
    @given(st.permutations(range(3)), st.tuples(*[st.integers(0, 30)] * 2), st.booleans())
    def test_who_comes_late_is_answered_as_alone(
        self, order: Sequence[int], after: tuple[int, int], long: bool
    ) -> None:
        """After so many passes each, or not at all where nobody is left to join."""
        told: dict[int, Any] = {}
        # a prefix longer than what the others have seen by then
        begun = MODEL.run(tuple(range(200))) if long else CONTEXT.prefix

        def fresh() -> list[Order]:
            orders = self.orders(*[Deadline()] * 3)
            orders[1] = replace(orders[1], prefixes=[CONTEXT.prefix, begun])
            return orders

        orders = [
            replace(each, ended=lambda said, n=n: told.setdefault(n, said))
            for n, each in enumerate(fresh())
        ]
        first, *late = order
        waits, passes = [*zip(sorted(after), late, strict=True)], [0]

        def join(rows: int, places: int) -> Order | None:
            assert rows >= 1
            assert places > 0
            passes[0] += 1
            if waits and passes[0] > waits[0][0]:
                return orders[waits.pop(0)[1]]
            return None

        (said,) = DECODER.decode_orders([orders[first]], join)
        assert told[first] == said
        assert min(after) > 0 or len(waits) < 2, "after the first pass somebody joins"
        assert sorted(told) == sorted({0, 1, 2} - {n for _, n in waits})
        for number, got in told.items():
            (alone,) = DECODER.decode_orders([fresh()[number]])
            assert not isinstance(alone, PracticeFailed)
            for one, other in zip(got, alone, strict=True):
                assert_same(one, other)

    def test_a_late_fault_is_told_to_whom_it_belongs(self) -> None:
        told: list[Any] = []
        first, second, _ = self.orders(*[Deadline()] * 3)
        bad = replace(second, asks=[Ask([10**6])] * 2, ended=told.append)
        waits = [bad]
        (said,) = DECODER.decode_orders([first], lambda *_: waits.pop() if waits else None)
        assert isinstance(told[0], IndexError)
        assert said == DECODER.decode_orders([first])[0]

    def test_a_late_one_whose_time_is_over(self) -> None:
        told: list[Any] = []
        first, second, _ = self.orders(Deadline(), Deadline.after(0), Deadline())
        waits = [replace(second, ended=told.append)]
        (said,) = DECODER.decode_orders([first], lambda *_: waits.pop() if waits else None)
        assert isinstance(told[0], BudgetSpent)
        assert said == DECODER.decode_orders([first])[0]
