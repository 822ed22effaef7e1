"""Right or wrong, and in what way: strict exact match of the set of calls.

The same tools with the same arguments, after defaults are filled and values are read as their
schema types (`toolcalls.equality`); the order is free, the counts are equal. Credentials that
nobody can know are left out (`Task.ignored`). What cannot be graded is unscored, not wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from quickstudy.evals.task import Task
from quickstudy.toolcalls import filled
from quickstudy.types import Reply, ToolCall

ErrorKind = Literal[
    "unparsed",
    "no call",
    "extra call",
    "wrong name",
    "wrong value",
    "missing argument",
    "extra argument",
]
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)

_MARKUP = re.compile(
    r"<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>"
    r'|"(?:name|tool|function|tool_calls|arguments|parameters)"\s*:'
)


@dataclass(frozen=True)
class Fault:
    """One way in which an answer is wrong, in words."""

    kind: ErrorKind
    explanation: str

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "explanation": self.explanation}


@dataclass(frozen=True)
class Verdict:
    """`unscored` is why the row cannot be graded; then the answer is neither right nor wrong.

    An answer is correct exactly if it is graded and has no fault.
    """

    correct: bool
    unscored: str | None = None
    faults: tuple[Fault, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "correct": self.correct,
            "unscored": self.unscored,
            "errors": [fault.to_json() for fault in self.faults],
        }


def score(task: Task, reply: Reply) -> Verdict:
    """Grades an answer. Never raises: what a model says is data."""
    if task.ungradable:
        return Verdict(False, task.ungradable)
    if not reply.tool_calls and _attempted(reply.content, task):
        return Verdict(False, None, (Fault("unparsed", "no call can be read in what was said"),))
    faults = tuple(_compare(task, task.gold, reply.tool_calls))
    return Verdict(not faults, None, faults)


def _attempted(text: str, task: Task) -> bool:
    """Words in which a call was tried and failed."""
    names = "|".join(re.escape(tool.name) for tool in task.request.tools)
    called = rf'(?<!\w)(?:{names})"?\s*\(|"(?:{names})"'
    return bool(_MARKUP.search(text) or (names and re.search(called, text)))


def _compare(task: Task, gold: Sequence[ToolCall], said: Sequence[ToolCall]) -> list[Fault]:
    """Pairs each gold call with the most similar said call of its name, then what is left over."""
    wanted = [(call.name, _compared(call, task)) for call in gold]
    given = [(call.name, _compared(call, task)) for call in said]
    rivals = sorted(
        (len(_differences(name, want, got)), i, j)
        for i, (name, want) in enumerate(wanted)
        for j, (called, got) in enumerate(given)
        if called == name
    )
    faults: list[Fault] = []
    left, spare = dict(enumerate(wanted)), dict(enumerate(given))
    for _, i, j in rivals:
        if i in left and j in spare:
            name, want = left.pop(i)
            faults += _differences(name, want, spare.pop(j)[1])
    missed, extra = list(left.values()), list(spare.values())
    for (name, _), (called, _) in zip(missed, extra, strict=False):
        faults.append(Fault("wrong name", f"{called} was called instead of {name}"))
    for name, _ in missed[len(extra) :]:
        faults.append(Fault("no call", f"{name} was not called"))
    for called, _ in extra[len(missed) :]:
        faults.append(Fault("extra call", f"{called} was called and should not be"))
    return faults


def _compared(call: ToolCall, task: Task) -> dict[str, str]:
    """The arguments that count, each value as JSON text: 1 is not true there."""
    return {
        name: json.dumps(value, sort_keys=True, ensure_ascii=False)
        for name, value in filled(call, task.request.tools).items()
        if name not in task.ignored
    }


def _differences(name: str, want: Mapping[str, str], got: Mapping[str, str]) -> list[Fault]:
    faults = []
    for argument, value in want.items():
        if argument not in got:
            told = f"{name} lacks {argument}, which is {value}"
            faults.append(Fault("missing argument", told))
        elif got[argument] != value:
            told = f"{argument} of {name} is {got[argument]} and should be {value}"
            faults.append(Fault("wrong value", told))
    for argument, value in got.items():
        if argument not in want:
            told = f"{name} has {argument} = {value}, which should be left out"
            faults.append(Fault("extra argument", told))
    return faults
