"""The benchmark end to end on the tiny model: every row runs, and the results can be read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_model
from rich.console import Console

from quickstudy.errors import QuickstudyError
from quickstudy.speed import bench, memory
from quickstudy.speed.folder import check_comparable
from quickstudy.speed.records import read

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
    assert {r["row"] for r in records} >= {"machine", *rows} - {"together"}
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
    line = {"run": "1", "row": "machine", "variant": "", "machine": {"model": "other"}}
    (tmp_path / "records.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(QuickstudyError, match=r"holds results with model = other, and now it is"):
        run(tiny_folder, tmp_path, "limits")
    (tmp_path / "file").touch()
    with pytest.raises(QuickstudyError, match=r"cannot write to .*file"):
        run(tiny_folder, tmp_path / "file", "limits")


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
    assert told["peak"] >= told["loaded"] > 10_000_000


def test_memory_is_measured_with_and_without_copies() -> None:
    config = bench.Config.load(None, ["model.decoding_weights=int8", "learning.rank=8"])
    made = memory.variants(config)
    told = {n: (c.model.decoding_weights, c.method, c.learning.rank) for n, c in made.items()}
    assert told == {
        "plain-own": ("own", "base", 8),
        "unsure-own": ("own", "tt-si", 8),
        "plain": ("int8", "base", 8),
        "unsure": ("int8", "tt-si", 8),
    }
    assert made["unsure-own"].awareness.threshold == 1.01


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
    machine = {"model": "a", "device": "cpu", "processor": "new", "threads": 2, "torch": "2.13.0"}
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
