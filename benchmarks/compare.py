"""Methods against base on the same rows, paired; resumes where it stopped.

    python benchmarks/compare.py --model M --data FILE --rows 0:100 --single-call \
        --method tt-si --method tt-icl --out results/x

Every row is drafted once; each method goes on from that draft, which is base's answer. Each
answer is graded as it is and after `repair`. With `--no-fit` the gold tool is taken off the list,
so that the right answer is no call; with `--near-tools N` tools of other rows that are like it are
listed as well, N in all, so that the choice among them is hard. Writes `records.jsonl` (a line a
row and method, as it goes) and `summary.json`, and prints the summary. With nothing left to run,
the summary is made again without loading the model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import statistics
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.progress import track
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score

from quickstudy import Config, Improver
from quickstudy.evals import stats, task
from quickstudy.repair import repair
from quickstudy.teaching.teacher import load_teacher
from quickstudy.toolcalls import equal
from quickstudy.types import STAGES, Reply, Tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--method", action="append", default=[], help="repeats [default: tt-si]")
    parser.add_argument("--rows", default=":", help="a slice START:END of the (filtered) rows")
    parser.add_argument("--single-call", action="store_true", help="only rows with one gold call")
    parser.add_argument("--no-fit", action="store_true", help="take the gold tools off the lists")
    parser.add_argument("--near-tools", type=int, metavar="N", help="list N tools, near the gold")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.FIELD=VALUE")
    arguments = parser.parse_args()
    tasks = task.load(arguments.data)
    near = NearTools(tasks) if arguments.near_tools else None
    if arguments.single_call:
        tasks = [item for item in tasks if len(item.gold) == 1]
    if near:
        tasks = [near.beside(item, arguments.near_tools, row) for row, item in enumerate(tasks)]
    if arguments.no_fit:
        tasks = [without_gold(item) for item in tasks]
    start, _, end = arguments.rows.partition(":")
    numbered = list(enumerate(tasks))[int(start) if start else None : int(end) if end else None]
    configs = {
        method: Config.load(overrides=arguments.set, method=method)
        for method in ["base", *(arguments.method or ["tt-si"])]
    }
    settings = {
        method: config.model_dump(mode="json", exclude={"model": {"cache_dir"}, "serve": True})
        for method, config in configs.items()
    }
    for dumped in settings.values():  # a path says more of this machine than of the run
        if dumped["teacher"]["model"]:
            dumped["teacher"]["model"] = Path(dumped["teacher"]["model"]).name
    flags = f"{' --single-call' * arguments.single_call}{' --no-fit' * arguments.no_fit}"
    if near:
        flags += f" --near-tools {arguments.near_tools}"
    what = {"model": Path(arguments.model).stem, "data": f"{arguments.data.name}{flags}"}
    arguments.out.mkdir(parents=True, exist_ok=True)
    same_run(arguments.out / "run.json", {**what, **settings})
    records_file = arguments.out / "records.jsonl"
    done = read(records_file)
    waiting = [(row, item) for row, item in numbered if any((row, m) not in done for m in configs)]
    if not numbered:
        raise SystemExit(f"--rows {arguments.rows} leaves none of {len(tasks)} rows")
    if waiting:
        improver = Improver.load(arguments.model, configs["base"])
        improvers = {"base": improver}
        for method, config in configs.items():
            teacher = load_teacher(config) if method == "tt-d" else None
            improvers[method] = Improver(improver.model, config, teacher)
            improvers[method].decoder = improver.decoder
        with records_file.open("a") as file:
            for row, item in track(waiting, "rows", disable=not sys.stderr.isatty()):
                draft = improver.draft(item.request)
                for method in configs:
                    if (row, method) not in done:
                        answer = improvers[method].improve(draft)
                        done[row, method] = {"row": row, "method": method, **graded(item, answer)}
                        file.write(json.dumps(done[row, method], ensure_ascii=False) + "\n")
                        file.flush()
    base = [done[row, "base"] for row, _ in numbered]
    summary = {
        **what,
        "rows": arguments.rows,
        "n": len(base),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("quickstudy", "torch", "transformers")},
        **{
            method: summarise(base, [done[row, method] for row, _ in numbered])
            for method in configs
        },
    }
    (arguments.out / "summary.json").write_text(compact({**summary, "settings": settings}))
    print(compact(summary))


def same_run(path: Path, now: dict) -> None:
    """Refuses to go on with a run of another model, other data or other settings."""
    before = json.loads(path.read_text()) if path.exists() else {}
    for key in before.keys() & now.keys():
        if before[key] != now[key]:
            raise SystemExit(f"{path.parent} holds a run with another {key}; name another --out")
    path.write_text(compact({**before, **now}))


def without_gold(item: task.Task) -> task.Task:
    """The task with the tools that answer it taken away: the right answer is no call."""
    gold = {call.name for call in item.gold}
    tools = tuple(tool for tool in item.request.tools if tool.name not in gold)
    return task.Task(replace(item.request, tools=tools), ())


class NearTools:
    """All tools of the rows, to list those beside a row's own that are most like its gold tool."""

    def __init__(self, tasks: list[task.Task]) -> None:
        self.tools = list(
            {tool.name: tool for item in tasks for tool in item.request.tools}.values()
        )
        self.vectorizer = TfidfVectorizer()
        self.vectors = self.vectorizer.fit_transform(map(self.words, self.tools))

    @staticmethod
    def words(tool: Tool) -> str:
        return " ".join([tool.name, *re.findall("[A-Z]?[a-z]+", tool.name), tool.description])

    def beside(self, item: task.Task, count: int, seed: int) -> task.Task:
        """The task with `count` tools in random order, its own among them."""
        gold = item.request.tool(item.gold[0].name)
        if gold is None:
            raise SystemExit(f"a row does not list its gold tool {item.gold[0].name}")
        likeness = (self.vectors @ self.vectorizer.transform([self.words(gold)]).T).toarray()[:, 0]
        listed = {tool.name: tool for tool in item.request.tools}
        for index in likeness.argsort(kind="stable")[::-1]:
            if len(listed) >= count:
                break
            listed.setdefault(self.tools[index].name, self.tools[index])
        order = random.Random(seed).sample(list(listed.values()), len(listed))
        return replace(item, request=replace(item.request, tools=tuple(order)))


def graded(item: task.Task, answer: object) -> dict:
    tools = item.request.tools
    mended, _ = repair(Reply(answer.content, answer.tool_calls), item.request)
    return {
        "request": item.request.messages[-1].content,
        "expected": [call.to_json() for call in item.gold],
        "correct": equal(answer.tool_calls, item.gold, tools),
        "correct_repaired": equal(mended.tool_calls, item.gold, tools),
        **answer.to_json(),
    }


def compact(summary: dict) -> str:
    """JSON with a line a top-level key, so that a change of results reads well in a diff."""
    lines = []
    for key, value in summary.items():
        if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
            inner = [f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
            lines.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(inner) + "\n  }")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read(path: Path) -> dict[tuple[int, str], dict]:
    """Finished rows; a line cut off by a kill is left out and done again."""
    done = {}
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        path.write_text("".join(whole))
        done = {(record["row"], record["method"]): record for record in map(json.loads, whole)}
    return done


def summarise(base: list[dict], records: list[dict]) -> dict:
    right = [record["correct"] for record in records]
    repaired = [record["correct_repaired"] for record in records]
    plain = [record["correct"] for record in base]
    free = [record["correct_repaired"] for record in base]
    unsure = [
        r
        for r in records
        if r["episode"]["certainty"] is not None
        and r["episode"]["certainty"] < r["episode"]["threshold"]
    ]
    practised = [r for r in unsure if r["episode"]["practised"]]
    drafted = {r["row"]: sum(r["episode"]["seconds"].values()) for r in base}
    spent = [(r, sum(r["episode"]["seconds"].values())) for r in practised]
    return {
        "accuracy": str(stats.bootstrap([float(x) for x in right])),
        "accuracy_repaired": str(stats.bootstrap([float(x) for x in repaired])),
        "vs_base": told(stats.compare(plain, right)),
        "vs_base_repaired": told(stats.compare(free, right)),
        "repaired_vs_base_repaired": told(stats.compare(free, repaired)),
        "calls_rate": str(stats.bootstrap([float(bool(r["tool_calls"])) for r in records])),
        "gate_auroc": auroc(base, records),
        "unsure": len(unsure),
        "practised": len(practised),
        "examples_trained": sum(len(r["episode"]["examples"]) for r in practised),
        "gradient_steps": sum(len(r["episode"]["losses"]) for r in practised),
        "median_seconds_by_stage_practised": {
            s: median([r["episode"]["seconds"][s] for r in practised]) for s in STAGES
        },
        "median_seconds_practised": median([s for _, s in spent]),
        "median_ratio_practised_to_plain": median([s / drafted[r["row"]] for r, s in spent]),
        "fallbacks": count(r["episode"]["fallback"] for r in unsure if r["episode"]["fallback"]),
        "notes": count(note.split(":")[0] for r in records for note in r["episode"]["notes"]),
        # the rows themselves stay out: they hold the benchmark's data
        "rows": [
            [r["row"], r["episode"]["certainty"], r["correct"], r["correct_repaired"]]
            for r in records
        ],
    }


def auroc(base: list[dict], records: list[dict]) -> str | None:
    """How well certainty tells wrong drafts from right ones, with a 95% bootstrap interval."""
    sure = np.array([r["episode"]["certainty"] for r in records], dtype=float)
    wrong = np.array([not r["correct"] for r in base])
    if np.isnan(sure).any() or wrong.all() or not wrong.any():
        return None
    drawn = np.random.default_rng(0).integers(0, len(wrong), size=(2_000, len(wrong)))
    mixed = [i for i in drawn if wrong[i].any() and not wrong[i].all()]
    low, high = np.percentile([roc_auc_score(wrong[i], -sure[i]) for i in mixed], [2.5, 97.5])
    return str(stats.Interval(float(roc_auc_score(wrong, -sure)), float(low), float(high)))


def told(compared: stats.Comparison) -> dict:
    return {
        "gain": str(compared.gain),
        "fixed": compared.fixed,
        "broken": compared.broken,
        "mcnemar_p": float(f"{compared.mcnemar_p:.2g}"),
    }


def median(values: list[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def count(values) -> dict[str, int]:
    counted: dict[str, int] = {}
    for value in values:
        counted[value] = counted.get(value, 0) + 1
    return counted


if __name__ == "__main__":
    main()
