"""A thread that hands over leaves no helpers behind."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from quickstudy.openmp import release_team


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
def test_the_team_is_gone_and_comes_back() -> None:
    before = torch.get_num_threads()

    def counts() -> tuple[int, int, int, float]:
        torch.set_num_threads(3)
        alone = threads()
        ones = torch.ones(1_000_000)
        helped = threads()
        release_team()
        released = threads()
        total = float((ones + 1).sum())  # with a new team
        return helped - alone, released - alone, threads() - alone, total

    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(counts).result() == (2, 0, 2, 2_000_000.0)
    finally:
        torch.set_num_threads(before)


def test_where_nothing_was_computed_nothing_happens() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(release_team).result()
