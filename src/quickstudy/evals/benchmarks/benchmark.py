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

    `sha256` and `rows` are of the file that results were made with. `convert` brings a row into
    the form that `task.parse` reads. `urls` is where it stands in public, pinned to a commit;
    where `rebuild` is given, the file is made of those (and of files in the folder); without
    urls it cannot be fetched, and `origin` says what it was made of.
    """

    path: str
    rows: int
    sha256: str
    licence: str
    origin: str
    convert: Callable[[Row], Row] = dict
    urls: tuple[str, ...] = ()
    rebuild: Callable[[Sequence[bytes], Path], bytes] | None = None


@dataclass(frozen=True)
class Malformed:
    """A row that cannot be read, by its place in the file from 0."""

    row: int
    error: str


@dataclass(frozen=True)
class Benchmark:
    """A test set. `official` takes tasks and what was answered to each, in the same order."""

    name: str
    rows: int
    files: tuple[DataFile, ...]
    load: Callable[[Path], list[Task]]
    official: Callable[[Sequence[Task], Sequence[Reply]], Scores]


def hammer_file(
    path: str, rows: int, sha256: str, convert: Callable[[Row], Row] = dict
) -> DataFile:
    """A file that is taken as it is from MadeAgents/Hammer."""
    commit = "5e3ca28c40f98e21bae4794d73d5546321533fe3"
    url = f"https://raw.githubusercontent.com/MadeAgents/Hammer/{commit}/data/test/original/{path}"
    origin = f"MadeAgents/Hammer at {commit[:8]}, data/test/original"
    return DataFile(path, rows, sha256, "Apache-2.0", origin, convert, (url,))


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
        raise DataError(f"{path} is no JSON: {error}; delete it and fetch it again") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} is no list of rows; delete it and fetch it again")
    return rows


def read_tasks(
    folder: Path, file: DataFile, keep: Callable[[Row], bool] = lambda row: True
) -> list[Task]:
    """A file's rows as tasks; those that are not to be kept are not read.

    Raises:
        DataError: names the file and the first row that is malformed.
    """
    tasks = []
    for task in parse_rows(read_rows(folder, file), file, keep):
        if isinstance(task, Malformed):
            raise DataError(f"{folder / file.path}, row {task.row}: {task.error}")
        tasks.append(task)
    return tasks


def parse_rows(
    rows: Sequence[Row], file: DataFile, keep: Callable[[Row], bool] = lambda row: True
) -> Iterator[Task | Malformed]:
    """Each row as a task, with the id by which results name it, or what is wrong with it."""
    for number, row in enumerate(rows):
        try:
            if keep(row):
                named = {"id": f"{Path(file.path).stem}-{number}", **file.convert(row)}
                yield graded(parse(named, number))
        except RequestError as error:
            yield Malformed(number, str(error))
        except KeyError as error:
            yield Malformed(number, f"it lacks {error}")
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            yield Malformed(number, f"no benchmark row: {type(error).__name__}: {error}")


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
