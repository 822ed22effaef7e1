"""Variants take turns, every repetition is written down, and slow work ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from quickstudy.jsonlines import read
from quickstudy.speed import measure
from quickstudy.speed.measure import Recorder


def recorder(file: Path, repeats: int) -> Recorder:
    return Recorder(file, "run", torch.device("cpu"), repeats, Progress(disable=True))


def test_variants_take_turns_after_one_round_that_does_not_count(tmp_path: Path) -> None:
    met: list[str] = []

    def work(name: str) -> Callable[[int], dict[str, object]]:
        def run(repeat: int) -> dict[str, object]:
            met.append(f"{name}{repeat}")
            return {"told": name}

        return run

    records = recorder(tmp_path / "r.jsonl", 2)
    for prefix in ("short", "long"):
        records.paired("row", {"prefix": prefix}, {"a": work("a"), "b": work("b")})
    round_trip = ["a0", "b0", "a1", "b1"]
    assert met == ["a0", "b0", *round_trip, *round_trip]
    written = read(tmp_path / "r.jsonl")
    assert [(r["prefix"], r["variant"], r["repeat"]) for r in written[:3]] == [
        ("short", "a", 0),
        ("short", "b", 0),
        ("short", "a", 1),
    ]
    assert len(written) == 8
    assert all(r["told"] == r["variant"] and r["run"] == "run" for r in written)
    assert all(r["seconds"] >= 0 for r in written)


def test_rounds_that_would_come_too_late_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LIMIT", 0.0)
    recorder(tmp_path / "r.jsonl", 5).paired("row", {}, {"a": lambda _: None}, warm=False)
    assert len(read(tmp_path / "r.jsonl")) == measure.ROUNDS


def test_a_row_is_marked_at_its_end(tmp_path: Path) -> None:
    recorder(tmp_path / "r.jsonl", 1).end("decode")
    assert read(tmp_path / "r.jsonl") == [{"run": "run", "row": "end", "variant": "decode"}]
