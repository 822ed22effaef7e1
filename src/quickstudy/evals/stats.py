"""Intervals and paired tests. No accuracy without n and an interval; every gain is paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% bootstrap interval (percentile, resampled by item)."""

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


def bootstrap(values: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Interval:
    """The mean of at least one value, and its interval."""
    data = np.asarray(values, dtype=float)
    rows = np.random.default_rng(seed).integers(0, len(data), size=(resamples, len(data)))
    low, high = np.percentile(data[rows].mean(axis=1), [2.5, 97.5])
    return Interval(float(data.mean()), float(low), float(high))


def compare(baseline: Sequence[bool], method: Sequence[bool]) -> Comparison:
    """Paired gain with interval, items fixed and broken, and McNemar's exact p (two-sided)."""
    pairs = list(zip(baseline, method, strict=True))
    fixed = sum(after and not before for before, after in pairs)
    broken = sum(before and not after for before, after in pairs)
    changed = fixed + broken
    p = float(binomtest(fixed, changed, 0.5).pvalue) if changed else 1.0
    gain = bootstrap([float(after) - float(before) for before, after in pairs])
    return Comparison(gain, fixed, broken, p)
