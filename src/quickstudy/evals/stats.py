"""Intervals and paired tests. No accuracy without n and an interval; every gain is paired.

Items that share a query are no independent draws, so the bootstrap can draw clusters (queries)
instead of items: the mean is then that of all items of the clusters drawn.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% bootstrap interval (percentile, resampled by item or by cluster)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Comparison:
    """A method against its baseline on the same items."""

    gain: Interval
    fixed: int
    broken: int
    mcnemar_p: float


def bootstrap(
    values: Sequence[float],
    seed: int = 0,
    resamples: int = 10_000,
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """The mean of at least one value, and its interval.

    Args:
        clusters: what each value belongs to; None: each is its own.
    """
    data = np.asarray(values, dtype=float)
    number: dict[Hashable, int] = {}
    labels = range(len(data)) if clusters is None else clusters
    member = [number.setdefault(label, len(number)) for _, label in zip(data, labels, strict=True)]
    sums, sizes = np.bincount(member, data), np.bincount(member)
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(resamples, len(sums)))
    low, high = np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [2.5, 97.5])
    return Interval(float(data.mean()), float(low), float(high))


def compare(
    baseline: Sequence[bool], method: Sequence[bool], clusters: Sequence[Hashable] | None = None
) -> Comparison:
    """Paired gain with interval, items fixed and broken, and McNemar's exact p (two-sided)."""
    pairs = list(zip(baseline, method, strict=True))
    fixed = sum(after and not before for before, after in pairs)
    broken = sum(before and not after for before, after in pairs)
    changed = fixed + broken
    p = float(binomtest(fixed, changed, 0.5).pvalue) if changed else 1.0
    gain = bootstrap([float(after) - float(before) for before, after in pairs], clusters=clusters)
    return Comparison(gain, fixed, broken, p)
