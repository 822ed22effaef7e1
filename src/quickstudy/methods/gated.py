"""Free second tries behind the same gate as TT-SI: a sure draft stands, an unsure one gives way."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from quickstudy.awareness.estimators import assess
from quickstudy.config import Config
from quickstudy.decoding import Deadline, Draft, Generation
from quickstudy.footprint import footprint
from quickstudy.methods.interface import Item, Outcome, Workbench
from quickstudy.types import Answer, Candidate, Episode, Reply


@dataclass(frozen=True)
class SecondTry:
    """What is answered in the draft's place.

    `candidates` of the vote that gave it, `samples` that it was taken of; None: there was no vote.
    """

    reply: Reply
    candidates: tuple[Candidate, ...] | None = None
    samples: tuple[Generation, ...] = ()


class Gated(ABC):
    """A method that has another try at unsure drafts; `stage` names its seconds."""

    name: ClassVar[str]
    stage: ClassVar[str]

    def __init__(self, bench: Workbench, config: Config) -> None:
        self.bench, self.config = bench, config
        self.improver = bench.improver(config)

    @abstractmethod
    def second(self, draft: Draft) -> SecondTry:
        """Another answer to the draft's request."""

    def answer(self, item: Item) -> Outcome:
        draft, before = self.bench.draft(self.improver, item.request)
        seconds = dict(draft.seconds)
        with footprint() as memory:
            memory.include(before)
            start = time.perf_counter()
            certainty = assess(self.bench.decoder, draft, self.config, Deadline())
            seconds["awareness"] = time.perf_counter() - start
            unsure = certainty.value < self.improver.threshold
            told = SecondTry(draft.reply)
            if unsure:
                start = time.perf_counter()
                told = self.second(draft)
                seconds[self.stage] = time.perf_counter() - start
        episode = Episode(
            method=self.name,
            certainty=certainty.value,
            threshold=self.improver.threshold,
            practised=False,
            fallback=None,
            draft=draft.reply,
            candidates=certainty.candidates if told.candidates is None else told.candidates,
            seconds=seconds,
        )
        reply = told.reply
        answer = Answer(reply.content, reply.tool_calls, episode, item.request.id, reply.reasoning)
        return Outcome(
            answer,
            draft,
            memory.peak_mb,
            unsure,
            episode.threshold,
            samples=told.samples,
            temperature=self.config.awareness.temperature if told.samples else None,
        )
