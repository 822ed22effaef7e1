"""The benchmark end to end on the tiny model: every row runs, and the results can be read."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from rich.console import Console

from quickstudy.errors import QuickstudyError
from quickstudy.speed import bench, memory
from quickstudy.speed.folder import check_comparable, held
from quickstudy.speed.records import read
from quickstudy.speed.setting import Setting

CONSOLE = Console(quiet=True)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    model = tiny_model()
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return str(folder)


def run(spec: str, out: Path, *only: str) -> dict[str, object]:
    return bench.run(spec, out, CONSOLE, repeats=1, threads=None, quick=True, only=only)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_every_row_in_this_process(tiny_folder: str, tmp_path: Path) -> None:
    rows = [row for row in bench.ROWS if row != "memory"]
    told = run(tiny_folder, tmp_path, *rows)
    records = read(tmp_path / "records.jsonl")
    assert {r["row"] for r in records} == {"machine", "end", *rows}
    assert {r["variant"] for r in records if r["row"] == "end"} == set(rows)
    assert json.loads((tmp_path / "summary.json").read_text()) == told
    assert "<svg" in (tmp_path / "speed.svg").read_text()
    for figure in ("practice_speedup_vs_naive", "decode_speedup_vs_generate", "sure_over_plain"):
        assert isinstance(told[figure], float)
    assert told["unsure_over_plain"] is None  # a random model's drafts cannot be practised
    steps = {r["variant"]: r["steps"] for r in records if r["row"] == "curves"}
    assert (steps["K=3"], steps["steps=1"], steps["steps=2"]) == (1, 1, 2)


def test_a_row_alone_keeps_the_other_rows(tiny_folder: str, tmp_path: Path) -> None:
    first = run(tiny_folder, tmp_path, "decode")
    second = run(tiny_folder, tmp_path, "limits")
    assert first["decode_bandwidth_fraction"] is None
    assert second["decode_speedup_vs_generate"] == first["decode_speedup_vs_generate"]
    assert second["decode_bandwidth_fraction"] is not None


def test_what_cannot_be_run_is_told(tiny_folder: str, tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match=r"unknown row prefill; choose from limits, practice"):
        run(tiny_folder, tmp_path, "prefill")
    line = {
        "run": "1",
        "row": "machine",
        "variant": "",
        "machine": {"model": "other", "dtype": "x"},
    }
    (tmp_path / "records.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(QuickstudyError, match=r"holds results with model = other, and now it is"):
        run(tiny_folder, tmp_path, "limits")
    (tmp_path / "file").touch()
    with pytest.raises(QuickstudyError, match=r"cannot write to .*file: it is no folder; use anot"):
        run(tiny_folder, tmp_path / "file", "limits")
    with pytest.raises(QuickstudyError, match=r"repeat it: --only limits --only decode$"):
        run(tiny_folder, tmp_path, "limits,decode")
    with pytest.raises(QuickstudyError, match=r"unknown row limits,prefill; choose from"):
        run(tiny_folder, tmp_path, "limits,prefill")


def test_a_wrong_model_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match="there is no model at"):
        run("no such model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_foreign_folder_is_refused_before_a_model_is_loaded(
    tiny_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.LanguageModel, "load", None)
    (tmp_path / "records.jsonl").write_text('{"task": 1}\n{"task": 2')
    with pytest.raises(QuickstudyError, match="is no benchmark's: line 1 has no run"):
        run(tiny_folder, tmp_path, "limits")
    assert (tmp_path / "records.jsonl").read_text() == '{"task": 1}\n{"task": 2'


def test_two_runs_do_not_write_one_folder(tiny_folder: str, tmp_path: Path) -> None:
    with (
        held(tmp_path),
        pytest.raises(QuickstudyError, match=r"another benchmark writes to .*; wait for its end"),
    ):
        run(tiny_folder, tmp_path, "limits")
    with held(tmp_path):  # it is free again
        pass


def test_what_ctrl_c_leaves_is_kept_and_told(
    tiny_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limits(setting: Setting) -> None:
        assert setting.model.prefixes.tokens == 0  # nothing is kept from request to request
        setting.recorder.write("limits", "read", rate=2.0)

    def stopped(setting: Setting) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "ROWS", {**bench.ROWS, "limits": limits, "decode": stopped})
    first = run(tiny_folder, tmp_path, "limits")
    console = Console(record=True, file=io.StringIO(), width=200)
    with pytest.raises(KeyboardInterrupt):
        bench.run(
            tiny_folder,
            tmp_path,
            console,
            repeats=1,
            threads=None,
            quick=True,
            only=("limits", "decode", "whole"),
        )
    told = console.export_text()
    assert "to the end: limits." in told
    assert "--only decode --only whole" in told
    runs = {r["run"] for r in read(tmp_path / "records.jsonl")}
    assert len(runs) == 2  # though they began in the same second
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["runs"].keys() < runs
    assert summary["machine"] == first["machine"]


def test_a_model_that_reads_too_little_is_told_at_once(tiny_folder: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "short-sighted")
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 512
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuickstudyError, match=r"reads 512 tokens, .* of 64; choose a --model with"):
        run(str(folder), tmp_path / "out", "decode")
    assert not read(tmp_path / "out" / "records.jsonl")


def test_memory_process_tells_its_peaks(
    tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = bench.Config.load(None, [*bench.QUICK]).model_dump_json()
    memory._main(tiny_folder, "short", settings)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["peak"] > 10_000_000
    assert told["peak"] > 0.9 * told["loaded"]  # the system counts pages in batches
    assert told["practised"] in (0, 1, 2)


def test_memory_is_measured_with_and_without_copies() -> None:
    config = bench.Config.load(None, ["model.decoding_weights=auto", "learning.rank=8"])
    made = memory.variants(config, torch.device("cpu"))
    told = {n: (c.model.decoding_weights, c.method, c.learning.rank) for n, c in made.items()}
    assert told == {
        "plain-own": ("own", "base", 8),
        "unsure-own": ("own", "tt-si", 8),
        "unsure-int8": ("int8", "tt-si", 8),
        "plain": ("auto", "base", 8),
        "unsure": ("auto", "tt-si", 8),
    }
    assert made["unsure-own"].awareness.threshold == 1.01
    assert "unsure-int8" not in memory.variants(config, torch.device("meta"))


def with_another(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda told: told["machine"].update({name: value})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_another("model", "b"), "model = b, and now it is a;"),
        (with_another("device", "H200"), "device = H200, and now it is cpu;"),
        (with_another("processor", "old"), "processor = old, and now it is new;"),
        (with_another("threads", 1), "threads = 1, and now it is 2;"),
        (with_another("torch", "2.12.0"), "torch = 2.12.0, and now it is 2.13.0;"),
        (with_another("transformers", "4"), "transformers = 4, and now it is unknown;"),
        (with_another("peft", "0.1"), "peft = 0.1, and now it is unknown;"),
        (lambda told: told.update(quick=True), "quick = True, and now it is False;"),
        (lambda told: told.pop("quick"), "quick = unknown, and now it is False;"),
        (lambda told: told["settings"]["learning"].update(rank=4), r"learning.rank = 4, and now"),
        (lambda told: told["settings"].update(method="base"), r"method = base, and now"),
        (lambda told: told["settings"]["learning"].update(gone=1), r"gone = 1, and now .* unknown"),
    ],
)
def test_runs_that_do_not_compare_are_not_mixed(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    machine = {
        "model": "a",
        "device": "cpu",
        "processor": "new",
        "threads": 2,
        "torch": "2.13.0",
        "dtype": "b",
    }
    told = {"machine": machine, "quick": False, "settings": bench._settings(bench.Config())}
    other = json.loads(json.dumps(told))
    other["machine"]["memory_gib"] = 1  # says nothing about speed
    file, line = tmp_path / "records.jsonl", {"run": "1", "row": "machine", "variant": ""}
    file.write_text(json.dumps({**line, **other}) + "\n")
    check_comparable(file, read(file), told)
    change(other)
    file.write_text(f"{json.dumps({**line, **told})}\n{json.dumps({**line, **other})}\n")
    with pytest.raises(QuickstudyError, match=f"{says}.* use another --out"):
        check_comparable(file, read(file), told)
