"""What every method is: an item in, an outcome out; and the workbench they share.

What several methods of one item need (the greedy draft, the practice) is made once on the
workbench, and its seconds count for each of them as if it had made it alone.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from quickstudy import toolcalls
from quickstudy.config import Config
from quickstudy.decoding import Ask, Deadline, Decoder, Draft, Generation
from quickstudy.footprint import Footprint, footprint
from quickstudy.improve import Improver
from quickstudy.learning.lora import AdapterBank
from quickstudy.methods.book import PracticeBook
from quickstudy.model import LanguageModel
from quickstudy.teaching.teacher import Teacher
from quickstudy.types import Answer, Request, ToolCall

_DRAFTS = 8  # kept; each holds the key/value cache of a prompt


@dataclass(frozen=True)
class Item:
    """A request and its right calls, which only `oracle` and training rows show to a method."""

    request: Request
    gold: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A method's answer to an item, and what it cost.

    `triggered`: the method went beyond its first answer. `threshold` is the gate's, where there
    is one. `samples`: what a vote was taken of.
    """

    answer: Answer
    draft: Draft | None
    peak_rss_mb: float | None
    triggered: bool = False
    threshold: float | None = None
    examples_trained: int = 0
    gradient_steps: int = 0
    samples: tuple[Generation, ...] = ()
    temperature: float | None = None


class Method(Protocol):
    """Answers items one after the other, in the order of the workbench."""

    def answer(self, item: Item) -> Outcome: ...


Track = Callable[[str, int, int], None]  # what is going on, steps done, steps in all


@dataclass
class Workbench:
    """What the methods of one benchmark share.

    `items` are those of the run in their order. `training` gives the labelled rows that are no
    test set. `folder` keeps what is trained once. `samples`: how many answers majority draws.
    """

    model: LanguageModel
    decoder: Decoder
    book: PracticeBook
    items: Sequence[Item]
    training: Callable[[], Sequence[Item]]
    folder: Path
    teacher: Teacher | None = None
    samples: int | None = None
    track: Track = lambda what, done, total: None

    def __post_init__(self) -> None:
        self._drafts: OrderedDict[tuple[str, int], tuple[Draft, float | None]] = OrderedDict()

    def improver(self, config: Config) -> Improver:
        """An improver that shares the model's vocabulary with all others."""
        improver = Improver(self.model, config, self.teacher if config.method == "tt-d" else None)
        improver.decoder = self.decoder
        return improver

    def draft(self, improver: Improver, request: Request) -> tuple[Draft, float | None]:
        """The greedy draft and the memory it took; made once for all that decode alike."""
        # by identity: requests hold dicts, and the draft keeps its request alive
        key = (improver.config.decoding.model_dump_json(), id(request))
        if key not in self._drafts:
            like = (told for (_, other), (told, _) in self._drafts.items() if other == id(request))
            first = next(like, None)
            with footprint() as memory:
                draft = improver.draft(request)
            if first:  # whose prefix the model has kept
                spent = {**draft.seconds, "prefill": first.seconds["prefill"]}
                draft = replace(draft, seconds=spent)
            self._drafts[key] = draft, memory.peak_mb
        self._drafts.move_to_end(key)
        if len(self._drafts) > _DRAFTS:
            self._drafts.popitem(last=False)
        return self._drafts[key]

    def adapted(self, draft: Draft, adapter: AdapterBank, config: Config) -> Draft:
        """The greedy answer to a draft's request under an adapter (a bank of one)."""
        context, decoding, seconds = draft.context, config.decoding, dict(draft.seconds)
        request, start = context.request, time.perf_counter()
        with adapter.attached():
            if config.learning.mode == "full":  # the adapter must see the prefix as well
                context = self.model.prefill(request, context.thinking)
                seconds["prefill"] = time.perf_counter() - start
                start = time.perf_counter()
            (said,) = self.decoder.decode(
                context.prefix,
                [Ask(context.turn, draft.grammar, likely=context.turn)],
                max_new_tokens=decoding.max_new_tokens,
                deadline=Deadline(),
            )
        reply, call_format = toolcalls.read(said.text, request.tools)
        seconds["draft"] = time.perf_counter() - start
        return Draft(context, said, draft.grammar, reply, call_format, seconds)


def outcome(answer: Answer, draft: Draft, memory: Footprint, *, triggered: bool) -> Outcome:
    """The outcome of a run through `Improver.improve`, or of one that is told like it."""
    episode = answer.episode
    steps = len(episode.losses)  # one before each step (`learning.practice`)
    return Outcome(
        answer,
        draft,
        memory.peak_mb,
        triggered,
        None if episode.certainty is None else episode.threshold,
        len(episode.examples) if steps else 0,
        steps,
    )


def named(answer: Answer, method: str) -> Answer:
    return replace(answer, episode=replace(answer.episode, method=method))
