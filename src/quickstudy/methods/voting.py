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
from quickstudy.awareness.merging import merge, same
from quickstudy.awareness.samples import scored
from quickstudy.decoding import Ask, Deadline, Draft, Generation
from quickstudy.methods.gated import Gated, SecondTry
from quickstudy.methods.interface import Item

BATCH = 16  # rows decoded at once
MOST = 64  # samples of one item, so that none costs without bound


class Majority(Gated):
    name, stage = "majority", "samples"

    def second(self, draft: Draft) -> SecondTry:
        assert self.bench.samples is not None  # the run has set it
        drawn = self.draw(draft, self.bench.samples)
        voters = [draft.generation, *(g for g in drawn if g.finished)]
        tools = draft.context.request.tools
        elected = max(same([g.text for g in voters], tools), key=len)
        candidates = merge(scored(voters[0], voters[1:]), tools, "votes")
        reply, _ = toolcalls.read(voters[elected[0]].text, tools)
        return SecondTry(reply, candidates, tuple(drawn))

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
