"""Majority vote over sampled answers (self-consistency), behind the same gate as TT-SI.

Answers are sampled under the schema, as one batch, and vote by what they come to: calls by their
parsed form, words as `awareness.agreement` has it. The draft has a vote too, and wins a tie.
Answers that were cut off have none.
"""

from __future__ import annotations

import math
import time

import torch

from quickstudy import toolcalls
from quickstudy.awareness.estimators import assess
from quickstudy.awareness.merging import merge, same
from quickstudy.awareness.samples import scored
from quickstudy.config import Config
from quickstudy.decoding import Ask, Deadline, Draft, Generation
from quickstudy.footprint import footprint
from quickstudy.methods.interface import Item, Outcome, Workbench
from quickstudy.types import Answer, Episode

BATCH = 16  # rows decoded at once
MOST = 64  # samples of one item, so that none costs without bound


class Majority:
    def __init__(self, bench: Workbench, config: Config) -> None:
        self.bench, self.config = bench, config
        self.improver = bench.improver(config)

    def answer(self, item: Item) -> Outcome:
        bench, config, samples = self.bench, self.config, self.bench.samples
        assert samples is not None  # the run has set it
        draft, before = bench.draft(self.improver, item.request)
        seconds = dict(draft.seconds)
        with footprint() as memory:
            memory.include(before)
            start = time.perf_counter()
            certainty = assess(bench.decoder, draft, config, Deadline())
            seconds["awareness"] = time.perf_counter() - start
            unsure = certainty.value < self.improver.threshold
            reply, drawn, candidates = draft.reply, list[Generation](), certainty.candidates
            if unsure:
                start = time.perf_counter()
                drawn = self.draw(draft, samples)
                voters = [draft.generation, *(g for g in drawn if g.finished)]
                tools = item.request.tools
                elected = max(same([g.text for g in voters], tools), key=len)
                candidates = merge(scored(voters[0], voters[1:]), tools, "votes")
                reply, _ = toolcalls.read(voters[elected[0]].text, tools)
                seconds["samples"] = time.perf_counter() - start
        episode = Episode(
            method="majority",
            certainty=certainty.value,
            threshold=self.improver.threshold,
            practised=False,
            fallback=None,
            draft=draft.reply,
            candidates=candidates,
            seconds=seconds,
        )
        answer = Answer(reply.content, reply.tool_calls, episode, item.request.id, reply.reasoning)
        return Outcome(
            answer,
            draft,
            memory.peak_mb,
            unsure,
            episode.threshold,
            samples=tuple(drawn),
            temperature=config.awareness.temperature if unsure else None,
        )

    def draw(self, draft: Draft, count: int) -> list[Generation]:
        """Sampled answers; one seed and count, the same answers."""
        config, context = self.config, draft.context
        generator = torch.Generator().manual_seed(config.seed)
        drawn: list[Generation] = []
        while len(drawn) < count:
            rows = min(BATCH, count - len(drawn))
            drawn += self.bench.decoder.decode(
                context.prefix,
                [Ask(context.turn, draft.grammar)] * rows,
                max_new_tokens=config.decoding.max_new_tokens,
                deadline=Deadline(),
                temperature=config.awareness.temperature,
                generator=generator,
            )
        return drawn

    def affordable(self, item: Item, ratio: float) -> int:
        """How many samples can be drawn in `ratio` times the seconds that the item's draft takes.

        Measured on this item with a small and a full batch, and linear between the two.
        """
        draft, _ = self.bench.draft(self.improver, item.request)
        small, full = (self._seconds(draft, count) for count in (BATCH // 4, BATCH))
        budget = ratio * draft.seconds["draft"]
        if budget >= full:
            return min(MOST, int(BATCH * budget / full))
        each = max((full - small) / (BATCH - BATCH // 4), 1e-9)
        return max(1, BATCH // 4 + math.floor((budget - small) / each))

    def _seconds(self, draft: Draft, count: int) -> float:
        start = time.perf_counter()
        self.draw(draft, count)
        return time.perf_counter() - start
