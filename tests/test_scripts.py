"""The scripts under benchmarks/ that tell and pass on what runs have left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from quickstudy.evals.records import Choice, Drafted, Fault, Practised, Record, Said, Verdict

FOLDER = Path(__file__).parent.parent / "benchmarks"
CALL = {"name": "SECRET", "arguments": {"SECRET": "SECRET"}}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(benchmark: str, **more: Any) -> Record:
    """A record that tells the row in every field that can."""
    said = Said(content="SECRET", tool_calls=(CALL,))
    example = Practised(
        request="SECRET",
        tool_calls=(CALL,),
        content="SECRET",
        source="substitution",
        reason="SECRET",
    )
    fields: dict[str, Any] = {
        "id": "a-1",
        "place": 0,
        "query": "0f",
        "verbatim": True,
        "method": "tt-si",
        "request": "SECRET",
        "gold": (CALL,),
        "answer": said,
        "verdict": Verdict(
            correct=False,
            unscored="SECRET",
            errors=(Fault(kind="wrong value", explanation="SECRET"),),
        ),
        "candidates": ({"text": "SECRET", "log_prob": -1.0},),
        "certainty": 0.5,
        "fallback": "not valid: SECRET",
        "examples": (example,),
        "rejected": (example,),
        "losses": (0.25,),
        "repaired": ("SECRET",),
        "notes": ("SECRET",),
        "seconds": {"draft": 1.0},
        "draft": Drafted(
            content="SECRET",
            tool_calls=(CALL,),
            text="SECRET",
            finished=True,
            choices=(Choice(token="SECRET", kind="words", log_prob=-1, margin=0.5, entropy=None),),
            names={"SECRET": -1.0},
        ),
    }
    return Record(benchmark=benchmark, **{**fields, **more})


class TestPublish:
    def test_rows_that_must_not_be_passed_on_are_not(self) -> None:
        kept = script("publish").allowed(record("nexusraven").model_dump())
        assert "SECRET" not in json.dumps(kept)
        told = Record.model_validate(kept)
        assert (told.benchmark, told.id, told.method) == ("nexusraven", "a-1", "tt-si")
        assert told.verdict.correct is False
        assert [fault.kind for fault in told.verdict.errors] == ["wrong value"]
        assert (told.certainty, told.losses, told.seconds) == (0.5, (0.25,), {"draft": 1.0})
        assert [example.source for example in told.examples] == ["substitution"]

    def test_others_are_whole(self) -> None:
        whole = record("sealtool").model_dump()
        assert script("publish").allowed(whole) == whole

    def test_what_is_published_can_be_published_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Official scores of answers left out stand as they were."""
        if not (data := os.environ.get("BENCHMARK_DATA")):
            pytest.skip("BENCHMARK_DATA names no folder of benchmark data")
        kept = FOLDER.parent / "results" / "main"
        command = ["publish", str(kept), "--data", data, "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", command)
        script("publish").main()
        again = json.loads((tmp_path / "summary.json").read_text())
        assert again == json.loads((kept / "summary.json").read_text())
        assert (tmp_path / "records.jsonl.gz").read_bytes() == (
            kept / "records.jsonl.gz"
        ).read_bytes()


class TestPractice:
    def test_counts_what_was_kept_and_rejected(self) -> None:
        practice = script("practice")
        base = record("sealtool", method="base")
        own = record("sealtool", practised=True, verdict=Verdict(correct=True))
        judged = {("sealtool", "a-1", "example", 0): 0.9, ("sealtool", "a-1", "gold", 0): 0.2}
        told = practice.quality([own], {("sealtool", "a-1"): base}, judged)
        assert (told["kept"], told["rejected"]) == (1, 1)
        assert told["kept_by_source"] == {"substitution": 1}
        assert told["judge"]["examples_right"].startswith("1.000")
        assert told["judge"]["gold_right"].startswith("0.000")
        gain = told["gain_by_quality"]["all right"]
        assert (gain["n"], gain["fixed"], gain["broken"]) == (1, 1, 0)

    def test_asks_about_examples_and_calls_that_are_known(self) -> None:
        practice, own = script("practice"), record("sealtool")
        kinds = [key[2] for key, *_ in practice.questions(own, own)]
        assert kinds == ["example", "gold", "wrong"]
        assert [key[2] for key, *_ in practice.questions(own, None)] == ["example", "gold"]

    def test_a_reader_need_not_say_why(self) -> None:
        line = {"key": ["sealtool", "a-1", "example", 0], "right": False}
        told = script("practice").told_reading([line], {})
        assert told["why_wrong"] == {"not said": 1}

    @pytest.mark.parametrize(
        ("reason", "told"),
        [
            ("its request does not state 'x' = 3", "its request does not state"),
            ('asked this, the model itself prefers "y"', "asked this, the model itself prefers"),
            ("it is a refusal", "it is a refusal"),
        ],
    )
    def test_reasons_are_told_without_names_and_values(self, reason: str, told: str) -> None:
        assert script("practice").reason(reason) == told


def test_the_dialogues_are_distinct_and_can_be_read() -> None:
    from quickstudy.evals import task

    tasks = task.load(FOLDER / "dialogues.jsonl")
    assert len({item.id for item in tasks}) == len(tasks) == 34
    for item in tasks:
        assert bool(item.gold) == item.id.startswith("call-")
