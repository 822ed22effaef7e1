"""Seal-Tools' training rows: for tuning of any kind and for the supervised baseline. No test set.

    {"id": "dev-easy-0", "query": "Reserve slip 12 for the Marigold.",
     "tools": [{"name": "reserveSlip", "description": "...",
                "parameters": {"slip": {"type": "int", "description": "...", "required": true},
                               "boat": {"type": "str", "description": "...", "required": false}}},
               ... four more],
     "answers": [{"name": "reserveSlip", "arguments": {"slip": 12, "boat": "Marigold"}}]}

Built of the prompts for fine-tuning that fairyshine/Seal-Tools publishes, without rows whose query
stands in the test set and rows where a call takes what another gave back ("API_call_0").

Most rows have several calls, where the test sets have almost only one: `single` has the others.
Of those the first half is for choosing and the second for showing (`abstain`).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quickstudy.evals.benchmarks import sealtool
from quickstudy.evals.benchmarks.benchmark import DataFile, Row, read_rows, read_tasks
from quickstudy.evals.task import Task

_PROMPT = re.compile(
    r'api_list = (?P<tools>.*?)\ntask_instruction = "(?P<query>.*)"\nOutput:\n', re.DOTALL
)


def rebuild(prompts: Sequence[bytes], folder: Path) -> bytes:
    """The file out of the published prompts; `folder` holds the test set.

    Raises:
        DataError: if the test set is not there.
        ValueError, KeyError, ...: if the prompts are not what they were.
    """
    tested = {row["query"] for row in read_rows(folder, sealtool.FILE)}
    rows = [_row(prompt) for text in prompts for prompt in json.loads(text)]
    kept = [row for row in rows if row["query"] not in tested and not _nested(row)]
    return json.dumps(kept, ensure_ascii=False).encode()


def _row(prompt: Row) -> dict[str, Any]:
    asked, answered = (turn["value"] for turn in prompt["conversations"])
    found = _PROMPT.search(asked)
    if found is None:
        raise ValueError(f"the prompt {prompt['id']} lists no tools")
    tools = [
        {
            "name": tool["api_name"],
            "description": tool["api_description"],
            "parameters": {
                name: {**schema, "required": name in tool["required"]}
                for name, schema in tool["parameters"].items()
            },
        }
        for tool in ast.literal_eval(found["tools"])
    ]
    calls = ast.literal_eval(answered)
    answers = [{"name": call["api"], "arguments": call["parameters"]} for call in calls]
    return {"id": prompt["id"], "query": found["query"], "tools": tools, "answers": answers}


def _nested(row: Row) -> bool:
    return any("API_call_" in str(answer["arguments"]) for answer in row["answers"])


_PROMPTS = (
    "https://raw.githubusercontent.com/fairyshine/Seal-Tools/"
    "ce753ecd60ed08dd376984035de531ab8421f1c6/Seal-Tools_Dataset/dataset_for_finetune/"
)
FILE = DataFile(
    path="train/sealtool_train.json",
    rows=1142,
    sha256="beba1773da272d12f41feb1068896f6ecac24c391dbdad5955ae7c8b9a32bdef",
    licence="Apache-2.0",
    origin="built of fairyshine/Seal-Tools at ce753ecd, dev and in-domain splits",
    urls=(f"{_PROMPTS}dev.json", f"{_PROMPTS}test_in_domain.json"),
    rebuild=rebuild,
)


def load(folder: Path) -> list[Task]:
    return read_tasks(folder, FILE)


def single(folder: Path) -> list[Task]:
    """The 200 rows with one call."""
    return read_tasks(folder, FILE, keep=lambda row: len(row["answers"]) == 1)
