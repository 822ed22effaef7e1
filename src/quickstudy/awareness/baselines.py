"""Other scores of how sure a model is, to compare with: functions, not settings.

Each is higher when the model is surer, and comes from the draft's recorded choices (the tokens
chosen among several that the grammar allowed) or from samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from quickstudy.awareness.merging import same
from quickstudy.decoding import Generation
from quickstudy.types import Tool


def sequence_probability(draft: Generation) -> float:
    """P(draft | request): the product over the choices."""
    return math.exp(draft.log_prob)


def inverse_perplexity(draft: Generation) -> float:
    """exp of the mean log P of a choice, in (0, 1]; perplexity is one over it."""
    if not draft.choices:
        return 1.0
    return math.exp(draft.log_prob / len(draft.choices))


def least_probability(draft: Generation) -> float:
    """P of the draft's least likely choice."""
    return min((math.exp(choice.log_prob) for choice in draft.choices), default=1.0)


def negative_mean_entropy(draft: Generation) -> float:
    """Minus the mean entropy of the choices, in nats."""
    if not draft.choices:
        return 0.0
    return -sum(choice.entropy for choice in draft.choices) / len(draft.choices)


def negative_largest_entropy(draft: Generation) -> float:
    """Minus the entropy of the choice where it is largest, in nats."""
    return -max((choice.entropy for choice in draft.choices), default=0.0)


def self_consistency(draft: str, samples: Sequence[str], tools: Sequence[Tool] = ()) -> float:
    """The share of sampled answers that mean the same as the draft; 1 without samples."""
    if not samples:
        return 1.0
    with_draft, *_ = same([draft, *samples], tools)
    return (len(with_draft) - 1) / len(samples)
