"""Seal-Tools' training rows: for tuning of any kind and for the supervised baseline. No test set.

    {"id": "dev-easy-0", "query": "Reserve slip 12 for the Marigold.",
     "tools": [{"name": "reserveSlip", "description": "...",
                "parameters": {"slip": {"type": "int", "description": "...", "required": true},
                               "boat": {"type": "str", "description": "...", "required": false}}},
               ... four more],
     "answers": [{"name": "reserveSlip", "arguments": {"slip": 12, "boat": "Marigold"}}]}

Most rows have several calls, where the test sets have almost only one: `single` has the others.
Of those the first half is for choosing and the second for showing (`abstain`).
"""

from __future__ import annotations

from pathlib import Path

from quickstudy.evals.benchmarks.benchmark import DataFile, read_tasks
from quickstudy.evals.task import Task

FILE = DataFile(
    path="train/sealtool_train.json",
    rows=1142,
    sha256="beba1773da272d12f41feb1068896f6ecac24c391dbdad5955ae7c8b9a32bdef",
    licence="Apache-2.0",
    origin="fairyshine/Seal-Tools at ce753ecd, dev and in-domain splits, less the test queries",
)


def load(folder: Path) -> list[Task]:
    return read_tasks(folder, FILE)


def single(folder: Path) -> list[Task]:
    """The 200 rows with one call."""
    return [task for task in load(folder) if len(task.gold) == 1]
