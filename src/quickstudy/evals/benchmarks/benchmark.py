"""What a benchmark is: files of rows, how they become tasks, and its official scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quickstudy.errors import DataError, RequestError
from quickstudy.evals.task import Task, parse
from quickstudy.toolcalls import filled, problem
from quickstudy.types import Reply, ToolCall

Row = Mapping[str, Any]
Scores = dict[str, float]


@dataclass(frozen=True)
class DataFile:
    """A file of rows below the folder that --data names.

    `sha256` and `rows` are of the file that results were made with. `url` is where this very file
    stands in public, pinned to a commit; empty if the file was built out of several, as `origin`
    tells.
    """

    path: str
    rows: int
    sha256: str
    licence: str
    origin: str
    url: str = ""


def hammer_file(path: str, rows: int, sha256: str) -> DataFile:
    """A file that is taken as it is from MadeAgents/Hammer."""
    commit = "5e3ca28c40f98e21bae4794d73d5546321533fe3"
    url = f"https://raw.githubusercontent.com/MadeAgents/Hammer/{commit}/data/test/original/{path}"
    return DataFile(path, rows, sha256, "Apache-2.0", "MadeAgents/Hammer, data/test/original", url)


@dataclass(frozen=True)
class Benchmark:
    """A test set. `official` takes tasks and what was answered to each, in the same order."""

    name: str
    rows: int
    files: tuple[DataFile, ...]
    load: Callable[[Path], list[Task]]
    official: Callable[[Sequence[Task], Sequence[Reply]], Scores]


def read_rows(folder: Path, file: DataFile) -> list[Row]:
    """The rows of a file, unread.

    Raises:
        DataError: if the file is missing or no JSON list.
    """
    path = folder / file.path
    try:
        rows = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; name the folder with --data, and"
            f" `quickstudy data --data {folder}` tells what is in it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}; fetch it again") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} is no list of rows; fetch it again")
    return rows


def read_tasks(folder: Path, file: DataFile, convert: Callable[[Row], Row] = dict) -> list[Task]:
    """A file's rows as tasks, with ids by which results name them.

    Args:
        convert: brings a row into the form that `task.parse` reads.

    Raises:
        DataError: names the file and the row.
    """
    found = list(tasks_of(read_rows(folder, file), Path(file.path).stem, convert))
    for number, task in enumerate(found):
        if isinstance(task, str):
            raise DataError(f"{folder / file.path}, row {number}: {task}")
    return [task for task in found if isinstance(task, Task)]


def tasks_of(
    rows: Sequence[Row], stem: str, convert: Callable[[Row], Row] = dict
) -> Iterator[Task | str]:
    """Each row's task, or what is wrong with the row."""
    for number, row in enumerate(rows):
        try:
            row = {"id": f"{stem}-{number}", **convert(row)}
            yield graded(parse(row, number))
        except RequestError as error:
            yield str(error)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            yield f"no benchmark row: {type(error).__name__}: {error}"


def graded(task: Task) -> Task:
    """The task, marked if its own gold is no call that the listed tools allow.

    Then no answer under the schema is the gold, and to count the row as wrong would be unjust.
    """
    tools = task.request.tools
    for call in task.gold:
        typed = ToolCall(call.name, filled(call, tools))
        if task.request.tool(call.name) is None:
            return replace(task, ungradable=f"the gold tool {call.name} is not listed")
        wrong = problem(typed, tools)
        if wrong:
            return replace(task, ungradable=f"the gold call does not fit its schema: {wrong}")
    return task
