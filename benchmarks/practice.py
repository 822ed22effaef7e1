"""How good the practice of a run is: what was kept and why not, how distinct, how often right.

    python benchmarks/practice.py runs/x --data DIR --judge MODEL.gguf --out results/x

Reads the records of one method of `quickstudy eval`. A judge, a stronger model, says of each kept
example the probability that its call is right; how far it can be trusted is seen on calls that are
known: the gold ones, and the drafts that were graded wrong. `judged.jsonl` holds its word on each
(it resumes), `summary.json` the shares, those of the judge with 95% bootstrap intervals over items.
Requests of several turns are not judged: a record has only an example's last message. With
`--read N` about N kept examples, as many of each benchmark, are written to `reading.jsonl` to be
read by a person, who adds `"right": true` or `false`, and if it is not `"why"`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import track
from sklearn.metrics import roc_auc_score

from quickstudy import jsonlines
from quickstudy.config import ModelConfig
from quickstudy.evals import stats
from quickstudy.evals.benchmarks import BENCHMARKS
from quickstudy.evals.records import Record
from quickstudy.model import LanguageModel
from quickstudy.types import Message, Request

QUESTION = """A user talks to an assistant that can call this function:
{tool}

User: {request}

The assistant calls: {call}

Is that call exactly what the user asked for: every stated value in the right argument, none \
changed, none made up? Answer Yes or No."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a folder that quickstudy eval wrote")
    parser.add_argument("--method", default="tt-si")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judge", help="what quickstudy's --model takes")
    parser.add_argument("--threads", type=int, help="of the judge")
    parser.add_argument("--read", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    records = [
        Record.model_validate(raw) for raw in jsonlines.read(arguments.run / "records.jsonl")
    ]
    base = {(r.benchmark, r.id): r for r in records if r.method == "base"}
    records = [r for r in records if r.method == arguments.method]
    if not records:
        raise SystemExit(f"{arguments.run} has no record of {arguments.method}")
    asked_in = {
        (name, task.id): task.request
        for name in {r.benchmark for r in records}
        for task in BENCHMARKS[name].load(arguments.data)
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    judged_file = arguments.out / "judged.jsonl"
    name = Path(arguments.judge).stem if arguments.judge else None
    lines = jsonlines.complete(judged_file)
    if any((line["method"], line["judge"]) != (arguments.method, name) for line in lines):
        raise SystemExit(f"{judged_file} is of another method or judge; name another --out")
    judged = {tuple(line["key"]): line["yes"] for line in lines}
    everything = [q for r in records for q in questions(r, base.get((r.benchmark, r.id)))]
    waiting = [(key, *what) for key, *what in everything if key not in judged]
    waiting = [one for one in waiting if len(asked_in[one[0][0], one[0][1]].messages) == 1]
    if arguments.judge and waiting:
        judge = Judge(arguments.judge, arguments.threads)
        for key, request, call in track(waiting, "judging"):
            asked = asked_in[key[0], key[1]]
            if asked.tool(call["name"]) is not None:
                judged[key] = judge.says(asked, request, call)
                line = {"method": arguments.method, "judge": name, "key": key}
                jsonlines.append(judged_file, {**line, "yes": round(judged[key], 4)})
    summary = {
        "method": arguments.method,
        "judge": name,
        "benchmarks": {
            name: quality([r for r in records if r.benchmark == name], base, judged)
            for name in dict.fromkeys(r.benchmark for r in records)
        },
    }
    reading = arguments.out / "reading.jsonl"
    if arguments.read and not reading.exists():
        write_reading(reading, records, arguments.read)
    read = [line for line in jsonlines.complete(reading) if "right" in line]
    if read:
        summary["read"] = told_reading(read, judged)
    (arguments.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


class Judge:
    """A model that says how likely a call is right."""

    def __init__(self, spec: str, threads: int | None) -> None:
        self.model = LanguageModel.load(spec, ModelConfig(threads=threads))
        self.answers = [self.model.encode(word)[:1] for word in ("Yes", "No")]

    @torch.no_grad()
    def says(self, asked: Request, request: str, call: dict) -> float:
        """P(yes) over P(yes) and P(no) for a request to one who asked with these tools."""
        tool = asked.tool(call["name"])
        question = QUESTION.format(
            tool=json.dumps(tool.to_openai()["function"], ensure_ascii=False),
            request=request,
            call=json.dumps(call, ensure_ascii=False),
        )
        ids = self.model.render([Message("user", question)], ())
        logits, _ = self.model.forward([ids], None, None, keep=1)
        yes, no = (logits[0, -1, answer[0]].float() for answer in self.answers)
        return float(torch.sigmoid(yes - no))


def questions(record: Record, base: Record | None) -> Iterator[tuple[tuple, str, dict]]:
    """What the judge is asked of an item that practised: its examples, and calls that are known."""
    at = record.benchmark, record.id
    if not record.examples:
        return
    for number, example in enumerate(record.examples):
        if len(example.tool_calls) == 1:
            yield (*at, "example", number), example.request, example.tool_calls[0]
    if len(record.gold) == 1:
        yield (*at, "gold", 0), record.request, record.gold[0]
    wrong = base is not None and base.verdict.correct is False
    if base is not None and wrong and len(base.answer.tool_calls) == 1:
        yield (*at, "wrong", 0), record.request, base.answer.tool_calls[0]


def quality(records: list[Record], base: dict, judged: dict) -> dict:
    tried = [r for r in records if r.examples or r.rejected]
    kept = [(r, n, e) for r in tried for n, e in enumerate(r.examples)]
    rejected = [e for r in tried for e in r.rejected]
    calling = [(r, n, e) for r, n, e in kept if e.tool_calls]
    yes = {k: v for k, v in judged.items() if k[0] == records[0].benchmark}
    of = {kind: [v for k, v in yes.items() if k[2] == kind] for kind in ("gold", "wrong")}
    examples = [(r.query, yes.get((r.benchmark, r.id, "example", n))) for r, n, e in calling]
    said = [(query, v > 0.5) for query, v in examples if v is not None]
    return {
        "items": len(records),
        "items_with_practice": sum(bool(r.examples) for r in records),
        "kept": len(kept),
        "kept_by_source": dict(Counter(e.source for *_, e in kept).most_common()),
        "rejected": len(rejected),
        "rejected_by_reason": dict(Counter(reason(e.reason) for e in rejected).most_common()),
        "distinct": distinctness(tried),
        "judge": {
            "examples": len(said),
            "examples_right": interval([v for _, v in said], [q for q, _ in said]),
            "gold_right": interval([v > 0.5 for v in of["gold"]]),
            "wrong_drafts_right": interval([v > 0.5 for v in of["wrong"]]),
            "auroc_gold_against_wrong": auroc(of["gold"], of["wrong"]),
        },
        "gain_by_quality": gains([r for r in records if r.practised], base, yes),
    }


def reason(told: str) -> str:
    """A reason without the names and values of its example."""
    told = re.sub(r"(?<!\w)(\"[^\"]*\"|'[^']*'|\d+(\.\d+)?)", "_", told)
    known = (
        "itself prefers",
        "is not valid",
        "makes another call",
        "the user's own value",
        "does not state",
    )
    return next((told[: told.index(k) + len(k)] for k in known if k in told), told)


def distinctness(records: list[Record]) -> dict:
    """Of calls and of words: among an item's examples, and from its request."""
    calling = [[e for e in r.examples if e.tool_calls] for r in records]
    pairs = [p for some in calling for p in itertools.combinations(some, 2)]
    alone = [(r, e) for r, some in zip(records, calling, strict=True) for e in some]
    return {
        "pairs": len(pairs),
        "pairs_with_other_calls": share([a.tool_calls != b.tool_calls for a, b in pairs]),
        "words_shared_in_pairs": median([shared(a.request, b.request) for a, b in pairs]),
        "examples_not_the_request": share([e.request != r.request for r, e in alone]),
        "examples_not_the_draft": share(
            [not r.draft or e.tool_calls != r.draft.tool_calls for r, e in alone]
        ),
        "words_shared_with_request": median([shared(e.request, r.request) for r, e in alone]),
    }


def gains(practised: list[Record], base: dict, yes: dict) -> dict:
    """Practised items by how many of their examples the judge calls right."""
    groups: dict[str, list[Record]] = {"all right": [], "some right": [], "none right": []}
    for record in practised:
        at = record.benchmark, record.id, "example"
        said = [yes[(*at, n)] > 0.5 for n in range(len(record.examples)) if (*at, n) in yes]
        if said:
            name = "all right" if all(said) else "some right" if any(said) else "none right"
            groups[name].append(record)
    return {name: gain(some, base) for name, some in groups.items() if some}


def gain(records: list[Record], base: dict) -> dict:
    graded = [r for r in records if r.verdict.correct is not None]
    if not graded:
        return {"n": 0}
    before = [bool(base[r.benchmark, r.id].verdict.correct) for r in graded]
    compared = stats.compare(before, [bool(r.verdict.correct) for r in graded])
    return {
        "n": len(graded),
        "base": round(sum(before) / len(graded), 4),
        "gain": str(compared.gain),
        "fixed": compared.fixed,
        "broken": compared.broken,
    }


def write_reading(path: Path, records: list[Record], count: int) -> None:
    """Kept examples to be read, as many of each benchmark."""
    names = list(dict.fromkeys(record.benchmark for record in records))
    for name in names:
        own = [record for record in records if record.benchmark == name]
        calling = [(r, n, e) for r in own for n, e in enumerate(r.examples) if e.tool_calls]
        drawn = random.Random(0).sample(calling, min(-(-count // len(names)), len(calling)))
        for record, number, example in drawn:
            line = {
                "key": [record.benchmark, record.id, "example", number],
                "source": example.source,
                "request": example.request,
                "calls": example.tool_calls,
            }
            jsonlines.append(path, line)


def told_reading(read: list[dict], judged: dict) -> dict:
    both = [
        (line["right"], judged[k] > 0.5) for line in read if (k := tuple(line["key"])) in judged
    ]
    return {
        "n": len(read),
        "right": interval([line["right"] for line in read]),
        "by_benchmark": {
            name: interval([line["right"] for line in read if line["key"][0] == name])
            for name in dict.fromkeys(line["key"][0] for line in read)
        },
        "judge_agrees": interval([a == b for a, b in both]),
        "why_wrong": dict(
            Counter(line.get("why", "not said") for line in read if not line["right"])
        ),
    }


def shared(first: str, second: str) -> float:
    """Jaccard index of the words."""
    words = [set(re.findall(r"\w+", text.lower())) for text in (first, second)]
    return len(words[0] & words[1]) / max(1, len(words[0] | words[1]))


def share(values: list[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def median(values: list[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def interval(values: list[bool], clusters: list[str] | None = None) -> str | None:
    return str(stats.bootstrap([float(v) for v in values], clusters=clusters)) if values else None


def auroc(right: list[float], wrong: list[float]) -> float | None:
    if not right or not wrong:
        return None
    known = [1] * len(right) + [0] * len(wrong)
    return round(float(roc_auc_score(known, [*right, *wrong])), 3)


if __name__ == "__main__":
    main()
