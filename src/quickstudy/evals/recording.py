"""From a method's outcome to a line of `records.jsonl`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from quickstudy import toolcalls
from quickstudy.awareness.kinds import choice_kinds
from quickstudy.awareness.names import name_log_probs
from quickstudy.awareness.samples import sampled
from quickstudy.config import Config
from quickstudy.decoding import Deadline, Decoder, Draft, Generation
from quickstudy.evals.records import Choice, Drafted, Fault, Practised, Record, Said, Sampled
from quickstudy.evals.records import Verdict as Told
from quickstudy.evals.scoring import score
from quickstudy.evals.summary import replied
from quickstudy.evals.task import Task
from quickstudy.methods import Outcome
from quickstudy.repair import repair
from quickstudy.types import Example, Reply, Tool, ToolCall


@dataclass(frozen=True)
class Place:
    """An item of a run: a task of a benchmark, at a place of the seeded order."""

    benchmark: str
    number: int
    task: Task


def record(place: Place, method: str, outcome: Outcome, decoder: Decoder) -> Record:
    answer, draft = outcome.answer, outcome.draft
    episode = answer.episode
    reply = Reply(answer.content, answer.tool_calls)
    drafted = None
    if draft is not None:
        drafted = _drafted(decoder, draft)
        if outcome.samples:
            told = _sampled(outcome.samples, place.task.request.tools)
            drafted = drafted.model_copy(
                update={"samples": told, "temperature": outcome.temperature}
            )
    return Record(
        **_item(place, method),
        answer=_said(reply),
        verdict=verdict(place.task, reply),
        candidates=tuple(candidate.to_json() for candidate in episode.candidates),
        certainty=episode.certainty,
        threshold=outcome.threshold,
        triggered=outcome.triggered,
        practised=episode.practised,
        fallback=episode.fallback,
        examples=tuple(_practised(example) for example in episode.examples),
        rejected=tuple(_practised(r.example, r.reason) for r in episode.rejected),
        losses=tuple(_rounded(loss) for loss in episode.losses),
        examples_trained=outcome.examples_trained,
        gradient_steps=outcome.gradient_steps,
        notes=episode.notes,
        seconds={stage: round(spent, 4) for stage, spent in episode.seconds.items()},
        peak_rss_mb=None if outcome.peak_rss_mb is None else round(outcome.peak_rss_mb, 1),
        draft=drafted,
    )


def failed(place: Place, method: str, reason: str) -> Record:
    """The record of an item that no answer could be made to: it is unscored, not wrong."""
    return Record(
        **_item(place, method),
        answer=Said(),
        verdict=Told(correct=None, unscored=reason),
        seconds={},
    )


def mended(place: Place, method: str, parent: Record) -> Record:
    """The record of a method with `+repair`, from that without: no model is called."""
    if parent.verdict.unscored and not parent.seconds:  # there was no answer
        return parent.model_copy(update={"method": method})
    start = time.perf_counter()
    reply, changes = repair(replied(parent), place.task.request)
    spent = time.perf_counter() - start
    return parent.model_copy(
        update={
            "method": method,
            "answer": _said(reply),
            "verdict": verdict(place.task, reply),
            "repaired": changes,
            "seconds": {**parent.seconds, "repair": round(spent, 4)},
        }
    )


def probed(record: Record, decoder: Decoder, draft: Draft, config: Config) -> Record:
    """The record with what costly estimators of certainty need: scores of names, samples."""
    assert record.draft is not None
    names, tools = None, draft.context.request.tools
    if draft.call_format is not None and tools:
        listed, context = [tool.name for tool in tools], draft.context
        scores = name_log_probs(decoder, context, context.turn, listed, draft.call_format)
        names = {name: _rounded(one) for name, one in zip(listed, scores, strict=True)}
    samples = _sampled(sampled(decoder, draft, config, Deadline()), tools)
    update = {"names": names, "samples": samples, "temperature": config.awareness.temperature}
    return record.model_copy(update={"draft": record.draft.model_copy(update=update)})


def verdict(task: Task, reply: Reply) -> Told:
    graded = score(task, reply)
    return Told(
        correct=None if graded.unscored is not None else graded.correct,
        unscored=graded.unscored,
        errors=tuple(Fault(kind=f.kind, explanation=f.explanation) for f in graded.faults),
    )


def _item(place: Place, method: str) -> dict[str, Any]:
    task = place.task
    return {
        "benchmark": place.benchmark,
        "id": task.id,
        "place": place.number,
        "query": task.query,
        "verbatim": task.verbatim,
        "method": method,
        "request": task.request.messages[-1].content,
        "gold": _calls(task.gold),
    }


def _drafted(decoder: Decoder, draft: Draft) -> Drafted:
    said = draft.generation
    decode = decoder.model.decode
    kinds = choice_kinds(decode, said, draft.reply.tool_calls)
    return Drafted(
        content=draft.reply.content,
        tool_calls=_calls(draft.reply.tool_calls),
        text=said.text,
        finished=said.finished,
        choices=tuple(
            Choice(
                token=decode([choice.token]),
                kind=kind,
                log_prob=_finite(choice.log_prob),
                margin=round(choice.margin, 5),
                entropy=_rounded(choice.entropy),
            )
            for choice, kind in zip(said.choices, kinds, strict=True)
        ),
    )


def _sampled(drawn: Sequence[Generation], tools: Sequence[Tool]) -> tuple[Sampled, ...]:
    replies = [toolcalls.read(one.text, tools)[0] for one in drawn]
    return tuple(
        Sampled(
            content=reply.content,
            tool_calls=_calls(reply.tool_calls),
            text=one.text,
            log_prob=_finite(one.log_prob),
            tokens=len(one.choices),
        )
        for one, reply in zip(drawn, replies, strict=True)
    )


def _practised(example: Example, reason: str = "") -> Practised:
    return Practised(**example.to_json(), reason=reason)


def _said(reply: Reply) -> Said:
    return Said(content=reply.content, tool_calls=_calls(reply.tool_calls))


def _calls(calls: Sequence[ToolCall]) -> tuple[dict[str, Any], ...]:
    return tuple(call.to_json() for call in calls)


def _rounded(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None


def _finite(value: float) -> float:
    """Rounded; an impossible token's log-probability as a number that JSON has."""
    return round(max(value, torch.finfo(torch.float32).min), 5)
