"""log P of given answers: one batch that continues the shared prefix and turn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quickstudy.model import Context, LanguageModel, Prefix, start


@torch.no_grad()
def given_log_probs(
    model: LanguageModel, context: Context, turn: Sequence[int], answers: Sequence[Sequence[int]]
) -> list[Tensor]:
    """log P of each token of each answer to `turn`, in nats.

    The turn is run once; only the answers are a batch.

    Returns:
        a float32 tensor (tokens of the answer,) for each answer.
    """
    *before, last = turn
    shared = context.prefix
    if before:
        cache = shared.fork()
        model.forward([before], cache, None, keep=1)
        shared = Prefix((*shared.ids, *before), cache)
    rows = len(answers)
    told, mask = model.answer_log_probs(start([shared] * rows), [[last]] * rows, answers)
    return [row[real].cpu() for row, real in zip(told, mask, strict=True)]
