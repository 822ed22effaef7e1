"""Whole sequences as batches for the framework."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quickstudy.learning.practice import Lesson

BATCH_TOKENS = 4096  # more in one pass: examples go one by one, their gradients are added up
IGNORED = -100  # a label that takes no part in the loss


def passes(sequences: Sequence[Lesson]) -> tuple[int, int]:
    """Sequences a pass, and passes a step: a batch's logits have to fit into memory."""
    longest = max(len(s.turn) + len(s.answer) for s in sequences)
    whole = longest * len(sequences) <= BATCH_TOKENS
    return (len(sequences), 1) if whole else (1, len(sequences))


def collate(sequences: Sequence[Lesson], pad: int) -> dict[str, Tensor]:
    """Right-padded inputs, mask and labels: (rows, longest); loss on the answers only."""
    rows = [[*s.turn, *s.answer] for s in sequences]
    labels = [[IGNORED] * len(s.turn) + list(s.answer) for s in sequences]
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        "labels": torch.tensor([row + [IGNORED] * (width - len(row)) for row in labels]),
    }
