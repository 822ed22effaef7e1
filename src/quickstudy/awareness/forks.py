"""RSS over whole answers, forked from the greedy draft at its least certain tokens."""

from __future__ import annotations

import math

from quickstudy.awareness.merging import Scored
from quickstudy.config import Config
from quickstudy.decoding import Ask, Deadline, Decoder, Draft


def forked(decoder: Decoder, draft: Draft, config: Config, deadline: Deadline) -> list[Scored]:
    """The draft, and what it becomes if its `forks` least certain choices go the other way.

    Raises:
        BudgetSpent: if the deadline passes.
    """
    context, said = draft.context, draft.generation
    least = sorted(said.choices, key=lambda choice: choice.margin)[: config.awareness.forks]
    least = [
        choice
        for choice in least
        if choice.runner_up not in decoder.model.eos_ids and math.isfinite(choice.rival)
    ]
    answers = [Scored(said.text, said.log_prob, len(said.choices))]
    if not least:
        return answers
    rivals = decoder.decode(
        context.prefix,
        [
            Ask(context.turn, draft.grammar, [*said.ids[: choice.index], choice.runner_up])
            for choice in least
        ],
        max_new_tokens=config.decoding.max_new_tokens,
        deadline=deadline,
    )
    for choice, rival in zip(least, rivals, strict=True):
        # a fork's own log P counts only what it chose itself: add the draft's up to the fork
        before = [c.log_prob for c in said.choices if c.index < choice.index]
        answers.append(
            Scored(
                rival.text,
                sum(before) + choice.rival + rival.log_prob,
                len(before) + 1 + len(rival.choices),
            )
        )
    return answers
