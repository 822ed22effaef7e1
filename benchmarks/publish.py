"""One folder to keep of one or more runs of `quickstudy eval` that are parts of the same.

    python benchmarks/publish.py runs/a runs/b --data DIR --out results/main

The runs have model, seed and settings in common, and other benchmarks or methods each. Writes
`run.json`, `summary.json`, `report.html` and `records.jsonl.gz`. Where a benchmark's licence keeps
its rows from being passed on, the texts are left out of the records, and with them out of the
report: verdicts, certainties, timings and counts stay, and the summary is of the whole.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from quickstudy import jsonlines
from quickstudy.evals import results
from quickstudy.evals.benchmarks import BENCHMARKS
from quickstudy.evals.ledger import Ledger
from quickstudy.evals.records import Run
from quickstudy.evals.report import write_report

RECORDS = "records.jsonl"
LEFT_OUT = "left out: the licence of the rows"
_TEXTS = ("request", "text", "content", "token", "explanation", "reason")
_CALLS = ("gold", "tool_calls", "repaired", "notes", "names")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders that quickstudy eval wrote")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name)
        ledger = merged(arguments.runs, whole)
        ledger.summarised(arguments.data)
        for kept in ("run.json", "summary.json"):
            shutil.copyfile(whole / kept, arguments.out / kept)
        records = [record.model_dump() for record in ledger.records.values()]
    records.sort(key=lambda record: (record["benchmark"], record["place"]))
    told = [json.dumps(allowed(record), ensure_ascii=False) + "\n" for record in records]
    # no clock in it: equal records give equal bytes
    packed = gzip.compress("".join(told).encode(), mtime=0)
    (arguments.out / f"{RECORDS}.gz").write_bytes(packed)
    write_report(results.read([arguments.out]), arguments.out / "report.html")
    print(f"{len(records)} records of {len(arguments.runs)} runs: {arguments.out}")


def merged(folders: list[Path], out: Path) -> Ledger:
    """All that the runs hold; raises ConfigError where they are of other settings."""
    runs = [Run.model_validate_json((folder / "run.json").read_bytes()) for folder in folders]
    trained = {name: cost for run in runs for name, cost in run.trained.items()}
    for run in runs:
        Ledger(out, run).update(trained=trained)
    with (out / RECORDS).open("w") as file:
        for folder in folders:
            file.writelines(json.dumps(line) + "\n" for line in jsonlines.read(folder / RECORDS))
    return Ledger(out, runs[-1])


def allowed(record: dict[str, Any]) -> dict[str, Any]:
    licence = ", ".join(file.licence for file in BENCHMARKS[record["benchmark"]].files)
    return blank(record) if "evaluation only" in licence else record


def blank(part: Any) -> Any:
    """Without what tells the row or repeats words of it."""
    if isinstance(part, dict):
        return {key: _blank(key, value) for key, value in part.items()}
    return [blank(item) for item in part] if isinstance(part, list | tuple) else part


def _blank(key: str, value: Any) -> Any:
    if key in _CALLS:
        return None if key == "names" else []
    if key in _TEXTS and isinstance(value, str):
        return LEFT_OUT if key == "request" else ""
    return blank(value)


if __name__ == "__main__":
    main()
