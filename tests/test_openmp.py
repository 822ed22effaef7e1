"""A thread that hands over leaves no helpers behind."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from quickstudy.openmp import release_team, wait_briefly


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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "30000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "passive"}, None),
    ],
)
def test_how_it_waits_is_the_users_choice(
    given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    wait_briefly()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_the_command_says_it_before_torch_is_loaded() -> None:
    code = "import sys, quickstudy.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
