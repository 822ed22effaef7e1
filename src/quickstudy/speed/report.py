"""The summary as a table for the terminal: what was measured, with its spread and rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from quickstudy.speed.summary import ALONE, BY_LENGTH, at_way, figure_at, value_of

# figure, what it says, unit
LINES = (
    ("practice_speedup_vs_naive", "practice, naive (PEFT and Trainer) over ours", "×"),
    ("practice_speedup_vs_naive_same_layers", "… where ours adapts every layer as well", "×"),
    ("practice_speedup_vs_loop", "… over a hand-written PEFT loop, without the Trainer", "×"),
    ("pipeline_speedup_vs_naive", "whole unsure request, naive over ours", "×"),
    ("pipeline_speedup_vs_naive_every_step", "… where ours takes every step as well", "×"),
    ("unsure_over_plain", "unsure request over the plain answer", "×"),
    ("sure_over_plain", "sure request over the plain answer", "×"),
    ("batch8_throughput_ratio", "8 unsure requests together, one tool list", "×"),
    ("batch8_different_lists_ratio", "8 unsure requests together, different tool lists", "×"),
    ("batch8_different_lists_model", "… if decoding alone were shared (a model)", "×"),
    ("training_efficiency", "training step, share of the matrix peak", ""),
    ("decode_speedup_vs_generate", "decoding a token, generate over ours", "×"),
    ("decode_speedup_vs_generate_plain", "… ours without grammar and guesses", "×"),
    ("decode_bandwidth_fraction", "decoding, share of the memory bandwidth", ""),
    ("reset_ms", "reset", " ms"),
    ("peak_memory_ratio", "peak memory, unsure over plain inference", "×"),
    ("peak_memory_ratio_own_weights", "… without copies of weights for decoding", "×"),
    ("peak_memory_ratio_int8", "… with an int8 copy alone", "×"),
    ("unsure_seconds_median", "unsure request", " s"),
    ("unsure_seconds_at_peaks", "… its work at the measured peaks (a model)", " s"),
)
_CAPTION = "[]: 95% interval of the median, from 6 rounds on; else least to most; n: rounds"


def table(summary: Mapping[str, Any]) -> Table:
    """The figures at each prefix length; those that hang on none in the first column."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = measured_lengths(summary)
    tokens = summary["details"]["prefix_tokens"]
    made.add_column("medians")
    for name in names or [""]:
        head = f"{name}, {tokens[name]} tokens" if name in tokens else name
        made.add_column(head, justify="right")
    for key, meaning, unit in LINES:
        if key in BY_LENGTH:
            by = summary["details"][BY_LENGTH[key][1]]
            figures = [figure_at(by, name) for name in names]
        else:
            figures = [at_way(summary["details"], ALONE[key][1])]
        if any(value_of(figure) is not None for figure in figures):
            made.add_row(meaning, *(_cell(figure, unit) for figure in figures))
    for kind, limit in summary["details"]["limits"].items():
        unit = "GB/s" if kind == "read" else "GFLOP/s"
        name = "memory read" if kind == "read" else kind
        made.add_row(f"limit: {name} ({limit['by']})", f"{limit['rate'] / 1e9:,.0f} {unit}")
    made.caption = Text("\n".join(_notes(summary)))
    return made


def measured_lengths(summary: Mapping[str, Any]) -> list[str]:
    """The prefix lengths that any figure was measured at."""
    found = [by for by in summary["details"].values() if isinstance(by, Mapping)]
    return [name for name in summary["lengths"] if any(name in by for by in found)]


def _notes(summary: Mapping[str, Any]) -> Iterator[str]:
    yield _CAPTION
    if summary["quick"]:
        yield "--quick: a smoke test, nothing worth a figure"
    told = summary["details"]["fell_back"]
    if told["failed"]:  # what the ratios leave out
        yield (
            f"{told['failed']} of {told['n']} forced practices came to nothing and are in no ratio:"
        )
        for reason, count in Counter(told["why"]).most_common():
            yield f"{count} × {reason or 'no reason told'}"


def _cell(figure: Any, unit: str) -> Text:
    value = value_of(figure)
    if value is None:
        return Text("–")
    cell = Text(f"{value:.3g}{unit}")
    if isinstance(figure, Mapping) and "n" in figure:
        cell.append(f"\n{_spread(figure)}n {figure['n']}", style="dim")
    return cell


def _spread(figure: Mapping[str, Any]) -> str:
    if figure["n"] == 1:
        return ""
    if figure.get("low") is not None and figure.get("high") is not None:
        return f"[{figure['low']:.3g}, {figure['high']:.3g}] "
    return f"{figure['min']:.3g} to {figure['max']:.3g}, " if "min" in figure else ""
