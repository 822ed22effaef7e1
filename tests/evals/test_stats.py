"""Intervals and paired tests against values computed by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.evals.stats import Interval, bootstrap, compare

CHEAP = settings(deadline=None, max_examples=25)


class TestBootstrap:
    @CHEAP
    @given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.integers(0, 9))
    def test_holds_the_mean(self, values: list[float], seed: int) -> None:
        interval = bootstrap(values, seed, resamples=1000)
        assert interval.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
        assert interval.low - 1e-9 <= interval.mean <= interval.high + 1e-9
        assert min(values) - 1e-9 <= interval.low
        assert interval.high <= max(values) + 1e-9

    def test_same_seed_same_interval(self) -> None:
        values = [0.0, 1.0, 0.0, 0.3, 0.9, 1.0, 0.2]
        assert bootstrap(values) == bootstrap(values)
        assert bootstrap(values, seed=1) != bootstrap(values, seed=2)

    def test_without_spread_there_is_no_width(self) -> None:
        assert bootstrap([0.5] * 9) == Interval(0.5, 0.5, 0.5)

    def test_is_the_known_interval_of_a_proportion(self) -> None:
        """50 of 100: 0.5 ± 1.96 · 0.05."""
        interval = bootstrap([1.0, 0.0] * 50)
        assert interval.low == pytest.approx(0.402, abs=0.02)
        assert interval.high == pytest.approx(0.598, abs=0.02)

    def test_more_items_a_narrower_interval(self) -> None:
        few, many = bootstrap([1.0, 0.0] * 5), bootstrap([1.0, 0.0] * 500)
        assert many.high - many.low < (few.high - few.low) / 5

    def test_reads_as_mean_and_limits(self) -> None:
        assert str(Interval(0.5, 0.25, 2 / 3)) == "0.500 [0.250, 0.667]"


class TestCompare:
    @pytest.mark.parametrize(
        ("fixed", "broken", "p"),
        [
            (0, 0, 1.0),
            (1, 0, 1.0),  # 2 · (1/2)^1
            (5, 0, 2 / 32),
            (0, 5, 2 / 32),
            (3, 3, 1.0),
            (6, 1, 2 * (1 + 7) / 128),
            (10, 2, 2 * (1 + 12 + 66) / 4096),
        ],
    )
    def test_mcnemars_exact_p(self, fixed: int, broken: int, p: float) -> None:
        same = [True, False, True]
        before = [False] * fixed + [True] * broken + same
        after = [True] * fixed + [False] * broken + same
        compared = compare(before, after)
        assert (compared.fixed, compared.broken) == (fixed, broken)
        assert compared.mcnemar_p == pytest.approx(p)
        assert compared.gain.mean == pytest.approx((fixed - broken) / len(before))

    def test_pairs_are_by_item(self) -> None:
        compared = compare([True, False, False, True], [False, True, False, True])
        assert (compared.fixed, compared.broken, compared.gain.mean) == (1, 1, 0.0)

    def test_unequal_lengths_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            compare([True], [True, False])


class TestClusters:
    def test_items_of_their_own_are_clusters_of_one(self) -> None:
        values = [0.0, 1.0, 0.0, 0.3, 0.9]
        assert bootstrap(values, clusters=list("abcde")) == bootstrap(values)

    def test_what_says_the_same_thing_twice_says_no_more(self) -> None:
        """Ten copies of each item are no ten items."""
        once, copied = [1.0, 0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0] * 10
        clusters = list("abcde") * 10
        apart, together = bootstrap(copied), bootstrap(copied, clusters=clusters)
        assert together == bootstrap(once)
        assert apart.high - apart.low < (together.high - together.low) / 2

    def test_one_cluster_has_no_spread(self) -> None:
        assert bootstrap([1.0, 0.0], clusters=["a", "a"]) == Interval(0.5, 0.5, 0.5)

    def test_the_mean_is_of_items_not_of_clusters(self) -> None:
        interval = bootstrap([1.0, 1.0, 1.0, 0.0], clusters=["a", "a", "a", "b"])
        assert interval == Interval(0.75, 0.0, 1.0)

    def test_a_gain_is_drawn_by_cluster(self) -> None:
        before, after = [False] * 6, [True, True, True, False, False, False]
        assert compare(before, after, [1, 1, 1, 2, 2, 2]).gain == Interval(0.5, 0.0, 1.0)
        assert compare(before, after).gain.low > 0

    def test_every_value_has_its_cluster(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            bootstrap([1.0, 0.0], clusters=["a"])
