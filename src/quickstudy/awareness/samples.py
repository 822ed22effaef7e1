"""RSS over sampled answers: what else the model would say.

With score sum or mean the samples only propose candidates, and each is weighed by the model's own
probability (at temperature 1), as the paper does. With score votes it is weighed by how often it
was drawn, the draft counting as once: the better estimate where one answer can be reached in very
many words. Log-probabilities of whole texts differ by tens of nats, mostly for their length, so
by sums the likeliest text takes all the mass, u is next to 1 and says nothing about the answer.
"""

from __future__ import annotations

import torch

from quickstudy.awareness.merging import Scored
from quickstudy.config import Config
from quickstudy.decoding import Ask, Deadline, Decoder, Draft, Generation


def sampled(decoder: Decoder, draft: Draft, config: Config, deadline: Deadline) -> list[Generation]:
    """Other answers to the draft's request, drawn as one batch; one seed, the same answers.

    Raises:
        BudgetSpent: if the deadline passes.
    """
    return decoder.decode(
        draft.context.prefix,
        [Ask(draft.context.turn, draft.grammar)] * config.awareness.samples,
        max_new_tokens=config.decoding.max_new_tokens,
        deadline=deadline,
        temperature=config.awareness.temperature,
        generator=torch.Generator().manual_seed(config.seed),
    )


def scored(draft: Generation, samples: list[Generation]) -> list[Scored]:
    """The draft and the samples as answers to compete."""
    return [Scored(g.text, g.log_prob, len(g.choices)) for g in (draft, *samples)]
