"""The highest resident memory of a block, not of the whole life."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from quickstudy.footprint import footprint

pytestmark = pytest.mark.skipif(
    not (Path("/proc/self/clear_refs").exists() and os.access("/proc/self/clear_refs", os.W_OK)),
    reason="this system does not tell the peak of a block",
)


def use(megabytes: int) -> None:
    np.ones(megabytes * 131_072).sum()  # 8 bytes each


def test_memory_given_back_before_the_block_is_not_counted() -> None:
    use(200)
    with footprint() as small:
        use(1)
    with footprint() as large:
        use(200)
    assert small.peak_mb is not None
    assert large.peak_mb is not None
    assert large.peak_mb > small.peak_mb + 150


def test_a_block_counts_what_blocks_in_it_use() -> None:
    with footprint() as outer:
        use(200)
        with footprint() as inner:
            use(1)
    with footprint() as other:
        with footprint():
            use(200)
        use(1)
    assert inner.peak_mb is not None
    for measured in (outer, other):
        assert measured.peak_mb is not None
        assert measured.peak_mb > inner.peak_mb + 150


def test_what_was_measured_elsewhere_is_counted_in() -> None:
    with footprint() as measured:
        measured.include(1e9)
        measured.include(None)
    assert measured.peak_mb == 1e9
