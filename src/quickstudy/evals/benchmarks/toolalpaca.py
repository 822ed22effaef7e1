"""ToolAlpaca (arXiv 2306.05301) as Hammer publishes it: an API's tools, one call or several.

    {"query": "Is it windy in Bergen, and in Oslo?",
     "tools": [{"name": "wind_get", "description": "Wind now",
                "parameters": {"access_key": {"type": "string", "required": true, ...},
                               "place": {"type": "string", "required": true, ...}}},
               {"name": "components", "description": "#WindDto: Object{speed}", "parameters": {}}],
     "answers": [{"name": "wind_get", "arguments": {"access_key": "3f2a", "place": "Bergen"}},
                 {"name": "wind_get", "arguments": {"access_key": "3f2a", "place": "Oslo"}}]}

`components` documents what tools give back and cannot be called: it is taken off the list.
Credentials whose gold value stands neither in the request nor in the tools are left out of the
comparison: nobody can know them. The official scorer (Hammer's; `evals.official`) compares them.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from quickstudy.evals import official
from quickstudy.evals.benchmarks.benchmark import Benchmark, Row, hammer_file, read_tasks
from quickstudy.evals.task import Task

_CREDENTIAL = re.compile(r"(api|access|app|secret|auth)[-_]?(key|id|token|secret)", re.IGNORECASE)


def without_components(row: Row) -> Row:
    return {**row, "tools": [tool for tool in row["tools"] if tool["name"] != "components"]}


FILE = hammer_file(
    "toolalpaca.json",
    114,
    "d61e5ede4dd32aa977fade4396b43c7cc39279a98409b64df13ed50815989754",
    without_components,
)


def load(folder: Path) -> list[Task]:
    return [without_credentials(task) for task in read_tasks(folder, FILE)]


def without_credentials(task: Task) -> Task:
    """The task, marked with the names of credentials that nobody can give."""
    names = {name for tool in task.request.tools for name in tool.properties}
    tools = json.dumps([tool.to_openai() for tool in task.request.tools])
    known = f"{task.request.user_text}\n{tools}"
    told = {
        name for call in task.gold for name, value in call.arguments.items() if str(value) in known
    }
    return replace(task, ignored=frozenset(n for n in names - told if _CREDENTIAL.fullmatch(n)))


BENCHMARK = Benchmark("toolalpaca", 114, (FILE,), load, official.hammer)
