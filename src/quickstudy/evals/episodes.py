"""A recorded episode, ready to be shown: the lines of an answer, what was practised, what it cost.

Reads JSON that a run wrote, whatever wrote it: a key that is missing or null is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from quickstudy.types import STAGES

Lines = tuple[tuple[str, bool], ...]  # a line of text, and whether the other side lacks it


@dataclass(frozen=True)
class Problem:
    """A practice example; `reason` says why it was rejected, if it was."""

    request: str
    answer: tuple[str, ...]  # words, then the lines of its calls
    source: str
    reason: str


@dataclass(frozen=True)
class Rival:
    """A candidate awareness weighed, and its share of the candidates' probability."""

    text: str
    log_prob: float | None
    share: float


@dataclass(frozen=True)
class Row:
    """One request as the page shows it; None means unknown, never wrong."""

    number: int
    id: str
    request: str
    error: str
    method: str
    certainty: float | None
    threshold: float
    practised: bool
    fallback: str
    notes: tuple[str, ...]
    repaired: tuple[str, ...]
    draft: Lines
    final: Lines
    expected: Lines | None
    draft_correct: bool | None
    correct: bool | None
    rivals: tuple[Rival, ...]
    examples: tuple[Problem, ...]
    rejected: tuple[Problem, ...]
    losses: tuple[float | None, ...]  # None: not finite
    seconds: Mapping[str, float]

    @property
    def unsure(self) -> bool:
        return self.certainty is not None and self.certainty < self.threshold

    @property
    def detailed(self) -> bool:
        """Whether there is a cycle to tell: also of methods that practise without a gate."""
        return self.unsure or self.practised or bool(self.fallback or self.repaired)

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def row(number: int, line: Mapping[str, Any]) -> Row:
    episode = line.get("episode") or {}
    seconds = episode.get("seconds") or {}
    certainty, error = episode.get("certainty"), line.get("error")
    draft, final = marked(_reply(episode.get("draft") or {}), _reply(line))
    expected = line.get("expected")
    return Row(
        number=number,
        id="" if line.get("id") is None else str(line["id"]),
        request=str(line.get("request") or ""),
        error="" if error is None else str(error) or "failed without a message",
        method=str(episode.get("method") or ""),
        certainty=None if certainty is None else float(certainty),
        threshold=float(episode.get("threshold") or 0.0),
        practised=bool(episode.get("practised")),
        fallback=str(episode.get("fallback") or ""),
        notes=tuple(map(str, episode.get("notes") or ())),
        repaired=tuple(map(str, episode.get("repaired") or ())),
        draft=draft,
        final=final,
        expected=None if expected is None else tuple((s, False) for s in calls(expected)),
        draft_correct=line.get("draft_correct"),
        correct=line.get("correct"),
        rivals=_rivals(episode.get("candidates") or ()),
        examples=tuple(_problem(raw) for raw in episode.get("examples") or ()),
        rejected=tuple(_problem(raw) for raw in episode.get("rejected") or ()),
        losses=tuple(
            loss if loss is not None and math.isfinite(loss) else None
            for loss in episode.get("losses") or ()
        ),
        seconds={stage: float(seconds.get(stage) or 0.0) for stage in STAGES},
    )


def _problem(raw: Mapping[str, Any]) -> Problem:
    request, source, reason = (str(raw.get(key) or "") for key in ("request", "source", "reason"))
    return Problem(request, tuple(_reply(raw)), source, reason)


def _rivals(candidates: Sequence[Mapping[str, Any]]) -> tuple[Rival, ...]:
    """The paper's p_n, a softmax over the candidates; an impossible one (null) has share 0."""
    logs = [raw.get("log_prob") for raw in candidates]
    top = max((log for log in logs if log is not None), default=0.0)
    weights = [0.0 if log is None else math.exp(log - top) for log in logs]
    whole = sum(weights) or 1.0
    return tuple(
        Rival(str(raw.get("text") or ""), log, weight / whole)
        for raw, log, weight in zip(candidates, logs, weights, strict=True)
    )


def _reply(raw: Mapping[str, Any]) -> list[str]:
    return [*str(raw.get("content") or "").splitlines(), *calls(raw.get("tool_calls") or ())]


def calls(raw: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A call as lines, one an argument, in name order: the order they were said in says nothing."""
    for call in raw:
        yield str(call.get("name") or "?")
        arguments = call.get("arguments") or {}
        if not isinstance(arguments, Mapping):
            arguments = {"arguments": arguments}
        for name, value in sorted(arguments.items()):
            yield f"  {name}: {json.dumps(value, ensure_ascii=False, default=str)}"


def marked(before: list[str], after: list[str]) -> tuple[Lines, Lines]:
    """Both sides, each line marked if the other side lacks it."""
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    kept = {block.a + i for block in blocks for i in range(block.size)}
    same = {block.b + i for block in blocks for i in range(block.size)}
    return (
        tuple((text, i not in kept) for i, text in enumerate(before)),
        tuple((text, i not in same) for i, text in enumerate(after)),
    )
