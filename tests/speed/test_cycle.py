"""Rows about whole requests: each way is given the same, and takes its path."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from quickstudy.config import Config
from quickstudy.improve import Improver
from quickstudy.model import LanguageModel
from quickstudy.speed import cycle, workload
from quickstudy.speed.measure import Recorder
from quickstudy.speed.naive import Naive
from quickstudy.speed.records import read
from quickstudy.speed.setting import Setting, forced
from quickstudy.types import Answer, Request


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
        assert max(told["stages"].values()) <= told["seconds"]


def test_every_round_asks_the_same_requests_each_way(
    tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[tuple[Config | str, str | None]] = []
    answer, pipeline = Improver.answer_request, Naive.pipeline

    def ours(self: Improver, request: Request) -> Answer:
        met.append((self.config, request.id))
        return answer(self, request)

    def theirs(self: Naive, request: Request, whole: Any) -> dict[str, Any]:
        met.append(("naive", request.id))
        assert [len(lesson.answer) for lesson in whole] == answers
        return pipeline(self, request, whole)

    monkeypatch.setattr(Improver, "answer_request", ours)
    monkeypatch.setattr(Naive, "pipeline", theirs)
    short = workload.scenarios()["short"]
    practice = tuple(replace(x, tool_calls=x.tool_calls[:1]) for x in short.practice[:1]) * 2
    called = practice[0].tool_calls[0].name
    tools = tuple(t for t in short.requests[0].tools if t.name == called)
    asked = tuple(replace(r, tools=tools) for r in short.requests[:4])
    scenario = replace(short, requests=asked, practice=practice)
    context = tiny.prefill(asked[0])
    answers = [len(lesson.answer) for lesson in workload.lessons(tiny, context, practice)]
    file = tmp_path / "records.jsonl"
    recorder = Recorder(file, "run", torch.device("cpu"), 2, Progress(disable=True))
    config = Config.load(None, ["decoding.max_new_tokens=2", "learning.epochs=1"])
    setting = Setting(tiny, "tiny", config, recorder, [scenario], quick=False)

    cycle.whole(setting)
    paths = [forced(config, path) for path in ("plain", "sure", "unsure")]
    rounds = [asked[0], *(request for request in asked[:3] for _ in range(2))]  # the first warms
    assert met == [(path, request.id) for request in rounds for path in paths]
    told = [(r["variant"], r["request"], r["repeat"]) for r in read(file)]
    assert set(told) == {
        (path, request.id, repeat)
        for path in ("plain", "sure", "unsure")
        for request in asked[:3]
        for repeat in (0, 1)
    }

    met.clear()
    with warnings.catch_warnings(action="ignore"):
        cycle.pipeline(setting)
    ways = ["naive", forced(config, "unsure"), forced(config, "every-step")]
    assert met == [(way, asked[0].id) for way in ways] * 3
    variants = [r["variant"] for r in read(file) if r["row"] == "pipeline"]
    assert variants == ["naive", "ours", "ours-every-step"] * 2
