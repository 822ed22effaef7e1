"""Relative Softmax Scoring against values computed by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.awareness.rss import certainty, relative_softmax

CHEAP = settings(deadline=None, max_examples=100)
INF = math.inf
LOGS = st.floats(-1e6, 0) | st.sampled_from([-INF, math.nan, -1e308, 0.0, -745.2])


@pytest.mark.parametrize(
    ("log_probs", "u"),
    [
        ([], 1.0),
        ([-3.0], 1.0),
        ([-INF], 1.0),
        ([math.log(0.5), math.log(0.5)], 0.0),
        ([math.log(0.75), math.log(0.25)], 0.5),
        # only the ratios count: 6 : 3 : 1 of ten parts
        ([math.log(0.06), math.log(0.03), math.log(0.01)], 0.3),
        ([math.log(0.01), math.log(0.06), math.log(0.03)], 0.3),
        ([-1.0, -2.0], (1 - math.exp(-1)) / (1 + math.exp(-1))),
        ([-2.0, -2.0, -2.0], 0.0),
        ([-2.0, -2.0, -INF], 0.0),
        ([-2.0, -INF], 1.0),
        ([-2.0, math.nan], 1.0),
        ([-INF, -INF], 0.0),
        ([math.nan, math.nan], 0.0),
        # no underflow: exp(-5000) is 0 as a float
        ([-5000.0, -5000.0 - math.log(3)], 0.5),
        ([-1e308, -1e300], 1.0),
    ],
)
def test_certainty(log_probs: list[float], u: float) -> None:
    assert certainty(log_probs) == pytest.approx(u, abs=1e-12)


@pytest.mark.parametrize(
    ("log_probs", "shares"),
    [
        ([], []),
        ([-7.0], [1.0]),
        ([math.log(0.06), math.log(0.03), math.log(0.01)], [0.6, 0.3, 0.1]),
        ([-INF, -4.0], [0.0, 1.0]),
        ([math.nan, -4.0], [0.0, 1.0]),
        ([-INF, -INF, math.nan], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_relative_softmax(log_probs: list[float], shares: list[float]) -> None:
    assert relative_softmax(log_probs) == pytest.approx(shares)


@CHEAP
@given(st.lists(LOGS, max_size=8))
def test_u_is_between_nothing_and_one(log_probs: list[float]) -> None:
    assert 0 <= certainty(log_probs) <= 1


@CHEAP
@given(st.lists(LOGS, min_size=1, max_size=8))
def test_shares_sum_to_one(log_probs: list[float]) -> None:
    shares = relative_softmax(log_probs)
    assert len(shares) == len(log_probs)
    assert all(0 <= share <= 1 for share in shares)
    assert sum(shares) == pytest.approx(1)


@CHEAP
@given(st.lists(LOGS, max_size=6).flatmap(lambda x: st.tuples(st.just(x), st.permutations(x))))
def test_order_does_not_matter(both: tuple[list[float], list[float]]) -> None:
    assert certainty(both[0]) == pytest.approx(certainty(both[1]), abs=1e-12)


@CHEAP
@given(st.lists(st.floats(-50, 0), min_size=2, max_size=6), st.floats(-100, 0))
def test_a_common_factor_does_not_matter(log_probs: list[float], shift: float) -> None:
    shifted = [score + shift for score in log_probs]
    assert certainty(shifted) == pytest.approx(certainty(log_probs), abs=1e-9)


@CHEAP
@given(st.lists(st.floats(-50, 0), min_size=2, max_size=6), st.floats(-50, 0))
def test_a_further_rival_never_makes_surer(log_probs: list[float], rival: float) -> None:
    rival = min(rival, max(log_probs))
    assert certainty([*log_probs, rival]) <= certainty(log_probs) + 1e-12
