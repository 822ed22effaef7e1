"""Base against TT-SI on the same rows, paired; resumes where it stopped.

    python benchmarks/compare.py --model M --data FILE --rows 0:100 --single-call --out results/x

Writes `records.jsonl` (a line a row, as it goes) and `summary.json`, and prints the summary. The
draft of a TT-SI episode is base's answer (tests/test_improve.py), so each row is run once for
both. With nothing left to run, the summary is made again without loading the model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

from rich.progress import track

from quickstudy import Config, Improver
from quickstudy.evals import stats, task
from quickstudy.toolcalls import equal
from quickstudy.types import STAGES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", default=":", help="a slice START:END of the (filtered) rows")
    parser.add_argument("--single-call", action="store_true", help="only rows with one gold call")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.FIELD=VALUE")
    arguments = parser.parse_args()
    tasks = task.load(arguments.data)
    if arguments.single_call:
        tasks = [item for item in tasks if len(item.gold) == 1]
    start, _, end = arguments.rows.partition(":")
    numbered = list(enumerate(tasks))[int(start) if start else None : int(end) if end else None]
    config = Config.load(overrides=arguments.set)
    arguments.out.mkdir(parents=True, exist_ok=True)
    records_file = arguments.out / "records.jsonl"
    done = read(records_file)
    waiting = [(row, item) for row, item in numbered if row not in done]
    if waiting:
        improver = Improver.load(arguments.model, config)
        with records_file.open("a") as file:
            for row, item in track(waiting, "rows", disable=not sys.stderr.isatty()):
                answer = improver.answer_request(item.request)
                draft = answer.episode.draft.tool_calls
                record = {
                    "row": row,
                    "request": item.request.messages[-1].content,
                    "expected": [call.to_json() for call in item.gold],
                    "draft_correct": equal(draft, item.gold, item.request.tools),
                    "correct": equal(answer.tool_calls, item.gold, item.request.tools),
                    **answer.to_json(),
                }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
                done[row] = record
    records = [done[row] for row, _ in numbered]
    rows = f"--rows {arguments.rows}{' --single-call' if arguments.single_call else ''}"
    settings = config.model_dump(mode="json", exclude={"model": {"cache_dir"}})
    summary = {
        "model": Path(arguments.model).stem,
        "data": f"{arguments.data.name} {rows}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("quickstudy", "torch", "transformers")},
        "settings": settings,
        **summarise(records),
        # the rows themselves stay out: they hold the benchmark's data
        "rows": [
            [r["row"], r["episode"]["certainty"], r["draft_correct"], r["correct"]] for r in records
        ],
    }
    (arguments.out / "summary.json").write_text(compact(summary))
    print(compact({k: v for k, v in summary.items() if k not in ("settings", "rows")}))


def compact(summary: dict) -> str:
    """JSON with a line a top-level key, so that a change of results reads well in a diff."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in summary.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read(path: Path) -> dict[int, dict]:
    """Finished rows; a line cut off by a kill is left out and done again."""
    done = {}
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        path.write_text("".join(whole))
        done = {record["row"]: record for record in map(json.loads, whole)}
    return done


def summarise(records: list[dict]) -> dict:
    base = [record["draft_correct"] for record in records]
    tt_si = [record["correct"] for record in records]
    unsure = [r for r in records if r["episode"]["certainty"] < r["episode"]["threshold"]]
    practised = [r for r in unsure if r["episode"]["practised"]]
    compared = stats.compare(base, tt_si)
    totals = {id(r): sum(r["episode"]["seconds"].values()) for r in records}
    plain = {id(r): sum(r["episode"]["seconds"][s] for s in ("prefill", "draft")) for r in records}
    return {
        "n": len(records),
        "base": str(stats.bootstrap([float(x) for x in base])),
        "tt-si": str(stats.bootstrap([float(x) for x in tt_si])),
        "gain": str(compared.gain),
        "fixed": compared.fixed,
        "broken": compared.broken,
        "mcnemar_p": float(f"{compared.mcnemar_p:.2g}"),
        "unsure": len(unsure),
        "practised": len(practised),
        "examples_trained": sum(len(r["episode"]["examples"]) for r in practised),
        "gradient_steps": sum(len(r["episode"]["losses"]) for r in practised),
        "median_seconds_by_stage_practised": {
            s: round(statistics.median(r["episode"]["seconds"][s] for r in practised), 3)
            for s in STAGES
        }
        if practised
        else {},
        "median_seconds_practised": median([totals[id(r)] for r in practised]),
        "median_seconds_sure": median([totals[id(r)] for r in records if r not in unsure]),
        "median_ratio_practised_to_plain": median(
            [totals[id(r)] / plain[id(r)] for r in practised]
        ),
        "median_ratio_sure_to_plain": median(
            [totals[id(r)] / plain[id(r)] for r in records if r not in unsure]
        ),
        "fallbacks": count(r["episode"]["fallback"] for r in unsure if r["episode"]["fallback"]),
    }


def median(values: list[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def count(values) -> dict[str, int]:
    counted: dict[str, int] = {}
    for value in values:
        counted[value] = counted.get(value, 0) + 1
    return counted


if __name__ == "__main__":
    main()
