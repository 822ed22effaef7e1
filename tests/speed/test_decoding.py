"""Row `decode`: what each variant may use, and that `generate` writes as much as ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from quickstudy.config import Config
from quickstudy.decoding import Ask, Decoder
from quickstudy.model import LanguageModel
from quickstudy.speed import decoding, workload
from quickstudy.speed.flops import weight_bytes
from quickstudy.speed.measure import Recorder
from quickstudy.speed.naive import Naive
from quickstudy.speed.records import read
from quickstudy.speed.setting import Setting


def test_variants_take_one_lever_away_after_another(
    tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, bool]] = []
    told: list[tuple[int, int]] = []
    decode, generate = Decoder.decode, Naive.generate

    def ours(self: Decoder, prefix: Any, asks: list[Ask], **more: Any) -> Any:
        asked.append((asks[0].grammar is not None, bool(asks[0].likely)))
        return decode(self, prefix, asks, **more)

    def theirs(self: Naive, network: Any, ids: Any, **more: Any) -> list[int]:
        told.append((more["least"], more["most"]))
        assert more["cache"] is not None
        return generate(self, network, ids, **more)

    monkeypatch.setattr(Decoder, "decode", ours)
    monkeypatch.setattr(Naive, "generate", theirs)
    short = workload.scenarios()["short"]
    requests = tuple(replace(r, tools=r.tools[:1]) for r in short.requests[:2])
    file = tmp_path / "records.jsonl"
    recorder = Recorder(file, "run", torch.device("cpu"), 2, Progress(disable=True))
    config = Config.load(None, ["decoding.max_new_tokens=12"])
    lengths = [replace(short, requests=requests)]
    decoding.decode(Setting(tiny, "tiny", config, recorder, lengths, quick=False))
    levers = [(True, True), (False, True), (False, False)]
    assert asked == levers * 5  # a round that does not count, and two for each request
    records = read(file)
    assert {(r["request"], r["repeat"]) for r in records} == {
        (request.id, repeat) for request in requests for repeat in (0, 1)
    }
    ours_tokens = [r["tokens"] for r in records if r["variant"] == "ours"]
    assert [r["tokens"] for r in records if r["variant"] == "generate"] == ours_tokens
    assert told[1:] == [(count, count) for count in ours_tokens]
    for r in (r for r in records if r["variant"] == "generate"):
        assert r["passes"] == r["tokens"]
        assert r["bytes"] == r["passes"] * weight_bytes(tiny.network)
