"""Runs of `quickstudy eval` as one HTML page: what is free, what practice adds, what it breaks.

Reads what the runs left behind (`results`) and never calls a model; all figures are SVG that the
templates draw, so that their text is text, follows the page's colours and costs a few bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.evals import page
from quickstudy.evals.certainty import gates
from quickstudy.evals.changes import changes
from quickstudy.evals.demo_report import flat
from quickstudy.evals.figures import Dot, Scale, Scatter, counts, linear, logarithmic, scatter
from quickstudy.evals.pooled import Mean, means
from quickstudy.evals.records import Delta
from quickstudy.evals.results import (
    ABSTAIN,
    GROUPS,
    TITLES,
    Entry,
    Run,
    averaged,
    entries,
    group,
    label,
)
from quickstudy.evals.scoring import ERROR_KINDS
from quickstudy.types import STAGES

KINDS = (*GROUPS, "Other")


@dataclass(frozen=True)
class Row:
    """A method's accuracy and gains, on one benchmark or in the mean."""

    label: str
    kind: int  # place of its group in KINDS
    n: int
    unscored: int
    accuracy: float | None
    ci95: tuple[float, float] | None
    vs_base: Delta | None
    vs_best_free: Delta | None
    best_free: bool


@dataclass(frozen=True)
class Panel:
    """All methods on one benchmark, or in the mean (`name` is empty) over several."""

    name: str
    title: str
    rows: tuple[Row, ...]
    scale: Scale  # of all its gains
    entries: tuple[Entry, ...] = ()

    def row(self, label: str) -> Row | None:
        return next((row for row in self.rows if row.label == label), None)


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Writes the page to `path`. Equal runs give equal bytes: no clock, no chance."""
    shown = panels(runs)
    single = [panel for panel in shown if panel.entries]
    page.write(
        path,
        "report.html.jinja",
        runs=runs,
        panels=shown,
        abstain=ABSTAIN,
        headlines=[headline for run in runs if (headline := _headline(run, shown))],
        series=list({row.label: row for panel in shown for row in panel.rows}.values()),
        kinds=KINDS,
        others=sorted(
            {
                stage
                for panel in single
                for entry in panel.entries
                for stage in entry.summary.seconds_by_stage
                if stage not in STAGES
            }
        ),
        error_kinds=ERROR_KINDS,
        by_seconds=[(panel, _by_seconds(panel)) for panel in single],
        by_examples=[(panel, _by_examples(panel)) for panel in single],
        gates=[(panel, found) for panel in single if (found := gates(panel.entries))],
        changed=[(panel, told) for panel in single if (told := _changed(panel))],
        settings=[_settings(run) for run in runs],
    )


def panels(runs: Sequence[Run]) -> list[Panel]:
    """The mean over benchmarks first, if there are several, then each benchmark."""
    found = entries(runs)
    methods = list(dict.fromkeys(e.method for each in found.values() for e in each))
    pooled = [mean for run in runs for mean in means(run, methods)]
    pooled.sort(key=lambda mean: methods.index(mean.method))
    rows = [_mean_row(mean) for mean in pooled]
    first = [_panel("", f"Mean of {len(averaged(found))}", rows)] if rows else []
    return first + [
        _panel(name, TITLES.get(name, name), [_row(entry) for entry in each], each)
        for name, each in found.items()
    ]


def _panel(name: str, title: str, rows: Sequence[Row], of: Sequence[Entry] = ()) -> Panel:
    deltas = [delta for row in rows for delta in (row.vs_base, row.vs_best_free) if delta]
    ends = [end for delta in deltas for end in delta.ci95]
    return Panel(name, title, tuple(rows), linear([0.0, *ends], least=0.1), tuple(of))


def _row(entry: Entry) -> Row:
    summary = entry.summary
    return Row(
        entry.label,
        KINDS.index(entry.group),
        summary.n,
        summary.unscored,
        summary.accuracy,
        summary.ci95,
        None if entry.method == "base" else summary.delta_vs_base,
        None if entry.best_free else summary.delta_vs_best_free,
        entry.best_free,
    )


def _mean_row(mean: Mean) -> Row:
    run = mean.run
    names = averaged(run.summary.benchmarks)
    best = all(run.summary.best_free.get(name) == mean.method for name in names)
    return Row(
        label(run, mean.method),
        KINDS.index(group(mean.method)),
        mean.n,
        0,
        mean.accuracy,
        mean.ci95,
        None if mean.method == "base" else mean.vs_base,
        None if best else mean.vs_best_free,
        best,
    )


def _headline(run: Run, shown: Sequence[Panel]) -> dict[str, Any] | None:
    """What a reader asks first, of tt-si, or else of the first method that practises."""
    methods = [entry.method for panel in shown for entry in panel.entries if entry.run is run]
    practising = [method for method in methods if group(method) == "Practice"]
    if not practising:
        return None
    method = "tt-si" if "tt-si" in practising else practising[0]
    told = [(panel, row) for panel in shown if (row := panel.row(label(run, method)))]
    panel, row = next(((p, r) for p, r in told if p.name != ABSTAIN), told[0])
    false_calls = {
        name: 1 - found.accuracy
        for name in ("base", method)
        if (found := run.summary.benchmarks.get(ABSTAIN, {}).get(name))
        and found.accuracy is not None
    }
    return {"run": run, "method": method, "panel": panel, "row": row, "false_calls": false_calls}


def _by_seconds(panel: Panel) -> Scatter:
    dots = list(_dots(panel, {entry.label: entry.summary.seconds for entry in panel.entries}))
    return scatter(dots, logarithmic(dot.x for dot in dots))


def _by_examples(panel: Panel) -> Scatter:
    trained = {entry.label: float(entry.summary.examples_trained) for entry in panel.entries}
    return scatter(list(_dots(panel, trained)), counts(trained.values()))


def _dots(panel: Panel, across: Mapping[str, float]) -> Iterator[Dot]:
    for row in panel.rows:
        if row.accuracy is not None and row.ci95 is not None:
            yield Dot(across[row.label], row.accuracy, *row.ci95, row.label, row.kind)


def _changed(panel: Panel) -> list[Any]:
    found = [changes(entry) for entry in panel.entries if entry.method != "base"]
    return [change for change in found if change.fixed or change.broken]


def _settings(run: Run) -> dict[str, Any]:
    """Settings that all methods share, and where a method differs."""
    each = {method: dict(flat(config)) for method, config in run.summary.settings.items()}
    names = list(dict.fromkeys(name for config in each.values() for name in config))
    common = {
        name: values.pop()
        for name in names
        if len(values := {config.get(name) for config in each.values()}) == 1
    }
    own = {
        method: {name: value for name, value in config.items() if name not in common}
        for method, config in each.items()
    }
    return {"run": run, "common": common, "own": own}
