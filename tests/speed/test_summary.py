"""Figures out of records: pairs of one round, medians, and nothing made up where none is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quickstudy.speed import figure, report
from quickstudy.speed.details import shared_passes
from quickstudy.speed.found import paired_ratio, short, spread
from quickstudy.speed.limits import STEP_SHAPE
from quickstudy.speed.records import Record
from quickstudy.speed.summary import summarise


def record(row: str, variant: str, repeat: int, seconds: float, **more: Any) -> Record:
    return {
        "run": "1",
        "row": row,
        "variant": variant,
        "prefix": "short",
        "repeat": repeat,
        "seconds": seconds,
        **more,
    }


MIB = 2**20
STAGES = {"prefill": 1.0, "draft": 1.0, "synthesis": 0.5, "practice": 1.0, "answer": 0.5}
RECORDS: list[Record] = [
    {
        "run": "1",
        "row": "machine",
        "variant": "",
        "machine": {"model": "m", "dtype": "bfloat16"},
        "lengths": ["short"],
        "quick": False,
        "repeats": 3,
        "origin": {"version": "0.1", "commit": "c0ffee", "dirty": True},
        "settings": {"augmentation": {"examples": 2}},
    },
    record("limits", "product bfloat16", 0, 1.0, rate=50.0, shape=STEP_SHAPE),
    record("limits", "product bfloat16", 0, 1.0, rate=100.0, shape=[4, 5, 6]),
    record("limits", "product float32", 0, 1.0, rate=30.0, shape=[4, 5, 6]),
    record("limits", "read sum float32", 0, 1.0, rate=1000.0),
    record("limits", "read matrix times vector bfloat16", 0, 1.0, rate=800.0),
]
for turn, pace in enumerate((1.0, 2.0, 4.0)):  # the machine slows down, the ratios stay
    RECORDS += [
        record("practice", "naive-trainer", turn, 20 * pace),
        record("practice", "naive-loop", turn, 12 * pace),
        record("practice", "ours-full", turn, 8 * pace),
        record("practice", "ours-all-layers", turn, 4 * pace),
        record(
            "practice", "ours-activated", turn, 2 * pace, steps=4, flops_once=0.0, flops_step=40.0
        ),
        record("step", "few", turn, 3 * pace, K=2, B=1, steps=4, flops_step=40.0),
        record("step", "many", turn, 7 * pace, K=2, B=1, steps=12, flops_step=40.0),
        record("whole", "plain", turn, 2 * pace, practised=False, stages={"prefill": pace}),
        record("whole", "sure", turn, 2 * pace, practised=False, stages={"prefill": pace}),
        record(
            "whole",
            "unsure",
            turn,
            3 * pace,
            practised=turn < 2,
            fallback=None if turn < 2 else "no",
            stages={**STAGES, "reset": 0.0004},
            prefill_flops=300.0,
            prefix_tokens=431,
            losses=[0.1, 0.2, 0.1],
        ),
        record("pipeline", "naive", turn, 30 * pace, stages=STAGES),
        record("pipeline", "ours", turn, 3 * pace, practised=True, fallback=None, stages=STAGES),
        record("decode", "ours", turn, 2 * pace, tokens=20, passes=5, bytes=500),
        record(
            "pipeline",
            "ours-every-step",
            turn,
            5 * pace,
            practised=True,
            fallback=None,
            stages=STAGES,
        ),
        record("decode", "ours-plain", turn, 3 * pace, tokens=20, passes=20, bytes=1000),
        record("decode", "generate", turn, 4 * pace, tokens=20, passes=20, bytes=2000),
        record("memory", "plain-own", turn, pace, peak=100 * MIB, practised=0),
        record("memory", "unsure-own", turn, pace, peak=120 * MIB, practised=2),
        record("memory", "unsure-int8", turn, pace, peak=140 * MIB, practised=2),
        record("memory", "plain", turn, pace, peak=150 * MIB, practised=0),
        record("memory", "unsure", turn, pace, peak=165 * MIB, practised=2 if turn else 0),
        record("curves", "K=1", turn, pace, axis="K", value=1),
    ]
    for kind in ("same", "different"):
        each = [{"seconds": pace, "stages": STAGES}] * 8
        RECORDS.append(record("together", "alone", turn, 8 * pace, lists=kind, each=each))
        RECORDS.append(record("together", "together-8", turn, 2 * pace, lists=kind, B=8))
    RECORDS.append(record("together", "together-2", turn, pace, lists="same", B=2))


def test_headlines() -> None:
    told = summarise(RECORDS)
    assert told["practice_speedup_vs_naive"] == 10
    assert told["practice_speedup_vs_naive_same_layers"] == 5  # both adapt every layer
    assert told["practice_speedup_vs_loop"] == 6  # the loop over ours
    assert told["pipeline_speedup_vs_naive"] == 10
    assert told["unsure_over_plain"] == 1.5
    assert told["sure_over_plain"] == 1
    assert told["batch8_throughput_ratio"] == 4
    assert told["batch8_different_lists_ratio"] == 4
    assert told["batch8_different_lists_model"] == pytest.approx(1.778)  # a half is decoding
    assert told["training_efficiency"] == pytest.approx(0.4)  # 40 / 0.5, 1, 2 s / 100 a second
    assert told["decode_speedup_vs_generate"] == 2
    assert told["decode_bandwidth_fraction"] == pytest.approx(0.125)
    assert told["reset_ms"] == pytest.approx(0.4)
    assert told["peak_memory_ratio"] == 1.65  # over plain inference without copies
    assert told["peak_memory_ratio_own_weights"] == 1.2
    assert told["peak_memory_ratio_int8"] == 1.4
    assert told["unsure_seconds_median"] == 4.5  # of the two that did practise
    assert told["unsure_seconds_at_peaks"] == 5.2
    assert told["machine"]["model"] == "m"
    assert told["pipeline_speedup_vs_naive_every_step"] == 6
    assert told["decode_speedup_vs_generate_plain"] == pytest.approx(1.333)
    details = told["details"]
    assert details["limits"]["read"] == {"rate": 1000.0, "by": "read sum float32"}
    assert details["limits"]["product bfloat16"]["by"] == "4x5x6"
    assert details["fell_back"] == {"n": 9, "failed": 1, "why": ["no"]}
    # 300 / 100, 2 x 5 passes x 100 bytes / 1000, 3 steps made x 40 / 100
    work = {"prefill": 3.0, "decoding": 1.0, "practice": 1.2, "all": 5.2}
    assert details["unsure_seconds_at_peaks"]["short"] == work
    assert details["prefix_tokens"] == {"short": 431}
    assert details["decode"]["ours"]["tokens_a_pass"]["median"] == 4
    assert details["decode"]["ours"]["mebibytes_a_pass"]["median"] == short(100 / MIB)
    assert details["peak_memory_ratio"]["short"]["n"] == 2  # one did not practise
    peaks = {name: told["median"] for name, told in details["peak_mebibytes"]["short"].items()}
    assert peaks == {
        "plain-own": 100,
        "plain": 150,
        "unsure-own": 120,
        "unsure-int8": 140,
        "unsure": 165,
    }
    assert details["together"]["same"]["2"]["median"] == 2


def test_the_table_tells_every_headline_at_every_length() -> None:
    longer = [{**r, "prefix": "long"} for r in RECORDS if r.get("prefix") == "short"]
    machine = {**RECORDS[0], "lengths": ["short", "long"]}
    for r in longer:
        r["seconds"] *= 2 if r["variant"] == "naive-trainer" else 1
    summary = summarise([machine, *RECORDS[1:], *longer])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report.table(summary))
    lines = {key: meaning for key, meaning, _ in report.LINES}
    more = {"behind", "quick", "lengths", "runs", "machine", "settings", "details"}
    assert set(summary) == {*lines, *more}
    told = console.export_text().splitlines()

    def row(figure: str) -> str:
        return next(line for line in told if lines[figure] in line)

    assert row("practice_speedup_vs_naive").split()[-2:] == ["10×", "20×"]
    assert summary["practice_speedup_vs_naive"] == 15
    assert row("unsure_seconds_at_peaks").split()[-4:] == ["5.2", "s", "5.2", "s"]
    assert row("decode_speedup_vs_generate").split()[-1] == "2×"
    assert "10 to 10, n 3" in " ".join(told)
    assert "quick" not in " ".join(told)


def test_the_table_of_one_row_has_its_lengths() -> None:
    memory = [{**r, "prefix": "long"} for r in RECORDS if r["row"] == "memory"]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report.table(summarise(memory)))
    heading = next(line for line in console.export_text().splitlines() if "medians" in line)
    assert heading.split() == ["medians", "long"]


def test_the_table_tells_what_was_measured_and_no_more() -> None:
    limits = [{**RECORDS[0], "quick": True}, *(r for r in RECORDS if r["row"] == "limits")]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report.table(summarise(limits)))
    told = console.export_text()
    assert "limit: memory read (read sum float32)" in told
    assert "limit: product bfloat16 (4x5x6)" in told
    assert "–" not in told
    assert "practice" not in told
    assert "nothing worth a figure" in told


def test_a_headline_needs_every_length() -> None:
    machine = {**RECORDS[0], "lengths": ["short", "long"]}
    told = summarise([machine, *RECORDS[1:]])
    assert told["practice_speedup_vs_naive"] is None
    assert "practice_speedup_vs_naive" not in told["behind"]
    assert told["details"]["practice_speedup_vs_naive"]["short"]["median"] == 10
    assert told["decode_speedup_vs_generate"] == 2  # hangs on no length


def test_a_headline_names_its_run_and_rounds() -> None:
    told = summarise(RECORDS)
    behind = told["behind"]
    assert behind["unsure_over_plain"] == {"row": "whole", "run": "1", "n": {"short": 2}}
    assert behind["batch8_throughput_ratio"] == {"row": "together", "run": "1", "n": 3}
    run = told["runs"]["1"]
    assert (run["version"], run["commit"], run["dirty"]) == ("0.1", "c0ffee", True)
    assert (run["repeats"], run["ended"]["whole"]) == (3, False)
    end = {"run": "1", "row": "end", "variant": "whole"}
    assert summarise([*RECORDS, end])["runs"]["1"]["ended"]["whole"] is True
    assert (told["quick"], told["settings"]["augmentation"]["examples"]) == (False, 2)


def asked(repeat: int, request: str, unsure: float) -> list[Record]:
    told = {"request": request, "practised": True, "fallback": None, "stages": {}}
    return [
        record("whole", "plain", repeat, 1.0, **told),
        record("whole", "unsure", repeat, unsure, **told),
    ]


def test_noise_and_the_difference_of_requests_are_told_apart() -> None:
    records = [r for n in range(3) for r in (*asked(n, "a", 2.0), *asked(n, "b", 6.0))]
    figure = summarise([*RECORDS[:1], *records])["details"]["unsure_over_plain"]["short"]
    assert (figure["min"], figure["median"], figure["max"], figure["n"]) == (4, 4, 4, 3)
    assert figure["requests"] == {"a": 2, "b": 6}
    seconds = summarise([*RECORDS[:1], *records])["details"]["unsure_seconds"]["short"]
    assert (seconds["median"], seconds["n"]) == (4, 3)


def test_a_round_that_did_not_ask_every_request_is_left_out() -> None:
    records = [r for n in range(2) for r in (*asked(n, "a", 2.0), *asked(n, "b", 6.0))]
    figure = summarise([*RECORDS[:1], *records, *asked(2, "a", 2.0)])["details"]
    assert figure["unsure_over_plain"]["short"]["n"] == 2


def test_practice_that_came_to_nothing_is_told_under_the_table() -> None:
    def shown(records: list[Record]) -> str:
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(report.table(summarise(records)))
        return " ".join(console.export_text().split())

    reasons = ["failed: [K]", "failed: [K]", None]
    failed = [
        record("whole", "unsure", n, 1.0, practised=False, fallback=reason, stages={})
        for n, reason in enumerate(reasons)
    ]
    told = "3 of 3 forced practices came to nothing and are in no ratio: 2 × failed: [K] 1 × no"
    assert told in shown(failed)
    good = record("pipeline", "ours", 0, 1.0, practised=True, fallback=None, stages=STAGES)
    assert "3 of 4 forced practices" in shown([*failed, good])
    assert "forced practices" not in shown([good])


def test_what_was_not_measured_is_null() -> None:
    told = summarise(RECORDS[:1])
    assert told.pop("machine") == {"model": "m", "dtype": "bfloat16"}
    assert (told["behind"], told["runs"]) == ({}, {})
    lines = {key for key, _, _ in report.LINES}
    assert {told[key] for key in lines} == {None}
    report.table(summarise([]))


def test_a_row_run_again_replaces_its_records_and_no_others() -> None:
    again = [
        {**record("whole", "plain", 0, 1.0, practised=False, stages={}), "run": "2"},
        {**record("whole", "sure", 0, 3.0, practised=False, stages={}), "run": "2"},
    ]
    again.append({"run": "2", "row": "end", "variant": "whole"})
    told = summarise([*RECORDS, *again])
    assert told["sure_over_plain"] == 3
    assert told["unsure_over_plain"] is None
    assert told["practice_speedup_vs_naive"] == 10


def test_a_run_that_was_cut_off_replaces_no_whole_one() -> None:
    ends = [{"run": "1", "row": "end", "variant": "whole"}]
    cut = [
        {**record("whole", "plain", 0, 1.0, practised=False, stages={}), "run": "2"},
        {**record("whole", "sure", 0, 3.0, practised=False, stages={}), "run": "2"},
    ]
    assert summarise([*RECORDS, *ends, *cut])["sure_over_plain"] == 1
    whole = {"run": "2", "row": "end", "variant": "whole"}
    assert summarise([*RECORDS, *ends, *cut, whole])["sure_over_plain"] == 3
    assert summarise([*RECORDS, *cut])["sure_over_plain"] == 1  # none marked: the longer one


def test_one_ratio_may_be_far_off() -> None:
    told = paired_ratio([(2.0, 1.0), (4.0, 2.0), (6.0, 3.0), (90.0, 1.0), (8.0, 4.0)])
    assert told is not None
    assert (told["median"], told["n"], told["min"], told["max"]) == (2, 5, 2, 90)
    assert paired_ratio([]) is None


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_rounds_have_no_interval(n: int) -> None:
    told = paired_ratio([(float(k), 1.0) for k in range(1, n + 1)])
    assert told is not None
    assert (told["low"], told["high"], told["min"], told["max"]) == (None, None, 1, n)


def test_interval_is_of_order_statistics() -> None:
    six, nine = (paired_ratio([(float(k), 1.0) for k in range(n, 0, -1)]) for n in (6, 9))
    assert six is not None
    assert nine is not None
    assert (six["low"], six["high"]) == (1, 6)  # covers 1 - 2 / 2^6 = 97%
    assert (nine["low"], nine["high"]) == (2, 8)  # covers 1 - 2 (1 + 9) / 2^9 = 96%


def test_spread_is_of_quartiles() -> None:
    told = {"min": 1, "q1": 2, "median": 3, "q3": 4, "max": 5, "n": 5}
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == told


@pytest.mark.parametrize(("share", "most"), [(0.0, 1.0), (1.0, 8.0), (0.5, 1 / (0.5 + 0.0625))])
def test_shared_passes(share: float, most: float) -> None:
    assert shared_passes(share, 8) == pytest.approx(most)


@pytest.mark.parametrize("records", [[], RECORDS], ids=["nothing", "all"])
def test_figure_is_one_file(tmp_path: Path, records: list[Record]) -> None:
    figure.draw(summarise(records), tmp_path / "speed.svg")
    drawn = (tmp_path / "speed.svg").read_text()
    assert drawn.count("<svg") == 1
    assert 'href="http' not in drawn
    assert drawn.count('id="axes_') == (7 if records else 0)  # no empty panel
    figure.draw(summarise(records), tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == drawn
