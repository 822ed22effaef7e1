"""Row `together`: both ways are given the same, and begin alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from quickstudy.config import Config
from quickstudy.model import LanguageModel
from quickstudy.speed import cycle, workload
from quickstudy.speed.measure import Recorder
from quickstudy.speed.records import read
from quickstudy.speed.setting import Setting


def test_each_way_reads_a_tool_list_once_a_repetition(
    tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tuple(replace(r, tools=r.tools[:1]) for r in workload.different()[:3])
    monkeypatch.setattr(cycle, "different", lambda: asked)
    short = workload.scenarios()["short"]
    same = tuple(replace(r, tools=r.tools[:1]) for r in short.requests)
    kept = {r.id: len(tiny.prefill(r).prefix.ids) for r in (*asked, same[0])}
    met: list[int] = []  # widths of passes over a prefix
    tiny.network.get_decoder().layers[0].register_forward_pre_hook(
        lambda _, inputs: met.append(w) if (w := inputs[0].shape[1]) in kept.values() else None
    )
    file = tmp_path / "records.jsonl"
    recorder = Recorder(file, "run", torch.device("cpu"), 2, Progress(disable=True))
    passes: list[list[int]] = []  # of each record
    write = recorder.write

    def note(*row: str, **told: Any) -> None:
        passes.append(met.copy())
        met.clear()
        write(*row, **told)

    monkeypatch.setattr(recorder, "write", note)
    config = Config.load(None, ["decoding.max_new_tokens=4"])
    cycle.together(Setting(tiny, "tiny", config, recorder, [replace(short, requests=same)], True))
    records = read(file)
    again = [
        (r["lists"], r["variant"], widths)
        for r, widths in zip(records, passes, strict=True)
        if r["repeat"]  # the first was preceded by the round that does not count
    ]
    once, each = [kept[same[0].id]], [kept[r.id] for r in asked]
    assert again == [
        ("same", "alone", once),
        ("same", "together-1", once),
        ("same", "together-2", once),
        ("different", "alone", each),
        ("different", "together-3", each),
    ]
    for told in (r for r in records if r["variant"] != "alone"):
        assert set(told["stages"]) >= {"prefill", "draft", "awareness", "synthesis"}
        assert sum(told["stages"].values()) <= told["seconds"]
