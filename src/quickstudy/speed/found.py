"""Records looked up and put in pairs; medians with spread. Calls no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy.stats import quantile_test

from quickstudy.speed.records import Record
from quickstudy.speed.workload import LENGTHS

Details = dict[str, Any]
T = TypeVar("T", bound=tuple[Record, ...])

_FIVE = {"min": 0, "q1": 25, "median": 50, "q3": 75, "max": 100}


def spread(values: Sequence[float]) -> Details | None:
    """Median, quartiles and extremes of some values; None of none."""
    if not values:
        return None
    five = np.percentile(values, list(_FIVE.values()))
    return {**{k: short(value) for k, value in zip(_FIVE, five, strict=True)}, "n": len(values)}


def interval(values: Sequence[float]) -> Details:
    """The 95% interval of the median, from order statistics; null below six values.

    Five values lie on one side of the true median once in 16 times, so no two of them hold it
    with 95%.
    """
    found = quantile_test(values, q=0.0, p=0.5).confidence_interval(0.95)
    low, high = (None if np.isnan(end) else short(end) for end in (found.low, found.high))
    return {"low": low, "high": high}


def paired_ratio(pairs: Sequence[tuple[float, float]]) -> Details | None:
    """The median of each pair's first over its second, with its spread and 95% interval."""
    ratios = [above / below for above, below in pairs]
    told = spread(ratios)
    return told and {**told, **interval(ratios)}


def by_round(rows: Sequence[T]) -> list[list[T]]:
    """Tuples of records, those of one round together; only rounds that asked every request."""
    rounds: dict[int, list[T]] = {}
    for row in rows:
        rounds.setdefault(row[0]["repeat"], []).append(row)
    most = max(map(len, rounds.values()), default=0)
    return [members for members in rounds.values() if len(members) == most]


def summed(pairs: Sequence[tuple[Record, Record]], key: str) -> list[tuple[float, float]]:
    """Each round's sums over its requests."""
    return [
        (sum(a[key] for a, _ in members), sum(b[key] for _, b in members))
        for members in by_round(pairs)
    ]


def short(value: Any) -> float:
    """With four digits; more mean nothing."""
    return float(f"{float(value):.4g}")


def by_prefix(figure: Callable[[str], Details | None]) -> Details:
    """The figure at each prefix length at which there is one."""
    made = {prefix: figure(prefix) for prefix in LENGTHS}
    return {prefix: value for prefix, value in made.items() if value}


FORCED = (("whole", "unsure"), ("pipeline", "ours"), ("pipeline", "ours-every-step"))


def practised(record: Record) -> bool:
    """Whether an unsure request did practise; other records need not."""
    forced = (record["row"], record["variant"]) in FORCED
    return bool(record["practised"]) if forced else True


class Found:
    """Records, looked up by row, variant and prefix."""

    def __init__(self, rows: Sequence[Record]) -> None:
        self.rows = rows

    def pick(self, row: str, variant: str | None = None, **told: Any) -> list[Record]:
        return [
            r
            for r in self.rows
            if r["row"] == row
            and variant in (None, r["variant"])
            and all(r.get(key) == value for key, value in told.items())
        ]

    def pairs(self, row: str, one: str, other: str, **told: Any) -> list[tuple[Record, Record]]:
        """Both variants' records of the same round and request.

        None where practice was wanted and failed.
        """
        return [
            (a, b)
            for a in self.pick(row, one, **told)
            for b in self.pick(row, other, **told)
            if a["repeat"] == b["repeat"] and _same_request(a, b) and practised(a) and practised(b)
        ]

    def ratios(self, row: str, one: str, other: str) -> Details:
        """Seconds of one variant over the other's, at each prefix length.

        A round's ratio is of its sums over the requests; `requests` tells how they differ.
        """

        def ratio(prefix: str) -> Details | None:
            pairs = self.pairs(row, one, other, prefix=prefix)
            told = paired_ratio(summed(pairs, "seconds"))
            single: dict[str, list[float]] = {}
            for a, b in pairs:
                if "request" in a:
                    single.setdefault(a["request"], []).append(a["seconds"] / b["seconds"])
            if told and len(single) > 1:
                told["requests"] = {name: short(np.median(r)) for name, r in single.items()}
            return told

        return by_prefix(ratio)

    def seconds(self, row: str, variant: str, prefix: str) -> list[float]:
        """Each round's mean over its requests."""
        found = [(r,) for r in self.pick(row, variant, prefix=prefix) if practised(r)]
        return [float(np.mean([r["seconds"] for (r,) in members])) for members in by_round(found)]

    def fell_back(self) -> Details:
        """How many forced practices came to nothing, and why; they are in no ratio."""
        forced = [r for row, variant in FORCED for r in self.pick(row, variant)]
        failed = [r for r in forced if not r["practised"]]
        return {"n": len(forced), "failed": len(failed), "why": [r["fallback"] for r in failed]}


def _same_request(one: Record, other: Record) -> bool:
    """Whether both were asked the same; a variant that tells no request has but one."""
    return one.get("request", other.get("request")) == other.get("request", one.get("request"))
