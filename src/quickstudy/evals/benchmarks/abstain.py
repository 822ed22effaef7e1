"""Training rows with the gold tool taken off the list: the right answer is no call.

    {"id": "abstain-dev-easy-0", "query": "Reserve slip 12 for the Marigold.",
     "tools": [{"name": "listHarbours", ...}, {"name": "getTideTable", ...}, ... two more],
     "answers": []}

Every row of every other set is answered by a call, so that a method that merely learns to call
looks good there. These are the second hundred of the 200 single-call rows; on the first hundred
things were chosen. A tool that is left may by chance fit as well: false calls are compared between
methods, not with zero. No official scorer.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quickstudy.evals import official
from quickstudy.evals.benchmarks import train
from quickstudy.evals.benchmarks.benchmark import Benchmark
from quickstudy.evals.task import Task

SHOWN = slice(100, 200)


def load(folder: Path) -> list[Task]:
    return [without_gold(task) for task in train.single(folder)[SHOWN]]


def without_gold(task: Task) -> Task:
    """The task without the tools that answer it."""
    gold = {call.name for call in task.gold}
    tools = tuple(tool for tool in task.request.tools if tool.name not in gold)
    request = replace(task.request, tools=tools, id=f"abstain-{task.id}")
    return Task(request, ())


BENCHMARK = Benchmark("abstain", 100, (train.FILE,), load, official.none)
