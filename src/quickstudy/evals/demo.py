"""The demonstration: twelve requests that ship with the package, answered, graded and reported.

A row of `data/demo.jsonl` is a request in OpenAI form with the calls that answer it:

    {"id": "play-album", "messages": [{"role": "user", "content": "Play the album ..."}],
     "tools": [...], "expected": [{"name": "play_album", "arguments": {"album": "..."}}]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from quickstudy.errors import QuickstudyError
from quickstudy.evals import task
from quickstudy.improve import Improver
from quickstudy.toolcalls import equal
from quickstudy.types import Answer


def tasks() -> list[task.Task]:
    with resources.as_file(resources.files("quickstudy") / "data" / "demo.jsonl") as path:
        return task.load(path)


def graded(item: task.Task, answer: Answer) -> dict[str, Any]:
    """The answer as JSON with what was asked, what is right, and whether draft and answer are."""
    tools = item.request.tools
    return {
        **answer.to_json(),
        "request": item.request.messages[-1].content,
        "expected": [call.to_json() for call in item.gold],
        "draft_correct": equal(answer.episode.draft.tool_calls, item.gold, tools),
        "correct": equal(answer.tool_calls, item.gold, tools),
    }


def prepare(out: Path) -> None:
    """Makes the folder ready for a run; what a run before it left is taken away.

    Raises:
        QuickstudyError: if it cannot be written to.
    """
    with written(out):
        out.mkdir(parents=True, exist_ok=True)
        for name in ("episodes.jsonl", "report.html"):
            (out / name).unlink(missing_ok=True)
            (out / name).touch()
        (out / "report.html").unlink()


@contextmanager
def written(out: Path) -> Iterator[None]:
    """Tells faults of writing to `out` as errors of ours."""
    try:
        yield
    except OSError as error:
        reason = "it is a file" if out.exists() and not out.is_dir() else error.strerror
        raise QuickstudyError(
            f"cannot write to {out}: {reason}; name another folder with --out"
        ) from error


def run(
    improver: Improver,
    out: Path,
    track: Callable[[Sequence[task.Task]], Iterable[task.Task]],
) -> list[dict[str, Any]]:
    """Answers every demo request; `out/episodes.jsonl` grows by a whole line each.

    Raises:
        QuickstudyError: if `out` cannot be written to, now or later.
    """
    prepare(out)
    lines = []
    for item in track(tasks()):
        lines.append(graded(item, improver.answer_request(item.request)))
        with written(out):
            _append(out / "episodes.jsonl", json.dumps(lines[-1], ensure_ascii=False) + "\n")
    return lines


def _append(path: Path, line: str) -> None:
    """Adds a line, or nothing: a disk that fills leaves no half of it."""
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            rest = memoryview(line.encode("utf-8", "replace"))
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:  # Ctrl-C too
            file.truncate(end)
            raise


def totals(lines: Sequence[Mapping[str, Any]]) -> str:
    """The demonstration in one sentence. Twelve requests prove nothing and it says so."""
    practised = [line for line in lines if line["episode"]["practised"]]
    before = sum(line["draft_correct"] for line in lines)
    after = sum(line["correct"] for line in lines)
    fixed = sum(line["correct"] and not line["draft_correct"] for line in lines)
    broken = sum(line["draft_correct"] and not line["correct"] for line in lines)
    seconds = sum(sum(line["episode"]["seconds"].values()) for line in lines)
    return (
        f"{len(lines)} requests, {len(practised)} practised: {before} drafts right, {after} "
        f"answers right ({fixed} fixed, {broken} broken) in {seconds:.0f} s. "
        "That shows how it works; a dozen requests measure nothing."
    )
