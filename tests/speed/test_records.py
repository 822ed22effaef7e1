"""Only records of the benchmark are taken, and reading changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.speed.records import latest, problem, read

COMMITTED = Path(__file__).parents[2] / "results" / "speed" / "records.jsonl"
GOOD = {"run": "1", "row": "decode", "variant": "ours", "repeat": 0, "seconds": 1.0}
GOOD |= {"tokens": 3, "passes": 2, "bytes": 9}


def test_committed_records_are_the_benchmarks() -> None:
    assert len(read(COMMITTED)) > 10


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"a": 1}, "has no run"),
        ([1, 2], "is no object"),
        (None, "is no object"),
        ({**GOOD, "row": 3}, "has no row"),
        ({**GOOD, "row": "sealtool"}, "has an unknown row sealtool"),
        ({**GOOD, "seconds": 0}, "has a wrong seconds"),
        ({**GOOD, "seconds": float("nan")}, "has a wrong seconds"),
        ({**GOOD, "seconds": True}, "has a wrong seconds"),
        ({k: v for k, v in GOOD.items() if k != "passes"}, "has no passes"),
        ({"run": "1", "row": "machine", "variant": "", "machine": {}}, "has a wrong machine"),
        ({**GOOD, "row": "whole", "prefix": "short"}, "has no practised"),
        ({**GOOD, "row": "together", "variant": "alone", "lists": "same"}, "has no each"),
        (
            {**GOOD, "row": "together", "variant": "alone", "lists": "same", "each": [{}]},
            "has a wrong each",
        ),
    ],
)
def test_what_is_no_record_is_told(tmp_path: Path, line: Any, says: str) -> None:
    assert problem(GOOD) is None
    file = tmp_path / "records.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n{json.dumps(line)}\n")
    with pytest.raises(QuickstudyError, match=f"no benchmark's: line 2 {says}; use another --out"):
        read(file)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello", "its last line; use another --out"),
        (b'{"task": "x"', "its last line; use another --out"),
        (b"hello\n", r"line 1 is no JSON: .*; delete that line, or use another --out"),
        (b"\xff\xfe\n", r"line 1 is no JSON: .*; delete that line, or use another --out"),
    ],
)
def test_a_foreign_file_stays_as_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "records.jsonl"
    file.write_bytes(content)
    with pytest.raises(QuickstudyError, match=says):
        read(file)
    assert file.read_bytes() == content


def test_what_a_kill_left_of_a_record_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    content = json.dumps(GOOD) + '\n{"run": "1", "row": "dec'
    file.write_text(content)
    assert read(file) == [GOOD]
    assert file.read_text() == content


def test_no_file_holds_no_records(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == []


def test_the_last_whole_run_of_a_row_counts() -> None:
    def some(run: str, count: int, end: bool) -> list[dict[str, Any]]:
        mark = {"run": run, "row": "end", "variant": "decode"}
        return [{**GOOD, "run": run}] * count + [mark] * end

    def chosen(*runs: list[dict[str, Any]]) -> set[str]:
        return {r["run"] for r in latest([r for run in runs for r in run])}

    assert chosen(some("1", 3, True), some("2", 1, True), some("3", 9, False)) == {"2"}
    assert chosen(some("1", 3, False), some("2", 1, False)) == {"1"}
    assert chosen(some("1", 3, False), some("2", 3, False)) == {"2"}
    assert chosen(some("1", 3, False), some("2", 1, True)) == {"2"}
