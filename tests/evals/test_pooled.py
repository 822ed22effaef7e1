"""Means over benchmarks: each counts the same, whatever its size."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import recorded

from quickstudy.evals import results
from quickstudy.evals.figures import LINE, counts, linear, logarithmic, spread
from quickstudy.evals.pooled import means
from quickstudy.types import Reply


def test_each_benchmark_counts_the_same_and_abstain_does_not(tmp_path: Path) -> None:
    """base: 0 of 2 and 4 of 4 right; tt-si mends both of the first and spoils one of the other."""
    rows = {
        "sealtool": recorded.tasks(2),
        "apibank": recorded.tasks(4, seed=1),
        "abstain": recorded.tasks(3, abstain=True),
    }
    made = []
    for name, each in rows.items():
        for place, task in enumerate(each):
            right, wrong = Reply("", task.gold), Reply("?")
            base = wrong if name == "sealtool" else right
            after = wrong if name == "apibank" and place == 0 else right
            made += [
                recorded.record(name, task, place, method, reply)
                for method, reply in (("base", base), ("tt-si", after))
            ]
    folder = recorded.write_run(tmp_path / "run", made, recorded.summary(made, rows))
    (run,) = results.read([folder])
    base_mean, mean, *others = means(run, ["base", "tt-si", "tt-d"])
    assert not others
    assert (base_mean.accuracy, base_mean.n) == (0.5, 6)
    assert mean.accuracy == pytest.approx((1 + 0.75) / 2)
    assert mean.vs_base is not None
    assert mean.vs_base.mean == pytest.approx((1 - 0.25) / 2)
    assert (mean.vs_base.fixed, mean.vs_base.broken, mean.vs_base.mcnemar_p) == (2, 1, 1.0)
    low, high = mean.vs_base.ci95
    assert low < mean.vs_base.mean < high


def test_scales_hold_their_values() -> None:
    for made, values in ((linear, [-0.31, 0.02]), (logarithmic, [0.4, 38.0]), (counts, [0, 1142])):
        scale = made(values)
        assert all(0 <= scale.at(value) <= 1 for value in values)
        assert scale.at(values[0]) < scale.at(values[1])
        assert 3 <= len(scale.ticks) <= 8
        assert scale.at(float("nan")) == 0


def test_labels_are_a_line_apart_and_stay_inside() -> None:
    heights = spread([5, 6, 7, 200, 200], 10, 200)
    assert all(b - a >= LINE for a, b in pairwise(heights))
    assert heights[0] == 10
    assert heights[-1] == 200
