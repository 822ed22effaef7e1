"""Row `step`: which cells are measured, and with how many steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import Progress

from quickstudy.config import Config
from quickstudy.model import LanguageModel
from quickstudy.speed import training, workload
from quickstudy.speed.measure import Recorder
from quickstudy.speed.records import read
from quickstudy.speed.setting import Setting


def test_a_bank_is_stepped_at_the_ends_only(tiny: LanguageModel, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    recorder = Recorder(file, "run", torch.device("cpu"), 1, Progress(disable=True))
    short = workload.scenarios()["short"]
    practice = short.practice[:1] * workload.PRACTICE
    called = practice[0].tool_calls[0].name
    request = short.requests[0]
    request = replace(request, tools=tuple(t for t in request.tools if t.name == called))
    small = replace(short, requests=(request,), practice=practice)
    lengths = [replace(small, name=name) for name in workload.LENGTHS]
    config = Config.load(None, ["learning.epochs=3"])  # has no say
    training.one_step(Setting(tiny, "tiny", config, recorder, lengths, quick=True))
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
