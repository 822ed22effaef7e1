"""Seal-Tools (arXiv 2405.08355) as Hammer publishes it: five tools and one call a row.

    {"query": "How warm is the sea near Bergen?",
     "tools": [{"name": "getSeaTemperature", "description": "Water temperature at a place",
                "parameters": {"place": {"type": "str", "description": "...", "required": true},
                               "depth": {"type": "float", "description": "..."}},
                "required": ["place"]}, ... four more],
     "answers": [{"tool": "getSeaTemperature", "parameters": {"place": "Bergen"}}]}

Official scorers (`evals.official`): fairyshine/Seal-Tools,
LLM_Evaluation/src/calculate_pluginscore_detailed.py, and Hammer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quickstudy.evals import official
from quickstudy.evals.benchmarks.benchmark import (
    Benchmark,
    Scores,
    hammer_file,
    read_tasks,
)
from quickstudy.evals.task import Task
from quickstudy.types import Reply

FILE = hammer_file(
    "sealtool.json", 294, "113238730efce7de0044547bc2d0aab5e877c4e1c2bafe711a3c2390075ebaef"
)


def load(folder: Path) -> list[Task]:
    return read_tasks(folder, FILE)


def scores(tasks: Sequence[Task], replies: Sequence[Reply]) -> Scores:
    return {**official.sealtools(tasks, replies), **official.hammer(tasks, replies)}


BENCHMARK = Benchmark("sealtool", 294, (FILE,), load, scores)
