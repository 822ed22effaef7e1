"""Runs as `quickstudy eval` leaves them, made up: real grading and summaries, invented answers."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quickstudy.evals.benchmarks import Benchmark
from quickstudy.evals.records import (
    DataFacts,
    Drafted,
    Fault,
    ModelFacts,
    Practised,
    Record,
    Run,
    Said,
    Summary,
    Verdict,
)
from quickstudy.evals.scoring import score
from quickstudy.evals.summary import summarise
from quickstudy.evals.task import Task, parse
from quickstudy.types import Reply, ToolCall

# how often a method mends a wrong answer, how often it spoils a right one, its seconds
MANNERS: Mapping[str, tuple[float, float, float]] = {
    "base": (0, 0, 3.1),
    "base-unconstrained": (0.05, 0.2, 2.9),
    "repair": (0.4, 0.03, 3.1),
    "majority": (0.2, 0.08, 14.0),
    "tt-si": (0.45, 0.04, 13.0),
    "tt-si+repair": (0.55, 0.04, 13.0),
    "tt-icl": (0.4, 0.06, 9.0),
    "other-request": (0.2, 0.1, 12.0),
    "tt-si-paper": (0.1, 0.2, 38.0),
}
ROOMS = "kitchen bedroom attic cellar hall garage study nursery".split()
TOOLS = [
    {
        "name": "set_heat",
        "description": "Heats a room.",
        "parameters": {
            "room": {"type": "str", "required": True},
            "degrees": {"type": "int", "required": True},
            "mode": {"type": "str"},
        },
    },
    {"name": "stop_heat", "parameters": {"room": {"type": "str"}}},
]


def tasks(count: int, seed: int = 0, abstain: bool = False) -> list[Task]:
    rng = random.Random(seed)
    made = []
    for number in range(count):
        room, degrees = rng.choice(ROOMS), rng.randint(15, 25)
        words = {15: "fifteen", 20: "twenty"}.get(degrees, str(degrees))
        gold = {"name": "set_heat", "arguments": {"room": room, "degrees": degrees}}
        query = f"Make the {room} {words} degrees warm before I am home."
        row = {"query": query, "tools": TOOLS, "answers": [] if abstain else [gold]}
        made.append(parse({"id": f"heat-{number}", **row}, number))
    return made


def wrong(task: Task, rng: random.Random) -> Reply:
    if not task.gold:
        return Reply("", (ToolCall("stop_heat", {"room": "hall"}),))
    right = dict(task.gold[0].arguments)
    return rng.choice(
        [
            Reply("", (ToolCall("set_heat", {**right, "mode": "eco"}),)),
            Reply("", (ToolCall("set_heat", {**right, "room": "house"}),)),
            Reply("", (ToolCall("set_heat", {"room": right["room"]}),)),
            Reply("", (ToolCall("stop_heat", {"room": right["room"]}),)),
            Reply("It will be warm."),
            Reply('{"name": "set_heat", "arguments": {'),
        ]
    )


def said(reply: Reply) -> dict[str, Any]:
    return {
        "content": reply.content,
        "tool_calls": [call.to_json() for call in reply.tool_calls],
    }


def record(
    benchmark: str, task: Task, place: int, method: str, reply: Reply, **changes: Any
) -> Record:
    """A line with what grading says of `reply`; `changes` go over all else."""
    verdict = score(task, reply)
    told: dict[str, Any] = {
        "benchmark": benchmark,
        "id": task.id,
        "place": place,
        "query": task.query,
        "verbatim": task.verbatim,
        "method": method,
        "request": task.request.messages[-1].content,
        "gold": [call.to_json() for call in task.gold],
        "answer": said(reply),
        "verdict": Verdict(
            correct=None if verdict.unscored else verdict.correct,
            unscored=verdict.unscored,
            errors=tuple(Fault(**fault.to_json()) for fault in verdict.faults),
        ),
        "seconds": {"prefill": 1.0, "draft": 2.0},
    }
    return Record.model_validate({**told, **changes})


def records(
    benchmark: str, rows: Sequence[Task], methods: Sequence[str], seed: int = 0
) -> list[Record]:
    made = []
    for place, task in enumerate(rows):
        rng = random.Random(f"{seed} {benchmark} {task.id}")
        right = Reply("", task.gold) if task.gold else Reply("No tool fits.")
        plain = right if rng.random() < 0.45 else wrong(task, rng)
        certainty = round(rng.betavariate(*((4, 1.2) if plain == right else (1.2, 2))), 4)
        for method in methods:
            mends, spoils, seconds = MANNERS[method]
            luck = random.Random(f"{seed} {task.id} {method.removesuffix('+repair')}").random()
            reply, unsure = plain, certainty < 0.8 and seconds > 4
            if unsure or "repair" in method or method == "base-unconstrained":
                reply = plain
                if plain == right and luck < spoils:
                    reply = wrong(task, rng)
                elif plain != right and luck < mends:
                    reply = right
            trained = unsure and method.startswith(("tt-si", "other"))
            practised = trained or (unsure and method == "tt-icl")
            made.append(
                record(
                    benchmark,
                    task,
                    place,
                    method,
                    reply,
                    **_cycle(task, plain, certainty, method, unsure, practised, trained, rng),
                )
            )
    return made


def _cycle(
    task: Task,
    plain: Reply,
    certainty: float,
    method: str,
    unsure: bool,
    practised: bool,
    trained: bool,
    rng: random.Random,
) -> dict[str, Any]:
    seconds = {"prefill": rng.uniform(0.8, 1.4), "draft": rng.uniform(1.5, 2.5)}
    gated = MANNERS[method][2] > 4
    if unsure and method == "majority":
        seconds["samples"] = rng.uniform(8, 12)
    if practised:
        seconds |= {"synthesis": rng.uniform(1, 5), "answer": rng.uniform(2, 4)}
    if trained:
        seconds |= {"practice": rng.uniform(4, 8), "reset": 0.001}
    drafted = Drafted(text="", finished=True, choices=(), **said(plain))
    if not practised:
        return {
            "seconds": seconds,
            "draft": drafted,
            "certainty": certainty if gated else None,
            "threshold": 0.8 if gated else None,
            "triggered": unsure,
            "fallback": "no practice example survived verification" if unsure else None,
        }
    room, degrees = rng.choice(ROOMS), rng.randint(15, 25)
    example = Practised(
        request=f"Make the {room} {degrees} degrees warm before I am home.",
        source="substitution",
        tool_calls=({"name": "set_heat", "arguments": {"room": room, "degrees": degrees}},),
    )
    return {
        "seconds": seconds,
        "draft": drafted,
        "certainty": certainty,
        "threshold": 0.8,
        "triggered": True,
        "practised": True,
        "examples": [example],
        "rejected": [example.model_copy(update={"reason": "it copies the user's request"})],
        "losses": [0.31, 0.052, 0.0098] if trained else [],
        "examples_trained": int(trained),
        "gradient_steps": 3 * trained,
        "peak_rss_mb": 2100.5,
    }


def summary(
    made: Sequence[Record], rows: Mapping[str, Sequence[Task]], model: str = "Tiny-0.5B"
) -> Summary:
    def official(asked: Sequence[Task], replies: Sequence[Reply]) -> dict[str, float]:
        return {"f1": 0.5}

    methods = list(dict.fromkeys(line.method for line in made))
    run = Run(
        model=ModelFacts(
            name=model, quantisation="Q4_K_M", sha256="ab" * 32, licence="Apache-2.0", dtype="bf16"
        ),
        seed=0,
        settings={method: {"method": method, "learning": {"rank": 16}} for method in methods},
        data={
            name: DataFacts(
                sha256=hashlib.sha256(name.encode()).hexdigest(), rows=294, licence="Apache-2.0"
            )
            for name in rows
        },
        versions={"quickstudy": "0.1.0", "torch": "2.13.0"},
        machine={"platform": "Linux x86_64", "cores": 2, "device": None},
    )
    return summarise(
        run,
        made,
        {name: {task.id: task for task in each} for name, each in rows.items()},
        {name: Benchmark(name, 1, (), lambda folder: [], official) for name in rows},
    )


def write_run(folder: Path, made: Sequence[Record], told: Summary) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(line.model_dump(mode="json"), ensure_ascii=False) for line in made]
    text = "".join(f"{line}\n" for line in lines)
    (folder / "records.jsonl").write_bytes(text.encode("utf-8", "replace"))
    (folder / "summary.json").write_text(told.model_dump_json(indent=1), encoding="utf-8")
    return folder


def whole_run(
    folder: Path,
    benchmarks: Sequence[str] = ("nexusraven", "sealtool", "toolalpaca", "apibank", "abstain"),
    methods: Sequence[str] = tuple(MANNERS),
    count: int = 40,
    seed: int = 0,
    model: str = "Tiny-0.5B",
) -> Path:
    """A run of several methods on several benchmarks."""
    rows = {name: tasks(count, seed + i, name == "abstain") for i, name in enumerate(benchmarks)}
    made = [line for name in rows for line in records(name, rows[name], methods, seed)]
    return write_run(folder, made, summary(made, rows, model))


__all__ = ["Said", "record", "records", "summary", "tasks", "whole_run", "write_run"]
