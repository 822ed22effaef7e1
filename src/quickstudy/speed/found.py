"""Records looked up and put in pairs; medians with spread. Calls no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from quickstudy.speed.records import Record
from quickstudy.speed.workload import LENGTHS

Details = dict[str, Any]


def spread(values: Sequence[float]) -> Details | None:
    """Median and quartiles of some values; None of none."""
    if not values:
        return None
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": short(median), "q1": short(low), "q3": short(high), "n": len(values)}


def paired_ratio(pairs: Sequence[tuple[float, float]], resamples: int = 4000) -> Details | None:
    """The median of each pair's first over its second, with quartiles and 95% interval."""
    ratios = np.asarray([above / below for above, below in pairs])
    told = spread(ratios.tolist())
    if told is None:
        return None
    drawn = np.random.default_rng(0).integers(0, len(ratios), size=(resamples, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    return {**told, "low": short(low), "high": short(high)}


def short(value: Any) -> float:
    """With four digits; more mean nothing."""
    return float(f"{float(value):.4g}")


def by_prefix(figure: Callable[[str], Details | None]) -> Details:
    """The figure at each prefix length at which there is one."""
    made = {prefix: figure(prefix) for prefix in LENGTHS}
    return {prefix: value for prefix, value in made.items() if value}


def practised(record: Record) -> bool:
    """Whether an unsure request did practise; other records need not."""
    forced = (record["row"], record["variant"]) in (("whole", "unsure"), ("pipeline", "ours"))
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
        """Both variants' records of the same round; none where practice was wanted and failed."""
        others = {r["repeat"]: r for r in self.pick(row, other, **told)}
        met = [(r, others.get(r["repeat"])) for r in self.pick(row, one, **told)]
        return [(a, b) for a, b in met if b is not None and practised(a) and practised(b)]

    def ratios(self, row: str, one: str, other: str) -> Details:
        """Seconds of one variant over the other's, at each prefix length."""

        def ratio(prefix: str) -> Details | None:
            pairs = self.pairs(row, one, other, prefix=prefix)
            return paired_ratio([(a["seconds"], b["seconds"]) for a, b in pairs])

        return by_prefix(ratio)

    def seconds(self, row: str, variant: str, prefix: str) -> list[float]:
        found = self.pick(row, variant, prefix=prefix)
        return [r["seconds"] for r in found if practised(r)]

    def fell_back(self) -> Details:
        """How many forced practices came to nothing, and why; they are in no ratio."""
        forced = self.pick("whole", "unsure") + self.pick("pipeline", "ours")
        failed = [r for r in forced if not r["practised"]]
        return {"n": len(forced), "failed": len(failed), "why": [r["fallback"] for r in failed]}
