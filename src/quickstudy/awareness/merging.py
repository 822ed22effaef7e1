"""Answers that mean the same are one candidate.

Rivals that only spell an answer differently must not compete with it. What "the same" is depends
on the answer: calls are equal as parsed calls (`toolcalls.canonical`), words as `agreement` has
it, where all answers of one candidate must agree with one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from quickstudy.awareness import rss
from quickstudy.awareness.agreement import clusters
from quickstudy.toolcalls import canonical, read
from quickstudy.types import Candidate, Certainty, Tool

Likelihood = Literal["sum", "mean"]
Score = Literal[Likelihood, "votes"]


@dataclass(frozen=True)
class Scored:
    """An answer, log P in nats summed over the tokens that the model chose, and their number."""

    text: str
    log_prob: float
    tokens: int

    def score(self, how: Likelihood) -> float:
        """The sum, or the mean over the tokens (an answer without choices has log P 0)."""
        return self.log_prob if how == "sum" else self.log_prob / max(1, self.tokens)


def same(texts: Sequence[str], tools: Sequence[Tool] = ()) -> list[list[int]]:
    """Groups answers that mean the same, as indices, in the order they first came."""
    calls: dict[str, list[int]] = {}
    words: list[tuple[int, str]] = []
    for index, text in enumerate(texts):
        reply, _ = read(text, tools)
        if reply.tool_calls:
            calls.setdefault(canonical(reply.tool_calls, tools), []).append(index)
        else:
            words.append((index, reply.content))
    said = [[words[i][0] for i in group] for group in clusters([text for _, text in words])]
    return sorted([*calls.values(), *said])


def merge(answers: Iterable[Scored], tools: Sequence[Tool], how: Score) -> tuple[Candidate, ...]:
    """The distinct answers, in the order they first came, each told by its first text.

    Sums are probabilities: those of different texts add up, and a text said twice counts once.
    Means are none: the best text speaks for its answer.
    Votes: l is the log of the share of the answers that say it, and a text said twice counts
    twice; u is then the share of the first less that of the second.
    """
    answers = list(answers)
    if how != "votes":
        answers = list({answer.text: answer for answer in answers}.values())
    merged = []
    for group in same([answer.text for answer in answers], tools):
        if how == "votes":
            score = math.log(len(group) / len(answers))
        else:
            score = _together([answers[i].score(how) for i in group], how)
        merged.append(Candidate(answers[group[0]].text, score))
    return tuple(merged)


def relative(answers: Iterable[Scored], tools: Sequence[Tool], how: Score) -> Certainty:
    """RSS over the distinct answers."""
    candidates = merge(answers, tools, how)
    return Certainty(rss.certainty([c.log_prob for c in candidates]), candidates)


def _together(scores: Sequence[float], how: Likelihood) -> float:
    top = max(scores)
    if how == "mean" or len(scores) == 1 or top == -math.inf:
        return top
    return top + math.log(sum(math.exp(score - top) for score in scores))
