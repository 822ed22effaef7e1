"""RSS over the listed tools' names: the paper's example of candidates, "the available APIs".

Sees neither the arguments nor the decision to call at all: there is no candidate "no call",
for that is no answer to score but all answers in words together (`margin` sees the decision, at
the draft's first token). With one tool nothing competes: u = 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from quickstudy.awareness import rss
from quickstudy.awareness.merging import Likelihood
from quickstudy.awareness.scoring import given_log_probs
from quickstudy.decoding import Decoder, Draft
from quickstudy.model import Context
from quickstudy.toolcalls import CallFormat, opening
from quickstudy.types import Candidate, Certainty


def names(decoder: Decoder, draft: Draft, how: Likelihood = "sum") -> Certainty:
    """RSS over the names, in the draft's call format; 1 where it calls nothing.

    A mean is over the tokens that tell the names apart: not those all openings begin with.
    """
    context, tools = draft.context, draft.context.request.tools
    if draft.call_format is None or len(tools) < 2:
        return Certainty(1.0)
    listed = [tool.name for tool in tools]
    openings, told = _told(decoder, context, context.turn, listed, draft.call_format)
    if how == "sum":
        scores = [float(row.sum()) for row in told]
    else:
        columns = enumerate(zip(*openings, strict=False))
        parted = (place for place, tokens in columns if len(set(tokens)) > 1)
        shared = next(parted, min(map(len, openings)))
        # where one opening begins another, none of its tokens is left: log P of nothing is 0
        scores = [float(row[shared:].sum()) / max(1, len(row) - shared) for row in told]
    return Certainty(rss.certainty(scores), tuple(map(Candidate, listed, scores)))


def name_log_probs(
    decoder: Decoder,
    context: Context,
    turn: Sequence[int],
    listed: Sequence[str],
    call_format: CallFormat,
) -> list[float]:
    """log P of opening the answer to `turn` with each name, in nats, summed over the opening."""
    _, told = _told(decoder, context, turn, listed, call_format)
    return [float(row.sum()) for row in told]


def _told(
    decoder: Decoder,
    context: Context,
    turn: Sequence[int],
    listed: Sequence[str],
    call_format: CallFormat,
) -> tuple[list[list[int]], list[Tensor]]:
    openings = [decoder.model.encode(opening(name, call_format)) for name in listed]
    return openings, given_log_probs(decoder.model, context, turn, openings)
