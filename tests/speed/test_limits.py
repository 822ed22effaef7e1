"""Peaks are the best of several tries, and their rates count every operation and byte."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from quickstudy.jsonlines import read
from quickstudy.speed import limits
from quickstudy.speed.measure import Recorder


def test_the_best_try_counts_and_the_first_does_not() -> None:
    waits = iter([0.0, 0.2, 0.2, 0.01, 0.2, 0.2])
    assert 0.01 <= limits.best(torch.device("cpu"), lambda: time.sleep(next(waits))) < 0.15
    assert not list(waits)


def test_rates_are_of_all_operations_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "best", lambda _, work: work() is None or 0.5)
    monkeypatch.setattr(limits, "SMALL_SHAPES", ((2, 3, 5),))
    file = tmp_path / "records.jsonl"
    recorder = Recorder(file, "run", torch.device("cpu"), 1, Progress(disable=True))
    limits.measure(recorder, quick=True)
    products = [r for r in read(file) if r["variant"].startswith("product")]
    assert {r["variant"] for r in products} == {"product bfloat16", "product float32"}
    assert {r["rate"] for r in products if r["seconds"] == 0.5} <= {120.0}
    reads = [r for r in read(file) if r["variant"].startswith("read")]
    assert {r["bytes"] for r in reads} == {32 << 20}
