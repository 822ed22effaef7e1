"""The demonstration: twelve requests that ship with the package, answered, graded and reported.

A row of `data/demo.jsonl` is a request in OpenAI form with the calls that answer it:

    {"id": "play-album", "messages": [{"role": "user", "content": "Play the album ..."}],
     "tools": [...], "expected": [{"name": "play_album", "arguments": {"album": "..."}}]}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from quickstudy import jsonlines
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
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("episodes.jsonl", "report.html"):
            (out / name).unlink(missing_ok=True)
            (out / name).touch()
        (out / "report.html").unlink()
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
        jsonlines.append(out / "episodes.jsonl", lines[-1])
    return lines


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
