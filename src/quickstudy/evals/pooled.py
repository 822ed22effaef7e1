"""Means over benchmarks, each counting the same, with intervals; from the records alone.

A mean of accuracies over benchmarks b, 1/B sum_b a_b; its interval resamples the distinct queries
of each benchmark by itself (a stratified cluster bootstrap). A gain is paired by item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from quickstudy.evals.records import Delta, Record
from quickstudy.evals.results import Run, averaged

RESAMPLES = 2_000
Values = Mapping[str, float]  # item id -> 1 right, 0 wrong; or a difference of these


@dataclass(frozen=True)
class Mean:
    """A method of a run over all its benchmarks but `abstain`."""

    run: Run
    method: str
    n: int
    accuracy: float
    ci95: tuple[float, float]
    vs_base: Delta | None
    vs_best_free: Delta | None


def means(run: Run, methods: Sequence[str]) -> list[Mean]:
    """For methods that were run on every benchmark of the run; none if that is only one."""
    names = averaged(run.summary.benchmarks)
    graded = {
        (name, method): {r.id: r for r in run.of(name, method) if r.verdict.correct is not None}
        for name in names
        for method in run.summary.benchmarks[name]
    }
    found = []
    for method in methods:
        mine = [graded.get((name, method), {}) for name in names]
        if len(names) < 2 or not all(mine):
            continue
        base = [graded.get((name, "base"), {}) for name in names]
        free = [graded.get((name, run.summary.best_free.get(name) or ""), {}) for name in names]
        mean, ci95 = _bootstrap([_right(items) for items in mine], mine)
        n = sum(map(len, mine))
        found.append(Mean(run, method, n, mean, ci95, _delta(base, mine), _delta(free, mine)))
    return found


def _right(items: Mapping[str, Record]) -> Values:
    return {id: float(bool(record.verdict.correct)) for id, record in items.items()}


def _delta(
    before: Sequence[Mapping[str, Record]], after: Sequence[Mapping[str, Record]]
) -> Delta | None:
    old, new = [_right(items) for items in before], [_right(items) for items in after]
    gains = [{id: b[id] - a[id] for id in b if id in a} for a, b in zip(old, new, strict=True)]
    if not all(gains):
        return None
    mean, ci95 = _bootstrap(gains, after)
    fixed = sum(gain > 0 for items in gains for gain in items.values())
    broken = sum(gain < 0 for items in gains for gain in items.values())
    p = float(binomtest(fixed, fixed + broken, 0.5).pvalue) if fixed + broken else 1.0
    return Delta(mean=mean, ci95=ci95, mcnemar_p=p, fixed=fixed, broken=broken)


def _bootstrap(
    strata: Sequence[Values], records: Sequence[Mapping[str, Record]]
) -> tuple[float, tuple[float, float]]:
    rng = np.random.default_rng(0)
    means, drawn = [], np.zeros(RESAMPLES)
    for values, items in zip(strata, records, strict=True):
        queries = {items[id].query for id in values}
        place = {query: i for i, query in enumerate(sorted(queries))}
        sums, sizes = np.zeros(len(place)), np.zeros(len(place))
        for id, value in values.items():
            sums[place[items[id].query]] += value
            sizes[place[items[id].query]] += 1
        rows = rng.integers(0, len(place), size=(RESAMPLES, len(place)))
        drawn += sums[rows].sum(axis=1) / sizes[rows].sum(axis=1)
        means.append(sums.sum() / sizes.sum())
    low, high = np.percentile(drawn / len(strata), [2.5, 97.5])
    return float(np.mean(means)), (float(low), float(high))
