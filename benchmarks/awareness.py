"""Which estimate of certainty tells right drafts from wrong ones? AUROC of wrongness, by row.

    python benchmarks/awareness.py --model M --data FILE --rows 0:100 --single-call --out results/x

Makes each draft once and scores every estimator and baseline on it. Writes `records.jsonl` (a line
a row, as it goes; resumes where it stopped) and `summary.json`, and prints the summary: AUROC with
a 95% bootstrap interval by row, the same of the difference to `margin`, and the median seconds
beyond the draft. `reference` compares each draft with the margins of the other right drafts. With
nothing left to run, the summary is made again without loading the model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.progress import track
from sklearn.metrics import roc_auc_score

from quickstudy import Config, Improver
from quickstudy.awareness import baselines, forks, samples
from quickstudy.awareness.calibrate import Observation, left_out
from quickstudy.awareness.margin import token_margin
from quickstudy.awareness.merging import relative
from quickstudy.awareness.names import names
from quickstudy.awareness.reference import positions
from quickstudy.decoding import Deadline, Draft
from quickstudy.evals import stats, task
from quickstudy.toolcalls import equal

OF_THE_DRAFT = {
    "sequence-probability": baselines.sequence_probability,
    "inverse-perplexity": baselines.inverse_perplexity,
    "least-probability": baselines.least_probability,
    "minus-mean-entropy": baselines.negative_mean_entropy,
    "minus-largest-entropy": baselines.negative_largest_entropy,
}
DEVIATIONS = (1, 2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", default=":", help="a slice START:END of the (filtered) rows")
    parser.add_argument("--single-call", action="store_true", help="only rows with one gold call")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.FIELD=VALUE")
    arguments = parser.parse_args()
    tasks = task.load(arguments.data)
    if arguments.single_call:
        tasks = [item for item in tasks if len(item.gold) == 1]
    start, _, end = arguments.rows.partition(":")
    numbered = list(enumerate(tasks))[int(start) if start else None : int(end) if end else None]
    config = Config.load(overrides=arguments.set)
    arguments.out.mkdir(parents=True, exist_ok=True)
    records_file = arguments.out / "records.jsonl"
    done = read(records_file)
    waiting = [(row, item) for row, item in numbered if row not in done]
    if waiting:
        improver = Improver.load(arguments.model, config)
        with records_file.open("a") as file:
            for row, item in track(waiting, "rows", disable=not sys.stderr.isatty()):
                done[row] = {"row": row, **score(improver, item)}
                file.write(json.dumps(done[row]) + "\n")
                file.flush()
    records = [done[row] for row, _ in numbered]
    rows = f"--rows {arguments.rows}{' --single-call' if arguments.single_call else ''}"
    summary = {
        "model": Path(arguments.model).stem,
        "data": f"{arguments.data.name} {rows}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("quickstudy", "torch", "transformers")},
        "settings": {
            "awareness": config.awareness.model_dump(mode="json"),
            "decoding": config.decoding.model_dump(mode="json"),
            "seed": config.seed,
        },
        **summarise(records),
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in summary.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (arguments.out / "summary.json").write_text(text)
    print(text)


def score(improver: Improver, item: task.Task) -> dict:
    """Every estimate of one draft; higher is surer. `seconds` are beyond the draft."""
    draft = improver.draft(item.request)
    decoder, config, tools = improver.decoder, improver.config, item.request.tools
    said, seconds = draft.generation, {}

    def timed(name, work):
        started = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - started, 4)
        return result

    told = timed("reference", lambda: positions(decoder, draft))
    forked = timed("rss-calls", lambda: forks.forked(decoder, draft, config, Deadline()))
    drawn = timed("rss-samples", lambda: samples.sampled(decoder, draft, config, Deadline()))
    sure = {"margin": timed("margin", lambda: token_margin(decoder, said).value)}
    for how in ("sum", "mean"):
        listed = timed("rss-names", lambda how=how: names(decoder, draft, how))
        sure[f"rss-names-{how}"] = listed.value
        sure[f"rss-calls-{how}"] = relative(forked, tools, how).value
        sure[f"rss-samples-{how}"] = relative(samples.scored(said, drawn), tools, how).value
    sure |= {name: of(said) for name, of in OF_THE_DRAFT.items()}
    texts = [generation.text for generation in drawn]
    sure["self-consistency"] = baselines.self_consistency(said.text, texts, tools)
    return {
        "right": equal(draft.reply.tool_calls, item.gold, tools),
        "sure": sure,
        "positions": told,
        "seconds": {"draft": round(spent(draft), 4), **seconds},
    }


def spent(draft: Draft) -> float:
    return sum(draft.seconds.values())


def read(path: Path) -> dict[int, dict]:
    """Finished rows; a line cut off by a kill is left out and done again."""
    done = {}
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        path.write_text("".join(whole))
        done = {record["row"]: record for record in map(json.loads, whole)}
    return done


def summarise(records: list[dict]) -> dict:
    right = [record["right"] for record in records]
    sure = {name: [r["sure"][name] for r in records] for name in records[0]["sure"]}
    observed = [
        Observation(tuple((kind, margin) for kind, margin in r["positions"]), {}, None, r["right"])
        for r in records
    ]
    if any(right):
        for deviations in DEVIATIONS:
            sure[f"reference-{deviations}"] = left_out(observed, deviations)
    seconds = {
        name: round(statistics.median(r["seconds"][name] for r in records), 3)
        for name in records[0]["seconds"]
    }
    return {
        "n": len(records),
        "right": str(stats.bootstrap([float(x) for x in right])),
        "median_seconds": seconds,
        **aurocs(right, sure),
    }


def aurocs(right: list[bool], sure: dict[str, list[float]], resamples: int = 2000) -> dict:
    """AUROC of wrongness of each estimate, surest first, resampled by row."""
    wrong = ~np.asarray(right)
    if wrong.all() or not wrong.any():
        return {"auroc": "not defined: all drafts are right, or all wrong"}
    unsure = {name: -np.nan_to_num(np.asarray(values)) for name, values in sure.items()}
    draws = np.random.default_rng(0).integers(0, len(wrong), size=(resamples, len(wrong)))
    draws = [rows for rows in draws if 0 < wrong[rows].sum() < len(wrong)]
    sampled = {
        name: np.array([roc_auc_score(wrong[rows], values[rows]) for rows in draws])
        for name, values in unsure.items()
    }
    whole = {name: roc_auc_score(wrong, values) for name, values in unsure.items()}
    told = {}
    for name in sorted(whole, key=whole.__getitem__, reverse=True):
        difference = sampled[name] - sampled["margin"]
        told[name] = {
            "auroc": interval(whole[name], sampled[name]),
            "less margin's": interval(whole[name] - whole["margin"], difference),
        }
    return told


def interval(value: float, sampled: np.ndarray) -> str:
    low, high = np.percentile(sampled, [2.5, 97.5])
    return str(stats.Interval(float(value), float(low), float(high)))


if __name__ == "__main__":
    main()
