"""The draft's least certain token: p1 - p2 among the tokens the grammar allowed.

Costs nothing beyond the draft. It is RSS over two candidates, the draft and its best rival, if
what follows the fork is certain in both.
"""

from __future__ import annotations

from quickstudy.decoding import Choice, Decoder, Generation
from quickstudy.types import Candidate, Certainty


def token_margin(decoder: Decoder, draft: Generation) -> Certainty:
    """The smallest margin of the draft's choices; 1 where it had none."""
    if not draft.choices:
        return Certainty(1.0)
    least = min(draft.choices, key=lambda choice: choice.margin)
    return Certainty(least.margin, ways(decoder, draft, least))


def ways(decoder: Decoder, draft: Generation, choice: Choice) -> tuple[Candidate, Candidate]:
    """The draft up to a choice, either way on; log P of that one token, in nats."""
    before = draft.ids[: choice.index]
    taken, rival = (choice.token, choice.log_prob), (choice.runner_up, choice.rival)
    first, second = (
        Candidate(decoder.model.decode([*before, token]), log_prob)
        for token, log_prob in (taken, rival)
    )
    return first, second
