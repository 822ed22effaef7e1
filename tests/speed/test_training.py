"""Rows about practice: the same examples, steps and rank each way, and which cells are measured."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from quickstudy.config import Config
from quickstudy.learning.practice import Study
from quickstudy.model import LanguageModel
from quickstudy.speed import naive, training, workload
from quickstudy.speed.measure import Recorder
from quickstudy.speed.records import read
from quickstudy.speed.setting import Setting


def small() -> workload.Scenario:
    """One tool, and four times the same short example."""
    short = workload.scenarios()["short"]
    practice = short.practice[:1] * workload.PRACTICE
    called = practice[0].tool_calls[0].name
    request = short.requests[0]
    request = replace(request, tools=tuple(t for t in request.tools if t.name == called))
    return replace(short, requests=(request,), practice=practice)


def test_every_way_practises_the_same(
    tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[tuple[Any, ...]] = []
    practised, practise = training.practised, naive.Naive.practise

    def ours(model: Any, prefix: Any, told: Any, learning: Any, **more: Any) -> Any:
        met.append((learning.mode, learning.upper_layers, learning.stop_loss, learning.rank))
        assert more["informative_loss"] == 0
        assert [len(lesson.answer) for lesson in told] == answers
        return practised(model, prefix, told, learning, **more)

    def theirs(self: Any, train: Any, whole: Any, *, wide: bool) -> None:
        met.append((train.__name__, wide))
        assert [len(lesson.answer) for lesson in whole] == answers
        practise(self, train, whole, wide=wide)

    monkeypatch.setattr(training, "practised", ours)
    monkeypatch.setattr(naive.Naive, "practise", theirs)
    scenario = small()
    context = tiny.prefill(scenario.requests[0])
    answers = [len(x.answer) for x in workload.lessons(tiny, context, scenario.practice[:2])]
    file = tmp_path / "records.jsonl"
    recorder = Recorder(file, "run", torch.device("cpu"), 1, Progress(disable=True))
    config = Config.load(None, ["learning.epochs=3", "learning.stop_loss=100"])
    with warnings.catch_warnings(action="ignore"):
        training.against_naive(Setting(tiny, "tiny", config, recorder, [scenario], quick=True))
    rank = config.learning.rank
    assert met[len(met) // 2 :] == [
        ("with_trainer", True),
        ("by_hand", False),
        ("full", config.learning.upper_layers, 0, rank),
        ("activated", 1.0, 0, rank),
        ("activated", config.learning.upper_layers, 0, rank),
    ]
    records = {r["variant"]: r for r in read(file)}
    assert {r.get("steps", 3) for r in records.values()} == {3}
    assert {r["K"] for r in records.values()} == {2}
    every, upper = (records[f"ours-{name}"] for name in ("all-layers", "activated"))
    assert every["flops_once"] == 0 < upper["flops_once"]
    assert every["flops_step"] > upper["flops_step"]
    # more tokens, and what adapts the same layers
    assert records["ours-full"]["flops_step"] > upper["flops_step"]


def test_a_bank_is_stepped_at_the_ends_only(
    tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "records.jsonl"
    recorder = Recorder(file, "run", torch.device("cpu"), 1, Progress(disable=True))
    lengths = [replace(small(), name=name) for name in workload.LENGTHS]
    config = Config.load(None, ["learning.epochs=3"])  # has no say
    banks: list[int] = []
    together = training.practised_together

    def noted(model: LanguageModel, studies: Sequence[Study], *rest: Any, **more: Any) -> Any:
        banks.append(len(studies))
        return together(model, studies, *rest, **more)

    monkeypatch.setattr(training, "practised_together", noted)
    training.one_step(Setting(tiny, "tiny", config, recorder, lengths, quick=False))
    assert set(banks) == {8}
    steps = {(r["prefix"], r["K"], r["B"], r["variant"]): r["steps"] for r in read(file)}
    alone = {
        (prefix, count, 1, name): number
        for prefix in workload.LENGTHS
        for count in (2, 4)
        for name, number in (("few", 2), ("many", 12))
    }
    bank = {
        (prefix, 2, 8, name): number
        for prefix in ("short", "long")
        for name, number in (("few", 1), ("many", 5))
    }
    assert steps == alone | bank
