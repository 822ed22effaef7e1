"""The headline tables of a report as Markdown, for a README."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from quickstudy.evals.page import gain_interval, interval, p_value, percent, points
from quickstudy.evals.records import Delta
from quickstudy.evals.report import Panel, Row, panels
from quickstudy.evals.results import Run


def tables(runs: Sequence[Run]) -> str:
    """Accuracy, gain over base and gain over the best free method; methods down, sets across."""
    shown = panels(runs)
    if not shown:
        return "No results yet.\n"
    models = "; ".join(f"{run.badge}: {run.label}" if run.badge else run.label for run in runs)
    parts = [
        f"{_text(models)}. Percent right [95% interval]; gains in points, with McNemar's p.",
        _table("Accuracy", shown, _accuracy),
        _table("Gain over base", shown, lambda row: _gain(row.vs_base)),
        _table("Gain over the best free", shown, _over_best_free),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(title: str, shown: Sequence[Panel], cell: Callable[[Row], str]) -> str:
    """Empty if no method has anything to tell."""
    labels = dict.fromkeys(row.label for panel in shown for row in panel.rows)
    lines = [
        [label, *("" if (row := panel.row(label)) is None else cell(row) for panel in shown)]
        for label in labels
    ]
    told = [line for line in lines if any(line[1:])]
    heads = [[title, *map(_heading, shown)], ["---"] * (1 + len(shown))]
    return "\n".join(f"| {' | '.join(map(_text, line))} |" for line in [*heads, *told] if told)


def _heading(panel: Panel) -> str:
    sizes = {row.n for row in panel.rows}
    return f"{panel.title} (n = {'–'.join(str(n) for n in sorted({min(sizes), max(sizes)}))})"


def _accuracy(row: Row) -> str:
    unscored = f", {row.unscored} unscored" if row.unscored else ""
    return f"{percent(row.accuracy)} {interval(row.ci95)}{unscored}"


def _gain(delta: Delta | None) -> str:
    if delta is None:
        return ""
    return f"{points(delta.mean)} {gain_interval(delta.ci95)}, {p_value(delta.mcnemar_p)}"


def _over_best_free(row: Row) -> str:
    return "best free" if row.best_free else _gain(row.vs_best_free)


def _text(cell: str) -> str:
    """One line that no bar or tag in it can break."""
    return re.sub(r"[\\`*|]|[<&](?=\S)|(?<=\])\(", r"\\\g<0>", " ".join(cell.split()))
