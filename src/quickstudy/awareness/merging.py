"""Answers that mean the same are one candidate.

Rivals that only spell an answer differently must not compete with it: their mass is added up.
What "the same" is depends on the answer:

* calls: equal as parsed calls (`toolcalls.equal`);
* words that end in a number: the number (`The total is $1,200.` and `1200.0` are the same);
* other words: the text without case, outer punctuation and spacing.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from quickstudy.awareness import rss
from quickstudy.toolcalls import canonical, read
from quickstudy.types import Candidate, Certainty, Tool

Score = Literal["sum", "mean"]

_LAST_NUMBER = re.compile(
    r"(?<![\w.,])([-−]?)\s?[$€£]?([-−]?)(\d{1,3}(?:,\d{3})+|\d{1,60})(\.\d{1,60})?"
    r"[\s.!%°*_`'\"”’)\]}$]{0,20}\Z"
)
_OUTER = " \t\n.,;:!?\"'`*_()[]{}“”‘’«»"


@dataclass(frozen=True)
class Scored:
    """An answer, log P in nats summed over the tokens that the model chose, and their number."""

    text: str
    log_prob: float
    tokens: int

    def score(self, how: Score) -> float:
        """The sum, or the mean over the tokens (an answer without choices has log P 0)."""
        return self.log_prob if how == "sum" else self.log_prob / max(1, self.tokens)


def answer_key(text: str, tools: Sequence[Tool] = ()) -> str:
    """One text for all answers that mean the same. Never raises."""
    reply, _ = read(text, tools)
    if reply.tool_calls:
        return canonical(reply.tool_calls, tools)
    if number := final_number(reply.content):
        return number
    plain = unicodedata.normalize("NFKC", reply.content).casefold()
    return " ".join(plain.split()).strip(_OUTER)


def final_number(text: str) -> str | None:
    """The number that the text ends in, in one spelling; None if it ends otherwise."""
    found = _LAST_NUMBER.search(text[-200:])
    if not found:
        return None
    before, after, whole, fraction = found.groups()
    value = Decimal(whole.replace(",", "") + (fraction or ""))
    spelt = f"{value:f}"
    if "." in spelt:
        spelt = spelt.rstrip("0").rstrip(".")
    spelt = spelt.lstrip("0") or "0"
    spelt = f"0{spelt}" if spelt.startswith(".") else spelt
    return f"-{spelt}" if (before or after) and value else spelt


def merge(answers: Iterable[Scored], tools: Sequence[Tool], how: Score) -> tuple[Candidate, ...]:
    """The distinct answers, in the order they first came, each told by its first text.

    Sums are probabilities: those of different texts add up, and a text said twice counts once.
    Means are none: the best text speaks for its answer.
    """
    texts = {answer.text: answer for answer in answers}
    groups: dict[str, list[Scored]] = {}
    for answer in texts.values():
        groups.setdefault(answer_key(answer.text, tools), []).append(answer)
    return tuple(
        Candidate(group[0].text, _together([answer.score(how) for answer in group], how))
        for group in groups.values()
    )


def relative(answers: Iterable[Scored], tools: Sequence[Tool], how: Score) -> Certainty:
    """RSS over the distinct answers."""
    candidates = merge(answers, tools, how)
    return Certainty(rss.certainty([c.log_prob for c in candidates]), candidates)


def _together(scores: Sequence[float], how: Score) -> float:
    top = max(scores)
    if how == "mean" or len(scores) == 1 or top == -math.inf:
        return top
    return top + math.log(sum(math.exp(score - top) for score in scores))
