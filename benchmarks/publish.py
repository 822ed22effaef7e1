"""One folder to keep of one or more runs of `quickstudy eval` that are parts of the same.

    python benchmarks/publish.py runs/a runs/b --data DIR --out results/main

The runs have model, seed and settings in common, and other benchmarks (from other places of the
seeded order) or methods each. Writes `run.json`, `summary.json`, `report.html` and
`records.jsonl.gz`. Where a benchmark's licence keeps its rows from being passed on, all texts are
left out of its records but a few that tell nothing of a row, and with them out of the report:
verdicts, certainties, timings and counts stay, and the summary is of the whole. A folder made by
this script may be the first of the runs, and the others add to it; what only the answers left out
tell is then taken from its summary.
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
# texts that are the project's own, or name the row without telling it
_ALLOWED = ("benchmark", "id", "query", "method", "kind", "source")


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
        shutil.copyfile(whole / "run.json", arguments.out / "run.json")
        summary = json.loads((whole / "summary.json").read_text())
        records = [record.model_dump() for record in ledger.records.values()]
    blanked = {(r["benchmark"], r["method"]) for r in records if r["request"] == LEFT_OUT}
    for name, methods in summary["benchmarks"].items():
        for method, told in methods.items() if restricted(name) else ():
            told["fallbacks"] = {"left out": sum(told["fallbacks"].values())}
            if (name, method) in blanked:
                told |= before(arguments.runs, name, method)
    (arguments.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    records.sort(key=lambda record: (record["benchmark"], record["place"]))
    lines = [json.dumps(allowed(record), ensure_ascii=False) + "\n" for record in records]
    # no clock in it: equal records give equal bytes
    packed = gzip.compress("".join(lines).encode(), mtime=0)
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


def before(folders: list[Path], benchmark: str, method: str) -> dict[str, Any]:
    """What only answers tell, from a summary that was made before they were left out."""
    for path in (folder / "summary.json" for folder in folders):
        benchmarks = json.loads(path.read_text())["benchmarks"] if path.exists() else {}
        if told := benchmarks.get(benchmark, {}).get(method):
            return {part: told[part] for part in ("official", "fallbacks")}
    return {"official": {}, "fallbacks": {}}


def restricted(benchmark: str) -> bool:
    """Whether the licence of some of its rows lets nobody pass them on."""
    return any("evaluation only" in file.licence for file in BENCHMARKS[benchmark].files)


def allowed(record: dict[str, Any]) -> dict[str, Any]:
    return blank(record) if restricted(record["benchmark"]) else record


def blank(part: Any, key: str = "") -> Any:
    """Without any text that may repeat words of the row."""
    if isinstance(part, str):
        return part if key in _ALLOWED else LEFT_OUT if key == "request" else ""
    if isinstance(part, dict):
        if key == "names":  # they are keys
            return None
        return {name: blank(value, name) for name, value in part.items()}
    if key in ("gold", "tool_calls"):  # argument names are the row's
        return []
    return [blank(item, key) for item in part] if isinstance(part, list | tuple) else part


if __name__ == "__main__":
    main()
