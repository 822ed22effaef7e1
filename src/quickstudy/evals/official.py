"""The benchmarks' own scores, counted as their authors' programs count, beside our strict match.

They are told so that figures can be laid beside published ones; nothing is decided by them. Keys
begin with the scorer's name. All rows count, also those that we leave unscored, and credentials
are compared. Of a perfect answer to every row the scores are 1.0, but for what is said below.

`nexusraven`: nexusflowai/NexusRaven, raven/eval/evaluator.py at f3288276. A call is run as a Python
function that gives back its name and its arguments with defaults filled; both must be equal to the
reference's. Of several calls the first counts; a call that the function does not take is wrong;
floats are cut to integers; "2" is not 2. The functions of the ToolAlpaca part have no defaults: an
argument that our schema calls optional must be given as null. Told for all rows and by source.

`sealtools`: fairyshine/Seal-Tools, LLM_Evaluation/src/calculate_pluginscore_detailed.py at
ce753ecd. Micro precision, recall and F1 of tool names and of arguments, values compared as
Python's `str` writes them. A said call is compared with the first gold call of its name, and a
gold call can be credited many times.

`hammer`: MadeAgents/Hammer, evaluation/evaluate.py at 5e3ca28c. The same idea, and it counts
wrongly in three ways, reproduced here. A call without arguments that is right is credited one
right argument where none was counted, so that perfect predictions give recall and F1 above 1. A
call that is said twice is credited twice. Of several gold calls of one name the first with any
right argument is taken, not the most similar, so that perfect predictions may lose some too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quickstudy.evals.task import Task
from quickstudy.types import Reply, Tool, ToolCall

Scores = dict[str, float]


def none(tasks: Sequence[Task], replies: Sequence[Reply]) -> Scores:
    """No official scorer."""
    return {}


def nexusraven(tasks: Sequence[Task], replies: Sequence[Reply]) -> Scores:
    """Shares of rows whose first call has the reference's name and filled arguments."""
    right: dict[str, list[bool]] = {"nexusraven_accuracy": []}
    for task, reply in zip(tasks, replies, strict=True):
        source = task.id.rpartition("-")[0]
        strict = source == "toolalpaca"
        wanted = _run(task.gold[0], task.request.tool(task.gold[0].name), strict)
        said = [_run(call, task.request.tool(call.name), strict) for call in reply.tool_calls[:1]]
        for key in ("nexusraven_accuracy", f"nexusraven_accuracy_{source}"):
            right.setdefault(key, []).append(said == [wanted] and wanted is not None)
    return {key: sum(found) / len(found) for key, found in right.items() if found}


def _run(call: ToolCall, tool: Tool | None, strict: bool) -> tuple[str, dict[str, Any]] | None:
    """What the function would give back; None where Python would refuse the call.

    Args:
        strict: the function has no defaults.
    """
    if tool is None or not call.arguments.keys() <= tool.properties.keys():
        return None
    if not (tool.properties.keys() if strict else tool.required) <= call.arguments.keys():
        return None
    given = {name: _cut(value) for name, value in call.arguments.items()}
    defaults = {name: schema.get("default") for name, schema in tool.properties.items()}
    return call.name, {**defaults, **given}


def _cut(value: Any) -> Any:
    return int(value) if isinstance(value, float) else value


def sealtools(tasks: Sequence[Task], replies: Sequence[Reply]) -> Scores:
    """Micro precision, recall and F1 of names and arguments, and the share that could be read."""
    names, arguments = _Counts(), _Counts()
    readable = 0
    for task, reply in zip(tasks, replies, strict=True):
        readable += bool(reply.tool_calls)
        names.gold += len(task.gold)
        arguments.gold += sum(len(call.arguments) for call in task.gold)
        for call in reply.tool_calls:
            names.said += 1
            arguments.said += len(call.arguments)
            gold = next((gold for gold in task.gold if gold.name == call.name), None)
            if gold is not None:
                names.right += 1
                arguments.right += _same(gold.arguments, call.arguments)
    format_rate = {"sealtools_readable": readable / len(tasks)} if tasks else {}
    return {
        **format_rate,
        **names.scores("sealtools", "name"),
        **arguments.scores("sealtools", "argument"),
    }


def hammer(tasks: Sequence[Task], replies: Sequence[Reply]) -> Scores:
    """Micro precision, recall and F1 of names and arguments as Hammer counts them: see above."""
    names, arguments = _Counts(), _Counts()
    for task, reply in zip(tasks, replies, strict=True):
        names.gold += len(task.gold)
        arguments.gold += sum(len(_stated(call.arguments)) for call in task.gold)
        if not reply.tool_calls and reply.content.strip("`json \n") != "[]":
            names.said += 1  # what is no JSON list counts as one wrong name
        for call in reply.tool_calls:
            names.said += 1
            arguments.said += len(_stated(call.arguments))
            rivals = [gold for gold in task.gold if gold.name == call.name]
            names.right += bool(rivals)
            credits = (_credit(gold, call) for gold in rivals)
            arguments.right += next((credit for credit in credits if credit), 0)
    return {**names.scores("hammer", "name"), **arguments.scores("hammer", "argument")}


def _credit(gold: ToolCall, call: ToolCall) -> int:
    if not gold.arguments and not _stated(call.arguments):
        return 1  # one, where none was counted
    return _same(_stated(gold.arguments), _stated(call.arguments))


def _stated(arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value != ""}


def _same(gold: Any, said: Any) -> int:
    """How many of the gold arguments were said with a value that Python writes alike."""
    return sum(name in said and str(said[name]) == str(value) for name, value in gold.items())


class _Counts:
    """Right, said and gold items, summed over rows: the micro average."""

    def __init__(self) -> None:
        self.right = self.said = self.gold = 0

    def scores(self, scorer: str, what: str) -> Scores:
        precision = self.right / self.said if self.said else 0.0
        recall = self.right / self.gold if self.gold else 0.0
        both = precision + recall
        return {
            f"{scorer}_precision_{what}": precision,
            f"{scorer}_recall_{what}": recall,
            f"{scorer}_f1_{what}": 2 * precision * recall / both if both else 0.0,
        }
