"""From records to `summary.json`: accuracies, paired gains, costs. No model is called.

The strongest free rival (`best_free`) is chosen on the very items it is then compared on, so it
has luck on its side: a gain over it is understated rather than overstated.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from quickstudy.evals import stats
from quickstudy.evals.benchmarks import Benchmark
from quickstudy.evals.records import Delta, MethodSummary, Record, Run, Share, Summary
from quickstudy.evals.scoring import ERROR_KINDS
from quickstudy.evals.task import Task
from quickstudy.methods import parse
from quickstudy.types import Reply, ToolCall

ByItem = Mapping[str, Record]


def summarise(
    run: Run,
    records: Sequence[Record],
    tasks: Mapping[str, Mapping[str, Task]],
    benchmarks: Mapping[str, Benchmark],
) -> Summary:
    """The summary of all records of a run.

    Args:
        tasks: benchmark -> id -> task, for the official scores.
        benchmarks: by name, those of the run.
    """
    by_method: dict[str, dict[str, dict[str, Record]]] = {name: {} for name in run.data}
    for record in sorted(records, key=lambda record: record.place):
        by_method[record.benchmark].setdefault(record.method, {})[record.id] = record
    told: dict[str, dict[str, MethodSummary]] = {}
    best: dict[str, str | None] = {}
    for name, methods in by_method.items():
        best[name] = best_free(methods)
        rivals = methods.get("base"), methods.get(best[name] or "")
        told[name] = {
            method: _method(
                run.trained.get(f"{name}/{parse(method).parent}", {}),
                methods[method],
                rivals,
                tasks[name],
                benchmarks[name],
            )
            for method in run.settings
            if method in methods
        }
    return Summary(
        model=run.model,
        seed=run.seed,
        benchmarks=told,
        best_free=best,
        samples=run.samples,
        data=run.data,
        settings=run.settings,
        versions=run.versions,
        machine=run.machine,
        other_machines=run.other_machines,
    )


def best_free(methods: Mapping[str, ByItem]) -> str | None:
    """The most accurate method that needs no training; of equals the one that takes less time."""
    ranks = {
        method: (accuracy, -_mean(r.total_seconds for r in items.values()))
        for method, items in methods.items()
        if parse(method).recipe.free and (accuracy := _accuracy(items)) is not None
    }
    return max(ranks, key=lambda method: ranks[method]) if ranks else None


def _method(
    trained: Mapping[str, float | None],
    items: ByItem,
    rivals: tuple[ByItem | None, ByItem | None],
    tasks: Mapping[str, Task],
    benchmark: Benchmark,
) -> MethodSummary:
    records = list(items.values())
    all_graded = share(records)
    faults = Counter(kind for r in records for kind in {f.kind for f in r.verdict.errors})
    stages = dict.fromkeys(stage for record in records for stage in record.seconds)
    peaks = [r.peak_rss_mb for r in records] + [trained.get("peak_rss_mb")]
    replies = [replied(r) for r in records]
    return MethodSummary(
        n=all_graded.n,
        unscored=len(records) - all_graded.n,
        accuracy=all_graded.accuracy,
        ci95=all_graded.ci95,
        delta_vs_base=_delta(rivals[0], items),
        delta_vs_best_free=_delta(rivals[1], items),
        errors={kind: faults[kind] for kind in ERROR_KINDS},
        official=benchmark.official([tasks[r.id] for r in records], replies),
        verbatim=share([r for r in records if r.verbatim]),
        not_verbatim=share([r for r in records if not r.verbatim]),
        trigger_rate=_mean(r.triggered for r in records),
        practised=sum(r.practised for r in records),
        examples_trained=int(trained.get("examples") or sum(r.examples_trained for r in records)),
        gradient_steps=int(trained.get("gradient_steps") or sum(r.gradient_steps for r in records)),
        seconds=_mean(r.total_seconds for r in records),
        seconds_median=statistics.median(r.total_seconds for r in records),
        seconds_by_stage={s: _mean(r.seconds.get(s, 0.0) for r in records) for s in stages},
        training_seconds=trained.get("seconds") or 0.0,
        peak_rss_mb=max((peak for peak in peaks if peak is not None), default=None),
        fallbacks=dict(Counter(r.fallback for r in records if r.fallback)),
    )


def replied(record: Record) -> Reply:
    """The record's answer as it was graded."""
    said = record.answer
    calls = (ToolCall(call["name"], call["arguments"]) for call in said.tool_calls)
    return Reply(said.content, tuple(calls))


def share(records: Sequence[Record]) -> Share:
    """The accuracy among the graded, with its interval over distinct queries."""
    graded = [r for r in records if r.verdict.correct is not None]
    if not graded:
        return Share(n=0, accuracy=None, ci95=None)
    right = [float(bool(r.verdict.correct)) for r in graded]
    interval = stats.bootstrap(right, clusters=[r.query for r in graded])
    return Share(n=len(graded), accuracy=interval.mean, ci95=(interval.low, interval.high))


def _delta(before: ByItem | None, after: ByItem) -> Delta | None:
    pairs = [
        (before[key], record)
        for key, record in after.items()
        if before and key in before
        if None not in (before[key].verdict.correct, record.verdict.correct)
    ]
    if not pairs:
        return None
    compared = stats.compare(
        [bool(old.verdict.correct) for old, _ in pairs],
        [bool(new.verdict.correct) for _, new in pairs],
        [new.query for _, new in pairs],
    )
    return Delta(
        mean=compared.gain.mean,
        ci95=(compared.gain.low, compared.gain.high),
        mcnemar_p=compared.mcnemar_p,
        fixed=compared.fixed,
        broken=compared.broken,
    )


def _accuracy(items: ByItem) -> float | None:
    graded = [r.verdict.correct for r in items.values() if r.verdict.correct is not None]
    return sum(graded) / len(graded) if graded else None


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
