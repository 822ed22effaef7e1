"""Methods that go through `Improver.improve`: base, TT-SI and its kin, controls, ablations.

They differ in which drafts practise, in what is practised and in what remains of it:

| method            | practises                  | what                                          |
|-------------------|----------------------------|-----------------------------------------------|
| `base`            | never                      |                                               |
| `tt-si` and kin   | unsure drafts              | practice for this request                     |
| `certain-only`    | sure drafts                | the same                                      |
| `adapt-all`       | all drafts                 | the same                                      |
| `other-request`   | unsure drafts              | practice for another request, under its tools |
| `no-synthesis`    | unsure drafts              | the request itself, with the draft as answer  |
| `no-verification` | unsure drafts              | what was written, whether it passed or not    |
| `no-reset`        | unsure drafts              | as `tt-si`; the adapter stays for all items   |
| `icl`             | all drafts, in the context | the nearest training rows (`demonstrations`)  |
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quickstudy.augmentation.synthesis import Synthesis
from quickstudy.awareness.estimators import assess
from quickstudy.config import Config
from quickstudy.decoding import Deadline, Draft
from quickstudy.footprint import footprint
from quickstudy.improve import Given
from quickstudy.learning.lora import AdapterBank
from quickstudy.learning.practice import fresh_adapters
from quickstudy.methods.interface import Item, Outcome, Workbench, outcome
from quickstudy.types import Answer, Example


class Cycle:
    """The cycle on the practice that `make` gives: that for the request itself."""

    def __init__(self, bench: Workbench, config: Config) -> None:
        self.bench, self.config = bench, config
        self.improver = bench.improver(config)

    def answer(self, item: Item) -> Outcome:
        return self.improved(*self.bench.draft(self.improver, item.request))

    def improved(self, draft: Draft, before: float | None) -> Outcome:
        """The draft after the cycle; `before` is the memory that it took."""
        with footprint() as memory:
            answer = self.improver.improve(draft, self.make)
            memory.include(before)
        return outcome(answer, draft, memory, triggered=_unsure(answer))

    def make(self, draft: Draft, deadline: Deadline) -> Given:
        given, _ = self.bench.book.practice(self.improver, draft, deadline)
        return given


class CertainOnly(Cycle):
    """The gate turned round. Behind it, `self.improver` has one that lets all drafts pass."""

    def __init__(self, bench: Workbench, config: Config) -> None:
        open_gate = config.awareness.model_copy(update={"threshold": 1.01})
        super().__init__(bench, config.model_copy(update={"awareness": open_gate}))
        self.gate = bench.improver(config)

    def answer(self, item: Item) -> Outcome:
        draft, before = self.bench.draft(self.gate, item.request)
        threshold = self.gate.threshold
        sure = assess(self.bench.decoder, draft, self.gate.config, Deadline())
        if sure.value >= threshold:
            return replace(self.improved(draft, before), threshold=threshold)
        base = self.bench.improver(self.config.model_copy(update={"method": "base"}))
        answer = base.improve(draft)
        episode = replace(answer.episode, certainty=sure.value, candidates=sure.candidates)
        return Outcome(replace(answer, episode=episode), draft, before, threshold=threshold)


class OtherRequest(Cycle):
    """Practice for the request before this one: the items come in a random order.

    Where it has none, the one before that, and so on; then the ones that come after.
    """

    def answer(self, item: Item) -> Outcome:
        self.place = next(i for i, other in enumerate(self.bench.items) if other is item)
        return super().answer(item)

    def make(self, draft: Draft, deadline: Deadline) -> Given:
        items = self.bench.items
        for item in (*items[: self.place][::-1], *items[self.place + 1 :]):
            other, _ = self.bench.draft(self.improver, item.request)
            if other.context.request.messages == draft.context.request.messages:
                continue
            other = self.improver.reconsider(other, deadline)
            given = super().make(other, deadline)
            if given.failure is None:
                return replace(given, under=other)
        return Given(Synthesis(), 0.0, "no other request has practice")


class NoSynthesis(Cycle):
    def make(self, draft: Draft, deadline: Deadline) -> Given:
        request, reply = draft.context.request, draft.reply
        if request.tools and not reply.tool_calls:
            return Given(Synthesis(), 0.0, "the draft calls no tool")
        example = Example(request.messages, reply.tool_calls, "draft", reply.content)
        return Given(Synthesis([example]))


class NoVerification(Cycle):
    """As many examples as were wanted, drawn from all that were written."""

    def make(self, draft: Draft, deadline: Deadline) -> Given:
        given = super().make(draft, deadline)
        made = given.made
        written = [*made.examples, *(r.example for r in made.rejected)]
        request = draft.context.request
        fit = [
            example
            for example in written
            if (example.tool_calls or example.content)
            and all(request.tool(call.name) for call in example.tool_calls)
        ]
        calling = [example for example in fit if bool(example.tool_calls) == bool(request.tools)]
        wanted = min(self.config.augmentation.examples, len(calling))
        if not wanted:
            return replace(given, failure=given.failure or "nothing was written")
        drawn = random.Random(self.config.seed).sample(calling, wanted)
        # the request that no tool serves is one of the examples, and no draw
        rest = [example for example in made.examples if example not in calling]
        return Given(Synthesis([*drawn, *rest], [], [*made.notes]), given.seconds)


class NoReset(Cycle):
    """One adapter that goes on from item to item; drafts are made under it as well.

    It is kept on the disk after each item, so that a run that was killed goes on from there.
    """

    adapter: AdapterBank | None = None

    def answer(self, item: Item) -> Outcome:
        place = next(i for i, other in enumerate(self.bench.items) if other is item)
        before = self._kept(place)
        if self.adapter is None:
            self.adapter = self._resumed(before)
        base, peak = self.bench.draft(self.improver, item.request)
        with footprint() as memory:
            memory.include(peak)
            draft = self.bench.adapted(base, self.adapter, self.config)
            answer = self.improver.improve(draft, self.make)
        self.adapter.save(self._folder / str(place))
        for older in before[:-1]:
            shutil.rmtree(older, ignore_errors=True)
        return outcome(answer, draft, memory, triggered=_unsure(answer))

    def make(self, draft: Draft, deadline: Deadline) -> Given:
        return replace(super().make(draft, deadline), adapter=self.adapter)

    @property
    def _folder(self) -> Path:
        return self.bench.folder / "no-reset"

    def _kept(self, place: int) -> list[Path]:
        """The adapters of items before, the nearest last."""
        kept = [self._folder / str(number) for number in range(place)]
        return [folder for folder in kept if (folder / "adapter_config.json").is_file()]

    def _resumed(self, before: Sequence[Path]) -> AdapterBank:
        """The adapter as it was after the item before; a fresh one for the first."""
        if before:
            return AdapterBank.load(self.bench.model.network, before[-1])
        return fresh_adapters(self.bench.model, self.config.learning, self.config.seed)


def _unsure(answer: Answer) -> bool:
    certainty = answer.episode.certainty
    return certainty is not None and certainty < answer.episode.threshold
