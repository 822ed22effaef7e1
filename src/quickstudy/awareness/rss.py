"""Relative Softmax Scoring: how sure the model is of one answer among candidates.

The formula of arXiv 2510.07841. For candidate answers a_1..a_N of a request x:

    l_n = log P(a_n | x)
    p_n = exp(l_n - max l) / sum_k exp(l_k - max l)
    u   = p_(1) - p_(2)          (largest less second largest)

u is 1 when one candidate has all the mass and 0 when two share it. Pure numbers, no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def relative_softmax(log_probs: Sequence[float]) -> list[float]:
    """p_n as above. An impossible candidate (-inf, or nan) gets 0; all impossible: all equal."""
    scores = [-math.inf if math.isnan(score) else score for score in log_probs]
    top = max(scores, default=0.0)
    if top == -math.inf:
        return [1 / len(scores)] * len(scores)
    weights = [math.exp(score - top) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


def certainty(log_probs: Sequence[float]) -> float:
    """u as above, in [0, 1]. One candidate, or none: nothing competes, so 1."""
    if len(log_probs) < 2:
        return 1.0
    first, second = sorted(relative_softmax(log_probs), reverse=True)[:2]
    return first - second
