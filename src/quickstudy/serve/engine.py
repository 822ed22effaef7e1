"""START HERE: one request, answered, in `Engine.answer`.

It runs in the request's own thread and holds the baton (`scheduler`). `base` decodes at once;
every other method drafts, judges and, where the model is unsure, practises: `Improver` does that,
and pauses where its deadline is checked.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from quickstudy import repair, toolcalls
from quickstudy.config import Config
from quickstudy.decoding import Ask, Draft, Generation
from quickstudy.improve import Improver, unconstrained
from quickstudy.model import Context
from quickstudy.serve.asked import Asked, Names
from quickstudy.serve.faults import unsupported
from quickstudy.serve.replies import Cycle, Finish, Outcome, Result, TokenChance
from quickstudy.serve.room import Room
from quickstudy.serve.scheduler import Job, Turn
from quickstudy.serve.table import Table
from quickstudy.serve.words import Listener, cut, sayable
from quickstudy.teaching.teacher import Teacher
from quickstudy.toolcalls import Grammar, value_grammar
from quickstudy.types import Answer, Reply, Sampling, Tool

Tell = Callable[[int, str], None]  # a choice's number, and the next words of it
_DRAFTED_BY = 0.8  # of the time-out: what is not practised by then is answered with its draft


class Engine:
    """Answers chat requests with one improver's model."""

    def __init__(self, improver: Improver, teacher: Teacher | None = None) -> None:
        """`teacher` is the one of NAME:tt-d where the improver's own method has none."""
        self.improver = improver
        self.teacher = improver.teacher or teacher
        self.model = improver.model
        self.config = improver.config
        self.limits = improver.config.serve
        self.room = Room(self.limits.practise_together)
        self.table = Table(improver.decoder, self.limits.decode_together)
        known = ["base", "tt-si", "tt-d"] if self.teacher else ["base", "tt-si"]
        self.names = Names(
            self.limits.name or Path(self.model.name).name,
            self.config.method,
            tuple(known) if self.limits.overrides else (),
        )

    def answer(self, asked: Asked, job: Job, tell: Tell | None) -> Result:
        """Answers one request.

        Args:
            tell: gets the words as they come; None: nobody listens before the end.

        Raises:
            RequestError: if the model cannot read it.
            ApiError: if it wants what the tools' schemas do not allow.
            Cancelled: if nobody waits for it any more.
        """
        if asked.method == "base":
            return self._base(asked, job, tell)
        return self._judged(asked, job, tell)

    def _judged(self, asked: Asked, job: Job, tell: Tell | None) -> Result:
        improver = self._improver(asked)
        if asked.request.must_call:
            self._check_grammar(asked, improver.config)
        drafter = copy.copy(improver)
        drafter.decoder = self.table.seat(job)
        draft = drafter.draft(asked.request, Turn(None, job))
        case = improver.judge(draft, Turn(self._until(asked, job), job))
        if case.unsure:
            self.room.practise(improver, case, job)
        answer = improver.finish(case)
        outcome = self._outcome(answer, draft, asked.stops, improver.config)
        if tell:
            tell(0, outcome.reply.content)
        episode = answer.episode
        cycle = Cycle(
            episode=str(asked.request.id),
            method=episode.method,
            certainty=episode.certainty,
            threshold=episode.threshold,
            practised=episode.practised,
            fallback=episode.fallback,
            examples=len(episode.examples),
            queued=job.queued,
            seconds=episode.seconds,
            notes=episode.notes,
        )
        return Result((outcome,), _length(draft.context), cycle)

    def _base(self, asked: Asked, job: Job, tell: Tell | None) -> Result:
        config = self._configured(asked)
        request, thinking = asked.request, config.decoding.thinking
        grammar = self._check_grammar(asked, config)
        started = time.monotonic()
        context = self.model.prefill(request, thinking)
        prefilled = time.monotonic()
        opened = self.model.reasoning_start(thinking) == "opened"
        if config.repair and request.tools:  # what is going to be mended is not told before
            tell = None
        listeners = [
            Listener(
                self.model.decode,
                asked.stops,
                partial(tell, index) if tell else None,
                tools=bool(request.tools),
                opened=opened,
            )
            for index in range(asked.n)
        ]
        hears = tell is not None or bool(asked.stops)
        room = self.model.context_length - _length(context)
        most = min(config.decoding.max_new_tokens, room)
        generations = self.table.seat(job).decode(
            context.prefix,
            [
                Ask(
                    context.turn,
                    grammar,
                    listener=heard if hears else None,
                    sampling=_other(request.sampling, index),
                )
                for index, heard in enumerate(listeners)
            ],
            max_new_tokens=most,
            deadline=Turn(None, job),
        )
        outcomes = []
        for generation, heard in zip(generations, listeners, strict=True):
            reply, _ = toolcalls.read(generation.text, request.tools)
            if config.repair:
                reply, _ = repair.repair(reply, request)
            reply, stopped = _stopped(reply, asked.stops)
            whole = generation.finished or stopped
            if not whole:
                reply = _cut_off(reply, request.tools)
            heard.finish(reply.content)
            chances = None if asked.logprobs is None else self._chances(generation, asked.logprobs)
            tokens = _told(generation, whole, most)
            outcomes.append(Outcome(reply, _finish(reply, whole), tokens, chances))
        seconds = {"prefill": prefilled - started, "draft": time.monotonic() - prefilled}
        cycle = Cycle(
            episode=str(request.id),
            method="base",
            certainty=None,
            threshold=None,
            practised=False,
            fallback=None,
            examples=0,
            queued=job.queued,
            seconds=seconds,
            notes=tuple(unconstrained(request, config, grammar)),
        )
        return Result(tuple(outcomes), _length(context), cycle)

    def _check_grammar(self, asked: Asked, config: Config) -> Grammar | None:
        """The grammar of the answer. Raises ApiError where one is wanted that cannot be had."""
        decoder, request = self.improver.decoder, asked.request
        if asked.schema is not None:
            grammar = value_grammar(asked.schema)
            if refusal := decoder.refusal(grammar):
                reason = refusal.splitlines()[0]
                raise unsupported("response_format", f"its schema makes no grammar: {reason}")
            return grammar
        found = decoder.grammar(request, config.decoding, config.decoding.thinking)
        if found is None and request.must_call:
            raise unsupported(
                "tool_choice", "the tools' schemas cannot be decoded under; take auto"
            )
        return found

    def _configured(self, asked: Asked) -> Config:
        """The server's settings, and over them what the request says."""
        decoding: dict[str, Any] = {}
        if asked.max_tokens is not None:
            decoding["max_new_tokens"] = asked.max_tokens
        if asked.one_call:
            decoding["max_calls"] = 1
        changed = self.config.decoding.model_copy(update=decoding)
        return self.config.model_copy(update={"method": asked.method, "decoding": changed})

    def _improver(self, asked: Asked) -> Improver:
        """The server's improver under the request's settings; model and teacher are shared."""
        improver = copy.copy(self.improver)
        improver.config = self._configured(asked)
        improver.teacher = self.teacher if asked.method == "tt-d" else None
        if asked.threshold is not None:
            improver.threshold = asked.threshold
        return improver

    def _until(self, asked: Asked, job: Job) -> float:
        """When (monotonic) practice has to be over."""
        budget = asked.budget_seconds or self.config.budget_seconds or float("inf")
        return job.arrived + min(budget, _DRAFTED_BY * self.limits.timeout)

    def _outcome(
        self, answer: Answer, draft: Draft, stops: tuple[str, ...], config: Config
    ) -> Outcome:
        request = draft.context.request
        reply, stopped = _stopped(Reply(answer.content, answer.tool_calls, answer.reasoning), stops)
        generation = draft.generation
        if reply == draft.reply:
            whole = generation.finished
            tokens = _told(generation, whole, config.decoding.max_new_tokens)
        else:
            written = toolcalls.write(reply.tool_calls, draft.call_format or "json", request.tools)
            text = f"{reply.content}{written if reply.tool_calls else ''}"
            tokens = len(self.model.encode(text))
            whole = tokens < config.decoding.max_new_tokens
        if not (whole or stopped):
            reply = _cut_off(reply, request.tools)
        return Outcome(reply, _finish(reply, whole or stopped), tokens)

    def _chances(self, generation: Generation, others: int) -> tuple[TokenChance, ...]:
        """Each token's log-probability; 0 where the grammar left no choice."""
        chosen = {choice.index: choice for choice in generation.choices}
        found = []
        for index, token in enumerate(generation.ids):
            text, choice = self.model.decode([token]), chosen.get(index)
            if choice is None:
                found.append(TokenChance(text, 0.0))
                continue
            likeliest = (
                (text, choice.log_prob)
                if choice.log_prob >= choice.rival
                else (self.model.decode([choice.runner_up]), choice.rival)
            )
            found.append(TokenChance(text, choice.log_prob, (likeliest,) * others))
        return tuple(found)


def _stopped(reply: Reply, stops: tuple[str, ...]) -> tuple[Reply, bool]:
    content, stopped = cut(reply.content, stops)
    return Reply(content, reply.tool_calls, reply.reasoning), stopped


def _cut_off(reply: Reply, tools: tuple[Tool, ...]) -> Reply:
    """An answer that ended at the limit, without the call that was being written."""
    return replace(reply, content=sayable(reply.content, bool(tools)))


def _told(generation: Generation, whole: bool, most: int) -> int:
    """Tokens of an answer; what the grammar forced beyond the limit is not told either."""
    tokens = len(generation.ids)
    return tokens if whole else min(tokens, most)


def _finish(reply: Reply, whole: bool) -> Finish:
    if not whole:
        return "length"
    return "tool_calls" if reply.tool_calls else "stop"


def _other(sampling: Sampling, index: int) -> Sampling:
    """The same sampling with a seed of its own for each choice."""
    return replace(sampling, seed=(sampling.seed + index) % (1 << 63))


def _length(context: Context) -> int:
    return len(context.prefix.ids) + len(context.turn)
