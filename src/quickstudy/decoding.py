"""Constrained decoding of one answer or a batch of them, with what awareness needs to see.

Why not `generate`: the grammar often allows just one continuation (`", "arguments": {"city":`).
Such tokens are fed together instead of one forward pass each, and they are no choice of the
model's, so they carry no certainty. Every real choice is recorded with its margin.

A pass over a dozen tokens costs little more than a pass over one, for it is the weights that are
read. So where it is likely how an answer goes on (the practised answer repeats the draft, a value
repeats the user's words) the guess is fed along, and as much of it is kept as the model would have
chosen itself: in exact arithmetic the same answer in fewer passes (arXiv 2211.17192, with a text
that is there already in place of a draft model). In bfloat16 the width of a pass shows in the last
bits, and near ties may fall otherwise.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor
from transformers import DynamicCache

from quickstudy import toolcalls
from quickstudy.config import DecodingConfig
from quickstudy.errors import BudgetSpent, PracticeFailed
from quickstudy.model import Context, LanguageModel, Prefix, adapted, remaining, start
from quickstudy.toolcalls import CallFormat, Grammar
from quickstudy.types import Reply, Request, Sampling, Tool

log = logging.getLogger(__name__)
T = TypeVar("T")
Listener = Callable[[Sequence[int]], bool]

GUESSED = 12  # tokens fed on a guess; up to about 16 a pass costs what it costs for one
OPENED = 24  # where the answer opens as a likely text does, for then most of it holds
FED = 64  # tokens that all rows of a pass may feed together where some of them are guesses
LONGEST_MATCH, SHORTEST_MATCH = 4, 2  # tokens that must be the same before a guess
_LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Deadline:
    """A moment (time.monotonic seconds) after which the unsure path gives up; None: never.

    `check` is called between decode passes and gradient steps, so whoever shares the model among
    several requests overrides these methods: no other place lets another request run.
    """

    at: float | None = None

    @classmethod
    def after(cls, seconds: float | None, spent: float = 0.0) -> Deadline:
        return cls(None if seconds is None else time.monotonic() + seconds - spent)

    def check(self) -> None:
        if self.at is not None and time.monotonic() > self.at:
            raise BudgetSpent("the time budget is spent")

    def result(self, work: Future[T]) -> T:
        """What comes of work that is done elsewhere; meanwhile the model is free."""
        return work.result()


@dataclass(frozen=True)
class Choice:
    """One token the model chose among several that the grammar allowed.

    Probabilities are over the allowed tokens, log-probabilities in nats. `index` is the token's
    place in `Generation.ids` (one past the end where the choice was to stop); `runner_up` is the
    likeliest other token and `rival` its log-probability. `entropy` of the whole choice in nats.
    """

    index: int
    token: int
    log_prob: float
    runner_up: int
    rival: float
    entropy: float = math.nan  # not measured

    @property
    def margin(self) -> float:
        """p1 - p2; 0 where sampling took a token that was not the likeliest."""
        return max(0.0, math.exp(self.log_prob) - math.exp(self.rival))


@dataclass(frozen=True)
class Generation:
    """A decoded answer; not `finished` if it was cut off."""

    ids: tuple[int, ...]
    text: str
    choices: tuple[Choice, ...]
    finished: bool

    @property
    def log_prob(self) -> float:
        """Sum over the choices, in nats; tokens that the grammar forces are certain."""
        return sum(choice.log_prob for choice in self.choices)


Said = list[Generation] | Exception  # what came of an order
Tell = Callable[[Said], None]


@dataclass(frozen=True)
class Ask:
    """One row to decode: tokens after the prefix, the grammar, answer tokens already fixed.

    `likely`: tokens that the answer may repeat, in part; they change its cost. `opens`: the answer
    may begin as they do.
    `listener` is told all the answer's tokens after each pass; it says whether they are enough.
    `sampling` is this row's own; None: that of all.
    """

    turn: Sequence[int]
    grammar: Grammar | None = None
    given: Sequence[int] = ()
    likely: Sequence[int] = ()
    opens: bool = False
    listener: Listener | None = None
    sampling: Sampling | None = None


@dataclass(frozen=True)
class Order:
    """Rows to decode for one who waits for them; the fields are those of `Decoder.decode`.

    `ended` is told what came of them as soon as the last of them has ended, whatever others do.
    """

    prefixes: Sequence[Prefix]  # a row each
    asks: Sequence[Ask]
    max_new_tokens: int
    deadline: Deadline
    temperature: float = 0.0
    generator: torch.Generator | None = None
    stop: str | None = None
    ended: Tell | None = None


# Who joins, if anybody does, so many running rows, each of at most so many places of cache
Join = Callable[[int, int], Order | None]


@dataclass(frozen=True)
class Draft:
    """The greedy answer without practice, and all that is needed to improve on it.

    `call_format` is the one its calls are written in, None without calls; `seconds` by stage.
    """

    context: Context
    generation: Generation
    grammar: Grammar | None
    reply: Reply
    call_format: CallFormat | None
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class _Draw:
    """How a row's tokens are drawn."""

    temperature: float
    top_p: float
    generator: torch.Generator | None

    @classmethod
    def of(cls, sampling: Sampling | None) -> _Draw | None:
        if sampling is None:
            return None
        generator = torch.Generator().manual_seed(sampling.seed)
        return cls(sampling.temperature, sampling.top_p, generator)

    @classmethod
    def within(cls, order: Order) -> _Draw:
        """Each row draws from a generator of its own: what others do in a pass is no matter."""
        own = None
        if order.generator is not None:
            seed = int(torch.randint(1 << 62, (1,), generator=order.generator))
            own = torch.Generator().manual_seed(seed)
        return cls(order.temperature, 1.0, own)


@dataclass
class _Row:
    order: Order
    matcher: LLMatcher | None
    feed: list[int]
    draw: _Draw
    ids: list[int] = field(default_factory=list)
    likely: Sequence[int] = ()
    opens: bool = False
    listener: Listener | None = None
    guess: list[int] = field(default_factory=list)  # fed after `feed`, to be confirmed
    choices: list[Choice] = field(default_factory=list)
    done: bool = False
    finished: bool = False
    failure: Exception | None = None


@dataclass
class _Rows:
    """The rows of an order."""

    order: Order
    rows: list[_Row]


@dataclass
class _Batch:
    """Rows as they lie in the cache, some of which may have ended.

    `seen` is (rows, cached) bool, which places are real; None: all are.
    """

    orders: list[_Rows]
    rows: list[_Row]
    cache: DynamicCache
    seen: Tensor | None


class Decoder:
    """Decodes with one model; holds the grammar engine's view of its vocabulary."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._vocabulary: LLTokenizer | None = None
        self._fixed: dict[tuple[int, ...], Prefix] = {}

    @property
    def vocabulary(self) -> LLTokenizer:
        if self._vocabulary is None:  # takes about a second, so only where a grammar is used
            self._vocabulary = llguidance.hf.from_tokenizer(
                self.model.tokenizer,
                n_vocab=self.model.network.get_output_embeddings().weight.shape[0],
                eos_token=sorted(self.model.eos_ids),
            )
        return self._vocabulary

    def fixed_prefix(self, prompts: Sequence[Sequence[int]]) -> Prefix:
        """What prompts begin with that hold nothing of a user's, run once for good."""
        ids = self.model.shared(prompts)
        if adapted.get():  # what an adapter makes of them is nobody else's
            return self.model.run(ids)
        if ids not in self._fixed:
            self._fixed[ids] = self.model.run(ids)
        return self._fixed[ids]

    def refusal(self, grammar: Grammar) -> str:
        """Why the grammar engine cannot decode under a grammar; empty if it can."""
        return str(LLMatcher.validate_grammar(grammar.lark, self.vocabulary))

    def rules(
        self,
        tools: Sequence[Tool],
        thinking: bool,
        only: CallFormat | None = None,
        max_calls: int = 1,
        must_call: bool = False,
    ) -> Grammar:
        """What calls of these tools this model may write; the engine may refuse it (`refusal`)."""
        return toolcalls.grammar(
            tools,
            self.model.single_tokens,
            only,
            max_calls,
            self.model.call_formats,
            self.model.reasoning_start(thinking),
            must_call,
        )

    def grammar(
        self,
        request: Request,
        config: DecodingConfig,
        thinking: bool,
        only: CallFormat | None = None,
    ) -> Grammar | None:
        """What the model may answer to a request; None where nothing holds it.

        Args:
            thinking: whether the prompt lets the model think first.
            only: the one call format allowed; None: all that the model may speak.
        """
        if not request.tools or not config.constrained:
            return None
        rules = self.rules(request.tools, thinking, only, config.max_calls, request.must_call)
        refusal = self.refusal(rules)
        if refusal:  # a pattern with look-ahead, say: an unconstrained answer beats none
            reason = refusal.splitlines()[0]
            log.warning("request %s is decoded without constraint: %s", request.id, reason)
            return None
        return rules

    @torch.no_grad()
    def decode(
        self,
        prefix: Prefix | Sequence[Prefix] | None,
        asks: Sequence[Ask],
        *,
        max_new_tokens: int,
        deadline: Deadline,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
        stop: str | None = None,
    ) -> list[Generation]:
        """Decodes all rows as one batch, greedily at temperature 0.

        Args:
            prefix: what all rows continue, or each; None: `Ask.turn` is all they see.
            stop: a text that ends a row; it is cut off.
        """
        if not asks:
            return []
        if not isinstance(prefix, Sequence):
            prefix = [prefix or self.model.empty_prefix()] * len(asks)
        order = Order(prefix, asks, max_new_tokens, deadline, temperature, generator, stop)
        (said,) = self.decode_orders([order])
        if isinstance(said, Exception):
            raise said
        return said

    @torch.no_grad()
    def decode_orders(self, orders: Sequence[Order], join: Join | None = None) -> list[Said]:
        """Decodes the rows of all orders as one batch, each as it would be alone.

        An order whose deadline passes, or one of whose rows meets a fault of its own, gets the
        failure in place of its rows, and its rows end.

        Args:
            join: asked after each pass for an order that comes late; only without an adapter. What
                comes of it, be it a fault, is told by its `ended` alone.
        """
        token = remaining.set(None)
        try:
            batch = self._begin(orders)
            listening = [each for each in batch.orders if each.order.ended]
            while _goes_on(batch):
                _drop_ended(batch, self.model.device)
                self._pass(batch)
                listening = [each for each in listening if not self._tell(each)]
                if join is not None and not adapted.get():
                    listening += self._let_join(batch, join)
            return [self._said(each.rows) for each in batch.orders]
        finally:
            remaining.reset(token)

    def _begin(self, orders: Sequence[Order]) -> _Batch:
        begin = start([prefix for order in orders for prefix in order.prefixes])
        cache, seen = begin.fork(), begin.seen
        del begin  # its keys are those of all rows, and soon they are in the cache again
        each = [_Rows(order, [self._start(order, ask) for ask in order.asks]) for order in orders]
        return _Batch(each, [row for some in each for row in some.rows], cache, seen)

    def _let_join(self, batch: _Batch, join: Join) -> list[_Rows]:
        """Takes in one that comes late, after a first pass of its own; one, so that all go on.

        Returns:
            It, if it has not been told of its end already.
        """
        running = [row for row in batch.rows if not row.done]
        if not running:
            return []
        left = max(row.order.max_new_tokens - len(row.ids) for row in running)
        order = join(len(running), batch.cache.get_seq_length() + max(0, left))
        if order is None:
            return []
        try:
            fresh = self._begin([order])
            if _goes_on(fresh):
                self._pass(fresh)
        except Exception as fault:  # its own: the others go on
            if order.ended:
                order.ended(fault)
            return []
        if self._tell(fresh.orders[0]):
            return []
        _merge(batch, fresh)
        return fresh.orders

    def _tell(self, each: _Rows) -> bool:
        """Whether all rows have ended, which is told then."""
        ended = all(row.done for row in each.rows)
        if ended and each.order.ended:
            each.order.ended(self._said(each.rows))
        return ended

    def _said(self, rows: Sequence[_Row]) -> Said:
        failure = next((row.failure for row in rows if row.failure), None)
        return failure or [self._result(row) for row in rows]

    def _pass(self, batch: _Batch) -> None:
        """One forward pass, and what it tells."""
        rows = batch.rows
        running = [not row.done for row in rows]
        for row in rows:
            most = min(OPENED if row.opens else GUESSED, FED // len(rows) - 1)
            row.guess = [] if row.done or most < 1 else _guess(row, most)
        longest = max(len(row.guess) for row in rows)
        feeds = [row.feed + row.guess for row in rows]
        logits, seen = self.model.forward(feeds, batch.cache, batch.seen, keep=1 + longest)
        wrong = []
        for row, scores in zip(rows, logits, strict=True):
            row.feed, confirmed = [], 0
            if not row.done:
                try:
                    confirmed = self._confirm(row, scores[longest - len(row.guess) :])
                    if row.listener is not None and row.listener(row.ids):
                        row.done = row.finished = True
                except Exception as fault:  # of its grammar or listener: the others go on
                    row.done, row.failure = True, fault
            wrong.append(len(row.guess) - confirmed)
        batch.seen = _forget(batch.cache, seen, wrong, running)

    def _start(self, order: Order, ask: Ask) -> _Row:
        row = _Row(
            order,
            self._matcher(ask.grammar),
            list(ask.turn),
            _Draw.of(ask.sampling) or _Draw.within(order),
            list(ask.given),
            ask.likely,
            ask.opens,
            ask.listener,
        )
        if row.matcher is not None and not row.matcher.consume_tokens(list(ask.given)):
            raise ValueError(f"the grammar refuses the given tokens: {row.matcher.get_error()}")
        self._fast_forward(row)
        row.feed += row.ids
        return row

    def _matcher(self, grammar: Grammar | None) -> LLMatcher | None:
        if grammar is None:
            return None
        matcher = LLMatcher(self.vocabulary, grammar.lark, log_level=0)
        if matcher.is_error():
            raise ValueError(f"the tools' schemas make no grammar: {matcher.get_error()}")
        return matcher

    def _fast_forward(self, row: _Row) -> None:
        """Appends the tokens that the grammar leaves no choice about."""
        if row.matcher is None:
            return
        forced = row.matcher.compute_ff_tokens()
        if forced and row.matcher.consume_tokens(forced):
            row.ids += forced
        if row.matcher.is_stopped():
            row.done = row.finished = True

    def _confirm(self, row: _Row, scores: Tensor) -> int:
        """Chooses tokens as long as the guess goes on with them; how many of it were right.

        Args:
            scores: (1 + guessed, vocabulary), the first for the token after what was sure.
        """
        confirmed = 0
        while not row.done:
            told = len(row.ids)
            self._choose(row, scores[confirmed].float())
            new, guess = row.ids[told:], row.guess[confirmed:]
            same = 0
            while same < min(len(new), len(guess)) and new[same] == guess[same]:
                same += 1
            confirmed += same
            row.feed = new[same:]  # what the pass has not seen yet
            if row.feed:
                break
        return confirmed

    def _choose(self, row: _Row, scores: Tensor) -> None:
        stop = row.order.stop
        if row.matcher is not None:
            bits = np.frombuffer(row.matcher.compute_bitmask(), dtype=np.uint8)
            allowed = np.unpackbits(bits, bitorder="little")[: scores.shape[0]].astype(bool)
            scores = scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), -torch.inf)
        log_probs = scores.log_softmax(-1)
        best = int(log_probs.argmax())
        token = best
        draw = row.draw
        if draw.temperature > 0:
            weights = _nucleus((log_probs / draw.temperature).softmax(-1), draw.top_p)
            token = _drawn(weights, draw.generator)
        log_prob = float(log_probs[token])
        probs = log_probs.exp()
        # where a token cannot be, 0 log 0 = 0
        entropy = -float(torch.dot(probs, log_probs.clamp(min=_LOWEST)))
        rival, other = float(log_probs[best]), best
        if token == best:  # cheaper than the two largest at once
            log_probs[best] = -torch.inf
            other = int(log_probs.argmax())
            rival = float(log_probs[other])
        row.choices.append(Choice(len(row.ids), token, log_prob, other, rival, entropy))
        if token in self.model.eos_ids:
            row.done = row.finished = True
            return
        row.ids.append(token)
        if row.matcher is not None and not row.matcher.consume_token(token):
            row.done = True
            return
        self._fast_forward(row)
        if stop is not None and stop in self.model.decode(row.ids[-8:]):
            row.done = row.finished = True
        row.done = row.done or len(row.ids) >= row.order.max_new_tokens

    def _result(self, row: _Row) -> Generation:
        text = self.model.decode(row.ids)
        if row.order.stop is not None:
            text = text.split(row.order.stop, 1)[0]
        return Generation(tuple(row.ids), text, tuple(row.choices), row.finished)


def _guess(row: _Row, most: int) -> list[int]:
    """How an answer goes on if it repeats a likely text: what follows its last tokens there."""
    ids, likely = row.ids, row.likely
    if not ids:
        return list(likely[:most]) if row.opens else []
    for length in range(min(LONGEST_MATCH, len(ids)), SHORTEST_MATCH - 1, -1):
        last = tuple(ids[-length:])
        for end in range(length, len(likely)):
            if tuple(likely[end - length : end]) == last:
                return list(likely[end : end + most])
    return []


def _goes_on(batch: _Batch) -> bool:
    """Whether rows are left, once those whose deadline has passed have ended."""
    running = [row for row in batch.rows if not row.done]
    for deadline in {id(row.order.deadline): row.order.deadline for row in running}.values():
        try:
            deadline.check()
        except PracticeFailed as failure:
            for row in running:
                if row.order.deadline is deadline:
                    row.done, row.failure = True, failure
    return any(not row.done for row in running)


def _drop_ended(batch: _Batch, device: torch.device) -> None:
    """Takes the rows that have ended out of the batch, once they are a quarter of it."""
    running = [place for place, row in enumerate(batch.rows) if not row.done]
    if 4 * len(running) <= 3 * len(batch.rows):
        _keep(batch, torch.tensor(running, device=device))


def _keep(batch: _Batch, chosen: Tensor) -> None:
    """Of the batch only these rows, by their places."""
    first = 0
    if batch.seen is not None:
        seen = batch.seen[chosen]
        first = int(seen.any(0).int().argmax())  # before it lies what only the others have seen
        batch.seen = seen[:, first:]
    for layer in batch.cache.layers:
        if layer.keys is not None and layer.keys.numel():
            layer.keys = layer.keys.index_select(0, chosen)[:, :, first:]
            layer.values = layer.values.index_select(0, chosen)[:, :, first:]
    before = remaining.get()
    remaining.set(chosen if before is None else before[chosen])
    batch.rows = [batch.rows[place] for place in chosen.tolist()]


def _merge(batch: _Batch, fresh: _Batch) -> None:
    """Adds rows that have had a first pass; the shorter ones are padded on the left."""
    assert batch.seen is not None  # after a pass it is told
    assert fresh.seen is not None
    running = [place for place, row in enumerate(batch.rows) if not row.done]
    if len(running) < len(batch.rows):
        _keep(batch, torch.tensor(running, device=batch.seen.device))
    longest = max(batch.seen.shape[1], fresh.seen.shape[1])
    batch.seen = torch.cat([_padded(part, longest, -1) for part in (batch.seen, fresh.seen)])
    for layer, other in zip(batch.cache.layers, fresh.cache.layers, strict=True):
        layer.keys = torch.cat([_padded(part, longest, -2) for part in (layer.keys, other.keys)])
        parts = [_padded(part, longest, -2) for part in (layer.values, other.values)]
        layer.values = torch.cat(parts)
    remaining.set(None)
    batch.rows += fresh.rows


def _padded(part: Tensor, length: int, axis: int) -> Tensor:
    """With zeros (False) before it, so that it has this length."""
    sizes = list(part.shape)
    sizes[axis] = length - sizes[axis]
    return torch.cat([part.new_zeros(sizes), part], axis) if sizes[axis] else part


def _forget(
    cache: DynamicCache, seen: Tensor, wrong: Sequence[int], running: Sequence[bool]
) -> Tensor:
    """Takes guesses that were wrong, so many at the end of each row, out of what rows have seen.

    Rows that had ended before the pass have no say.
    """
    common = min(count for count, still in zip(wrong, running, strict=True) if still)
    if common:
        cache.crop(-common)
        seen = seen[:, :-common]
    for row, count in enumerate(wrong):
        if count > common:
            seen[row, seen.shape[1] - (count - common) :] = False
    return seen


def _drawn(weights: Tensor, generator: torch.Generator | None) -> int:
    """A token drawn by its weight: where a uniform number falls in the running sum.

    torch.multinomial draws a number for each token of the vocabulary. The number is drawn on the
    CPU, so that one seed means one answer on every device.
    """
    upto = weights.cpu().double().cumsum(-1)
    place = torch.rand(1, generator=generator, dtype=torch.float64) * upto[-1]
    token = int(torch.searchsorted(upto, place, right=True))
    return token if token < len(weights) else int(weights.argmax())  # rounded up to the very end


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """The likeliest tokens that together have `top_p`, never none (arXiv 1904.09751)."""
    if top_p >= 1:
        return weights
    ordered, tokens = weights.sort(descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    outside[0] = False
    return weights.index_fill(-1, tokens[outside], 0.0)
