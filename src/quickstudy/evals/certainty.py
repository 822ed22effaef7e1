"""How certain the model was of the drafts that were right, and of those that were wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from quickstudy.evals.figures import Scale, linear
from quickstudy.evals.records import Record
from quickstudy.evals.results import Entry
from quickstudy.evals.stats import Interval

BINS = 20
RESAMPLES = 2_000


@dataclass(frozen=True)
class Gate:
    """The certainties one gate gave on one benchmark; methods that share it are told together.

    `right` and `wrong`: drafts in each bin between the ends of `scale`. `auroc`: how often a right
    draft is more certain than a wrong one; None where all drafts are right, or all wrong.
    """

    labels: tuple[str, ...]
    scale: Scale
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    thresholds: tuple[float, ...]
    auroc: Interval | None

    @property
    def highest(self) -> int:
        return max((*self.right, *self.wrong, 1))


def gates(entries: Sequence[Entry]) -> list[Gate]:
    """Of the methods of one benchmark. A draft is right if base is and said the same."""
    told: dict[tuple[tuple[float, bool], ...], list[Entry]] = {}
    for entry in entries:
        base = {record.id: record for record in entry.run.of(entry.benchmark, "base")}
        pairs = [
            (record.certainty, right)
            for record in entry.records
            if record.certainty is not None
            and (right := _draft_right(record, base.get(record.id))) is not None
        ]
        if pairs:
            told.setdefault(tuple(pairs), []).append(entry)
    return [_gate(pairs, sharing) for pairs, sharing in told.items()]


def _draft_right(record: Record, base: Record | None) -> bool | None:
    """None: nobody graded the draft."""
    if record.draft is None:
        return None
    draft = record.draft.tool_calls
    for graded in (base, record):
        if graded is not None and graded.answer.tool_calls == draft:
            return graded.verdict.correct
    return None


def _gate(pairs: Sequence[tuple[float, bool]], sharing: Sequence[Entry]) -> Gate:
    certainty = np.array([value for value, _ in pairs])
    right = np.array([value for _, value in pairs])
    scale = linear([0.0, 1.0, *certainty])
    edges = np.linspace(scale.low, scale.high, BINS + 1)
    found = {r.threshold for entry in sharing for r in entry.records if r.threshold is not None}
    return Gate(
        labels=tuple(entry.label for entry in sharing),
        scale=scale,
        right=tuple(map(int, np.histogram(certainty[right], edges)[0])),
        wrong=tuple(map(int, np.histogram(certainty[~right], edges)[0])),
        thresholds=tuple(sorted(found)),
        auroc=auroc(certainty, right),
    )


def auroc(certainty: np.ndarray, right: np.ndarray) -> Interval | None:
    """The area under the ROC curve by ranks (Mann-Whitney), and its 95% bootstrap interval."""
    drawn = np.random.default_rng(0).integers(0, len(right), size=(RESAMPLES, len(right)))
    drawn = np.vstack([np.arange(len(right)), drawn])  # (1 + RESAMPLES, items)
    hits = right[drawn]
    many, few = hits.sum(axis=1), (~hits).sum(axis=1)
    mixed = (many > 0) & (few > 0)
    if not mixed[0]:
        return None
    ranks = rankdata(certainty[drawn[mixed]], axis=1)
    many, few = many[mixed], few[mixed]
    area = ((ranks * hits[mixed]).sum(axis=1) - many * (many + 1) / 2) / (many * few)
    low, high = np.percentile(area[1:], [2.5, 97.5])
    return Interval(float(area[0]), float(low), float(high))
