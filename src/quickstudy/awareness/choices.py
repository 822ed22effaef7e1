"""RSS over a given set of answers: multiple choice."""

from __future__ import annotations

from quickstudy.awareness import rss
from quickstudy.awareness.margin import token_margin
from quickstudy.awareness.merging import Likelihood, Scored
from quickstudy.awareness.scoring import given_log_probs
from quickstudy.decoding import Decoder, Draft
from quickstudy.types import Candidate, Certainty


def choices(decoder: Decoder, draft: Draft, how: Likelihood) -> Certainty:
    """RSS over the request's choices, each a whole answer that ends there.

    A request that lists none has no candidates; it gets its draft's margin.
    """
    context, given = draft.context, draft.context.request.choices
    if not given:
        return token_margin(decoder, draft.generation)
    answers = [decoder.model.answer_ids(choice) for choice in given]
    told = given_log_probs(decoder.model, context, context.turn, answers)
    scores = [
        Scored(text, float(row.sum()), len(row)).score(how)
        for text, row in zip(given, told, strict=True)
    ]
    return Certainty(rss.certainty(scores), tuple(map(Candidate, given, scores)))
