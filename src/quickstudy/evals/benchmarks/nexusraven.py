"""NexusRaven's API evaluation: single calls of VirusTotal, NVD, EmailRep and ToolAlpaca APIs.

    {"id": "virustotal-0", "source": "virustotal",
     "query": "What do you know of harbour.example?",
     "tools": [{"name": "vt_get_domain", "description": "A domain's report",
                "parameters": {"domain": {"type": "string", "description": "", "required": true},
                               "limit": {"type": "integer", "description": "", "required": false,
                                         "default": null}}}, ... eleven more],
     "answers": [{"name": "vt_get_domain", "arguments": {"domain": "harbour.example"}}]}

The ToolAlpaca part comes from Python signatures without defaults, where every argument is
required; what its documentation does not begin with "Required." may be null in the gold, and is
optional here. Licence CC-BY-NC-4.0: evaluation only.

Official scorer (`evals.official`): nexusflowai/NexusRaven, raven/eval/evaluator.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quickstudy.evals import official
from quickstudy.evals.benchmarks.benchmark import Benchmark, DataFile, Row, read_tasks
from quickstudy.evals.task import Task


def documented(row: Row) -> Row:
    """The row, where the ToolAlpaca part's arguments are required only if they say so."""
    if row["source"] != "toolalpaca":
        return row
    return {**row, "tools": [{**tool, "parameters": _required(tool)} for tool in row["tools"]]}


def _required(tool: Row) -> dict[str, Any]:
    return {
        name: {**schema, "required": schema["description"].startswith("Required.")}
        for name, schema in tool["parameters"].items()
    }


FILE = DataFile(
    path="NexusRaven.json",
    rows=318,
    sha256="2af2dfb9c2d765c077ba429fccd9dc2541319b71041eea3709a8e8c309e3ceab",
    licence="CC-BY-NC-4.0: evaluation only",
    origin="built of nexusflowai/NexusRaven at f3288276, raven/data/resources",
    convert=documented,
)


def load(folder: Path) -> list[Task]:
    return read_tasks(folder, FILE)


BENCHMARK = Benchmark("nexusraven", 318, (FILE,), load, official.nexusraven)
